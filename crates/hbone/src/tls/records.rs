//! TLS 1.3 after the handshake: records opened and sealed where they lie, key updates, alerts (RFC 8446 §4.6, §5, §6).
//!
//! rustls has done the handshake and derives every later key; this layer saves the copies that its record layer makes.
//!
//! Invariant: a record is either opened whole or ends the session, and after an error nothing is opened any more. What
//! the peer can make this layer do besides moving payload is bounded by [`MAX_USELESS_RECORDS`].
//!
//! Deliberately absent: session tickets are passed over, since sessions are never resumed.

use std::fmt;
use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, Error, ExtractedSecrets, InvalidMessage, PeerMisbehaved};

use super::aead::{Header, Key, TAG};
use super::{MAX_RECORD_PLAINTEXT, TlsError};

/// Octets in front of every record.
pub(crate) const HEADER: usize = 5;
/// Octets behind the plaintext of a record: its inner content type and the tag.
pub(crate) const TRAILER: usize = 1 + TAG;
/// Longest record body that a peer may send (RFC 8446 §5.2).
const MAX_BODY: usize = MAX_RECORD_PLAINTEXT + 256;

/// Records without payload that may follow one another: key updates, tickets, padding. Each costs a decryption or more
/// and brings nothing; servers send a ticket or two, and nobody has reason for many more.
pub const MAX_USELESS_RECORDS: u32 = 32;
/// Records sealed with one key before it is replaced. AES-GCM is sound for 2^24.5 (RFC 8446 §5.5).
const RECORDS_PER_KEY: u64 = 1 << 23;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// A whole KeyUpdate that asks for none in return (RFC 8446 §4.6.3).
const KEY_UPDATE_MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
/// Alerts of which the first byte is not looked at, as RFC 8446 §6 has it; we send fatal ones.
const FATAL: u8 = 2;
const WARNING: u8 = 1;

/// What a record carries (RFC 8446 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Frames of the tunnel.
    Data,
    /// A key update; the records behind it are sealed with the next key.
    KeyUpdate,
    /// A goodbye, or the reason for an abrupt end.
    Alert,
}

/// Who derives the next keys.
pub(super) enum KeySchedule {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// A session whose handshake is complete.
pub(super) struct Records {
    schedule: KeySchedule,
    sealing: Key,
    opening: Key,
    messages: Messages,
    useless: u32,
    /// A key update that the peer is owed, or that is due because the key is used up.
    key_update_due: bool,
    records_per_key: u64,
    /// The error that ended the session.
    fault: Option<Error>,
    /// What the peer has to be told about it.
    alert: Option<AlertDescription>,
    peer_closed: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("sealed", &self.sealing.seq())
            .field("opened", &self.opening.seq())
            .finish_non_exhaustive()
    }
}

impl Records {
    /// Takes over from rustls.
    pub(super) fn new(schedule: KeySchedule, secrets: &ExtractedSecrets) -> Result<Self, TlsError> {
        let key = |(seq, secrets): &(u64, _)| Key::new(*seq, secrets).ok_or_else(unsupported);
        Ok(Self {
            schedule,
            sealing: key(&secrets.tx)?,
            opening: key(&secrets.rx)?,
            messages: Messages::default(),
            useless: 0,
            key_update_due: false,
            records_per_key: RECORDS_PER_KEY,
            fault: None,
            alert: None,
            peer_closed: false,
        })
    }

    pub(super) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Opens all whole records in `input` and appends where the payload lies, shifted by `base`. Returns how many
    /// octets of `input` have been dealt with.
    pub(super) fn open(
        &mut self,
        input: &mut [u8],
        base: usize,
        opened: &mut Vec<Range<usize>>,
    ) -> Result<usize, TlsError> {
        if let Some(fault) = &self.fault {
            return Err(TlsError::Peer(fault.clone()));
        }
        let mut done = 0;
        while !self.peer_closed
            && let Some((header, rest)) = input[done..].split_first_chunk_mut::<HEADER>()
        {
            let length = match body_length(*header) {
                Ok(length) => length,
                Err(error) => return Err(self.fail(error)),
            };
            let Some(body) = rest.get_mut(..length) else { break };
            let start = done + HEADER;
            match self.open_record(*header, body) {
                Ok(payload) if payload > 0 => opened.push(base + start..base + start + payload),
                Ok(_) => {}
                Err(error) => return Err(self.fail(error)),
            }
            done = start + length;
        }
        // Nothing that comes after close_notify means anything (RFC 8446 §6.1).
        Ok(if self.peer_closed { input.len() } else { done })
    }

    /// Opens one record; returns how much application data it begins with.
    fn open_record(&mut self, header: Header, body: &mut [u8]) -> Result<usize, Error> {
        let length = self.opening.open(header, body).map_err(|_| Error::DecryptError)?;
        let inner = &body[..length];
        if length > MAX_RECORD_PLAINTEXT + 1 {
            return Err(Error::PeerSentOversizedRecord);
        }
        // Everything behind the last octet that is not zero is padding (RFC 8446 §5.4).
        let end = inner.iter().rposition(|octet| *octet != 0);
        let end = end.ok_or(Error::InvalidMessage(InvalidMessage::InvalidContentType))?;
        let content = &inner[..end];
        match inner[end] {
            APPLICATION_DATA if self.messages.is_between() => {
                self.useless = if content.is_empty() { self.useless + 1 } else { 0 };
            }
            HANDSHAKE if !content.is_empty() => {
                self.useless += 1;
                self.take_messages(content)?;
            }
            ALERT if self.messages.is_between() => {
                self.useless += 1;
                self.take_alert(content)?;
            }
            _ => return Err(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
        }
        if self.useless > MAX_USELESS_RECORDS {
            return Err(Error::PeerMisbehaved(match inner[end] {
                HANDSHAKE => PeerMisbehaved::TooManyKeyUpdateRequests,
                _ => PeerMisbehaved::TooManyEmptyFragments,
            }));
        }
        Ok(if inner[end] == APPLICATION_DATA { end } else { 0 })
    }

    fn take_messages(&mut self, mut content: &[u8]) -> Result<(), Error> {
        while let Some(message) = self.messages.next(&mut content)? {
            match (message, &self.schedule) {
                (Message::KeyUpdate { requested }, _) => {
                    // A key change falls between two records (RFC 8446 §5.1).
                    if !content.is_empty() {
                        return Err(Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment));
                    }
                    let (seq, secrets) = match &mut self.schedule {
                        KeySchedule::Client(c) => c.update_rx_secret()?,
                        KeySchedule::Server(s) => s.update_rx_secret()?,
                    };
                    self.opening = Key::new(seq, &secrets).ok_or(Error::DecryptError)?;
                    self.key_update_due |= requested;
                }
                (Message::Ticket, KeySchedule::Client(_)) => {}
                (Message::Ticket, KeySchedule::Server(_)) => return Err(unexpected_message()),
            }
        }
        Ok(())
    }

    fn take_alert(&mut self, content: &[u8]) -> Result<(), Error> {
        let &[_level, description] = content else {
            return Err(Error::InvalidMessage(InvalidMessage::MessageTooShort));
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.peer_closed = true,
            AlertDescription::UserCanceled => {} // close_notify follows
            fatal => return Err(Error::AlertReceived(fatal)),
        }
        Ok(())
    }

    /// Remembers what the peer has to be told.
    fn fail(&mut self, error: Error) -> TlsError {
        self.alert = match &error {
            Error::AlertReceived(_) => None,
            Error::DecryptError => Some(AlertDescription::BadRecordMac),
            Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(AlertDescription::UnexpectedMessage),
            Error::InvalidMessage(_) => Some(AlertDescription::DecodeError),
            _ => Some(AlertDescription::UnexpectedMessage),
        };
        self.fault = Some(error.clone());
        TlsError::Peer(error)
    }

    /// What has to be laid out before the next frames, besides what ended the session.
    pub(super) fn due(&mut self) -> Option<(Content, &'static [u8])> {
        let due = self.key_update_due || self.sealing.seq() >= self.records_per_key;
        self.key_update_due = false;
        due.then_some((Content::KeyUpdate, &KEY_UPDATE_MESSAGE))
    }

    /// Whether [`take_alert_due`](Self::take_alert_due) has something.
    pub(super) fn has_alert(&self) -> bool {
        self.alert.is_some()
    }

    /// The last words after an error, once.
    pub(super) fn take_alert_due(&mut self) -> Option<[u8; 2]> {
        self.alert.take().map(|description| [FATAL, description.into()])
    }

    /// The last words after everything has been said.
    pub(super) fn close_notify() -> [u8; 2] {
        [WARNING, AlertDescription::CloseNotify.into()]
    }

    /// Seals `record` in place: [`HEADER`] octets of room, the plaintext, [`TRAILER`] octets of room.
    pub(super) fn seal(&mut self, content: Content, record: &mut [u8]) -> Result<(), TlsError> {
        let length = u16::try_from(record.len() - HEADER).map_err(|_| TlsError::KeysExhausted)?.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
        let (head, rest) = record.split_at_mut(HEADER);
        head.copy_from_slice(&header);
        let (body, tag_place) = rest.split_at_mut(rest.len() - TAG);
        if let Some(kind) = body.last_mut() {
            *kind = match content {
                Content::Data => APPLICATION_DATA,
                Content::KeyUpdate => HANDSHAKE,
                Content::Alert => ALERT,
            };
        }
        let tag = self.sealing.seal(header, body).map_err(|_| TlsError::KeysExhausted)?;
        tag_place.copy_from_slice(&tag);
        if content == Content::KeyUpdate {
            self.next_sealing_key()?;
        }
        Ok(())
    }

    fn next_sealing_key(&mut self) -> Result<(), TlsError> {
        let next = match &mut self.schedule {
            KeySchedule::Client(c) => c.update_tx_secret(),
            KeySchedule::Server(s) => s.update_tx_secret(),
        };
        let (seq, secrets) = next.map_err(TlsError::Peer)?;
        self.sealing = Key::new(seq, &secrets).ok_or_else(unsupported)?;
        Ok(())
    }
}

#[cfg(test)]
impl Records {
    pub(super) fn replace_keys_after(&mut self, records: u64) {
        self.records_per_key = records;
    }

    pub(super) fn sealed(&self) -> u64 {
        self.sealing.seq()
    }

    pub(super) fn advance_sealing_key(&mut self) {
        self.next_sealing_key().unwrap();
    }

    /// A record of any content, legal or not.
    pub(super) fn seal_inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + TAG).unwrap().to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
        let mut record = [&header, inner].concat();
        let tag = self.sealing.seal(header, &mut record[HEADER..]).unwrap();
        record.extend_from_slice(&tag);
        record
    }
}

fn unsupported() -> TlsError {
    TlsError::Config(Error::General("the session's cipher suite is not one of the AES-GCM ones".to_owned()))
}

fn unexpected_message() -> Error {
    Error::InvalidMessage(InvalidMessage::InvalidContentType)
}

/// The length in a record's header, if such a record may come after the handshake at all.
fn body_length([kind, major, _minor, high, low]: Header) -> Result<usize, Error> {
    if kind != APPLICATION_DATA || major != 3 {
        return Err(Error::InvalidMessage(InvalidMessage::InvalidContentType));
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        length if length > MAX_BODY => Err(Error::PeerSentOversizedRecord),
        length if length < TRAILER => Err(Error::DecryptError),
        length => Ok(length),
    }
}

/// A handshake message that may come after the handshake.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    KeyUpdate { requested: bool },
    Ticket,
}

/// Handshake messages, which may be cut over records.
#[derive(Debug, Default)]
struct Messages {
    head: [u8; 4],
    filled: usize,
    /// Octets of a ticket that are still to come.
    skip: usize,
}

impl Messages {
    /// Whether no message is under way: others may not come in between (RFC 8446 §5.1).
    fn is_between(&self) -> bool {
        self.filled == 0
    }

    /// Takes the next message off `content`; none if it has not ended yet.
    fn next(&mut self, content: &mut &[u8]) -> Result<Option<Message>, Error> {
        while self.filled < self.head.len() {
            let Some((first, rest)) = content.split_first() else { return Ok(None) };
            self.head[self.filled] = *first;
            self.filled += 1;
            *content = rest;
            if self.filled == self.head.len() {
                self.skip = self.body_length()?;
            }
        }
        if self.head[0] == KEY_UPDATE {
            let Some((first, rest)) = content.split_first() else { return Ok(None) };
            *content = rest;
            self.filled = 0;
            return match first {
                0 => Ok(Some(Message::KeyUpdate { requested: false })),
                1 => Ok(Some(Message::KeyUpdate { requested: true })),
                _ => Err(Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate)),
            };
        }
        let passed = self.skip.min(content.len());
        self.skip -= passed;
        *content = &content[passed..];
        if self.skip > 0 {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(Message::Ticket))
    }

    fn body_length(&self) -> Result<usize, Error> {
        let [kind, high, middle, low] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        match kind {
            KEY_UPDATE if length == 1 => Ok(1),
            KEY_UPDATE => Err(Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate)),
            NEW_SESSION_TICKET if length <= super::MAX_HANDSHAKE_MESSAGE => Ok(length),
            NEW_SESSION_TICKET => Err(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)),
            _ => Err(unexpected_message()),
        }
    }
}
