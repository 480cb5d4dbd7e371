//! Protobuf's encoding: a message is fields, one after the other, in any order (protobuf.dev, Encoding).

use prost::DecodeError;

/// Groups within groups, which nobody uses any more, up to this depth.
const MAX_GROUPS: u32 = 100;
/// Bytes of the longest number.
const MAX_VARINT: u32 = 10;

/// What is no message of the kind it should be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// A part that the generated code reads.
    #[error(transparent)]
    Part(#[from] DecodeError),
    /// It breaks off.
    #[error("failed to decode Protobuf message: it ends within a field")]
    Short,
    /// A number of more than 64 bits, or a key of more than 32.
    #[error("failed to decode Protobuf message: a number is too large")]
    Number,
    /// A key that is none.
    #[error("failed to decode Protobuf message: a field has number 0 or an unknown wire type")]
    Key,
    /// A field that is known by another type.
    #[error("failed to decode Protobuf message: field {0} is of another type")]
    Type(u32),
    /// A text that is none.
    #[error("failed to decode Protobuf message: field {0} is not UTF-8")]
    Text(u32),
    /// The end of a group that has not begun, or groups without end.
    #[error("failed to decode Protobuf message: groups that do not match")]
    Group,
}

/// The fields of a message, in their order; after an error there are no more.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no known field has.
    Other,
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| Malformed::Short)?)?)
            }
            _ => {
                self.skip(number, wire_type, MAX_GROUPS)?;
                Value::Other
            }
        };
        Ok(Field { number, value })
    }

    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Number)?;
        match (key >> 3, (key & 7) as u8) {
            (1.., 0..=5) => Ok((key >> 3, (key & 7) as u8)),
            _ => Err(Malformed::Key),
        }
    }

    fn skip(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<(), Malformed> {
        match wire_type {
            0 => drop(self.varint()?),
            1 => drop(self.take(8)?),
            2 => {
                let length = self.varint()?;
                self.take(usize::try_from(length).map_err(|_| Malformed::Short)?)?;
            }
            3 => loop {
                let (inner, wire_type) = self.key()?;
                if wire_type == 4 {
                    return if inner == number { Ok(()) } else { Err(Malformed::Group) };
                }
                self.skip(inner, wire_type, depth.checked_sub(1).ok_or(Malformed::Group)?)?;
            },
            5 => drop(self.take(4)?),
            _ => return Err(Malformed::Group),
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        let mut number = 0;
        for index in 0..MAX_VARINT {
            let [byte, rest @ ..] = self.0 else { return Err(Malformed::Short) };
            self.0 = rest;
            if index == MAX_VARINT - 1 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (part, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(part)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Value::Bytes(bytes) = self.value { Ok(bytes) } else { Err(Malformed::Type(self.number)) }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Text(self.number))
    }

    pub(super) fn number(self) -> Result<u64, Malformed> {
        if let Value::Number(number) = self.value { Ok(number) } else { Err(Malformed::Type(self.number)) }
    }

    /// A number of 32 bits: of a longer one the lower half counts (protobuf.dev, Updating A Message Type).
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn unsigned(self) -> Result<u32, Malformed> {
        Ok(self.number()? as u32)
    }

    /// The number of an enum's value, likewise.
    pub(super) fn enumeration(self) -> Result<i32, Malformed> {
        Ok(self.unsigned()?.cast_signed())
    }

    pub(super) fn flag(self) -> Result<bool, Malformed> {
        Ok(self.number()? != 0)
    }

    /// Adds a message that the generated code reads to what came of the same field before.
    pub(super) fn merge_into<M: prost::Message + Default>(self, message: &mut Option<M>) -> Result<(), Malformed> {
        Ok(message.get_or_insert_default().merge(self.bytes()?)?)
    }
}
