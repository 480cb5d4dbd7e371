//! One query to one upstream: what is sent, and what counts as its answer.
//!
//! Whoever forges an answer has to guess the number of the query, the port that it came from, and the spelling of its
//! name, which is varied at random (RFC 5452; draft-vixie-dnsext-dns0x20). A socket of its own for each query brings the
//! port; the rest is here. No I/O.

use rand::Rng;

use super::wire::HEADER;
use super::wire::answer::{self, Answer, NoAnswer};
use super::wire::query::{Extras, Query};

/// Forged or late answers to one query after which it is asked over TCP, where nobody can guess (RFC 5452 §9.3).
const MOST_FOREIGN: u8 = 16;

/// A query on its way.
pub struct Exchange<'a> {
    asked: &'a [u8],
    query: &'a Query,
    sent: Vec<u8>,
    foreign: u8,
}

/// What a message means for an exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer, made one for the client.
    Answer(Answer),
    /// Nothing: go on listening.
    Nothing,
    /// Ask over TCP.
    AskInOrder,
    /// This upstream does not know how to answer.
    Nonsense,
}

impl<'a> Exchange<'a> {
    /// Asks for `query`, whose bytes are `asked`.
    pub fn new(asked: &'a [u8], query: &'a Query, rng: &mut impl Rng) -> Self {
        let mut sent = asked.to_vec();
        if let Some(id) = sent.get_mut(..2) {
            rng.fill(id);
        }
        // A signature would not survive another spelling.
        if query.extras != Extras::Records {
            let mut at = HEADER;
            while let Some(length) = sent.get(at).map(|length| usize::from(*length)).filter(|length| *length > 0) {
                for byte in sent.get_mut(at + 1..at + 1 + length).unwrap_or_default() {
                    if byte.is_ascii_alphabetic() && rng.random() {
                        *byte ^= 0x20;
                    }
                }
                at += 1 + length;
            }
        }
        Self { asked, query, sent, foreign: 0 }
    }

    /// What is sent.
    pub fn message(&self) -> &[u8] {
        &self.sent
    }

    /// What came over UDP.
    pub fn hear(&mut self, message: &mut [u8]) -> Heard {
        match self.read(message) {
            Ok(answer) => Heard::Answer(answer),
            Err(NoAnswer::Foreign) if self.foreign < MOST_FOREIGN => {
                self.foreign += 1;
                Heard::Nothing
            }
            Err(NoAnswer::Foreign | NoAnswer::Respelled) => Heard::AskInOrder,
            Err(NoAnswer::Malformed) => Heard::Nonsense,
        }
    }

    /// What came over TCP: the other side is who it is, however it spells.
    pub fn hear_in_order(&self, message: &mut [u8]) -> Option<Answer> {
        let end = self.query.name_end;
        if let (Some(theirs), Some(ours)) = (message.get_mut(HEADER..end), self.sent.get(HEADER..end))
            && theirs.eq_ignore_ascii_case(ours)
        {
            theirs.copy_from_slice(ours);
        }
        self.read(message).ok()
    }

    fn read(&self, message: &mut [u8]) -> Result<Answer, NoAnswer> {
        let answer = Answer::parse(message, &self.sent, self.query)?;
        answer::readdress(message, self.query, self.asked);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
