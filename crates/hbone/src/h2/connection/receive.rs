//! Cutting received bytes into frames, and DATA, which passes through without being gathered.
//!
//! Invariant: every byte is looked at once, wherever the transport cut it; a frame's length and place are checked before
//! any of its payload is kept.

use std::time::Instant;

use super::registry::Standing;
use super::{Connection, Event};
use crate::error::{Fault, Violation};
use crate::h2::frame::{self, Head, Kind};
use crate::h2::stream::{End, Received, StreamId};
use crate::limits::{KEPT_BUFFER, MAX_GOAWAY_DEBUG, MAX_SETTINGS_ENTRIES};

/// What the next byte is part of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// The client's preface, of which so many bytes have come.
    Preface { matched: usize },
    /// A frame's head, of which so many bytes have come.
    Head { bytes: [u8; frame::HEAD_LEN], filled: usize },
    /// The payload of a DATA frame.
    Data(Arriving),
    /// The payload of another frame, of which the first bytes up to `keep` are gathered.
    Control { head: Head, keep: usize },
    /// Payload of no interest.
    Skip { left: usize },
}

impl Reading {
    pub const HEAD: Reading = Reading::Head { bytes: [0; frame::HEAD_LEN], filled: 0 };

    const fn skip(left: usize) -> Self {
        if left == 0 { Reading::HEAD } else { Reading::Skip { left } }
    }
}

/// What is still to come of a DATA frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arriving {
    id: StreamId,
    padding_length: PaddingLength,
    payload: usize,
    padding: usize,
    end: End,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PaddingLength {
    /// The next byte says how much padding there is.
    Next,
    Known,
}

/// Whether a frame has carried any payload at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    None,
    Some,
}

impl Connection {
    /// Takes received bytes, cut anywhere, and appends what they mean to `events`.
    ///
    /// The payload of DATA frames stays where it is: [`Event::Data`] names it as a range of `bytes`, as soon as it is
    /// there. Bytes after [`close`](Self::close) are ignored.
    ///
    /// # Errors
    /// The end of the connection. Events before it are valid, GOAWAY waits in [`poll_transmit`](Self::poll_transmit),
    /// and every further call returns the same error.
    pub fn receive(&mut self, now: Instant, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        self.receive_at(now, bytes, 0, events)
    }

    /// As [`receive`](Self::receive), for bytes that start at `base` in the buffer that ranges shall refer to.
    ///
    /// # Errors
    /// As there.
    pub fn receive_at(
        &mut self,
        now: Instant,
        bytes: &[u8],
        base: usize,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.is_closed() || bytes.is_empty() {
            return Ok(());
        }
        self.clock.heard(now);
        let mut at = 0;
        while at < bytes.len() {
            match self.step(now, base + at, &bytes[at..], events) {
                Ok(used) => at += used,
                Err(violation) => return Err(self.fail(violation)),
            }
        }
        Ok(())
    }

    /// Uses up a non-empty part of `rest`, which starts at `at` in the caller's buffer.
    fn step(&mut self, now: Instant, at: usize, rest: &[u8], events: &mut Vec<Event>) -> Result<usize, Violation> {
        match self.reading {
            Reading::Preface { matched } => {
                let wanted = &frame::PREFACE[matched..];
                let used = wanted.len().min(rest.len());
                if wanted[..used] != rest[..used] {
                    return Err(Violation::BadPreface);
                }
                let matched = matched + used;
                let complete = matched == frame::PREFACE.len();
                self.reading = if complete { Reading::HEAD } else { Reading::Preface { matched } };
                Ok(used)
            }
            Reading::Head { mut bytes, filled } => {
                let used = (frame::HEAD_LEN - filled).min(rest.len());
                bytes[filled..filled + used].copy_from_slice(&rest[..used]);
                if filled + used < frame::HEAD_LEN {
                    self.reading = Reading::Head { bytes, filled: filled + used };
                } else {
                    self.begin_frame(now, Head::parse(&bytes), events)?;
                }
                Ok(used)
            }
            Reading::Data(arriving) => self.data(now, arriving, at, rest, events),
            Reading::Control { head, keep } => self.gather(now, head, keep, rest, events),
            Reading::Skip { left } => {
                let used = left.min(rest.len());
                self.reading = Reading::skip(left - used);
                Ok(used)
            }
        }
    }

    /// Judges a frame by its head and prepares for its payload.
    fn begin_frame(&mut self, now: Instant, head: Head, events: &mut Vec<Event>) -> Result<(), Violation> {
        if !self.peer.arrived && (head.kind != Kind::Settings || head.has(frame::ACK)) {
            return Err(Violation::SettingsNotFirst);
        }
        self.check_block_order(head)?;
        if head.length > self.config.max_frame_size {
            return Err(Violation::FrameTooLarge);
        }
        head.check()?;
        let length = head.length as usize;
        let keep = match head.kind {
            Kind::Data => return self.begin_data(now, head, events),
            Kind::Unknown(_) => {
                self.count_noise(now)?;
                self.reading = Reading::skip(length);
                return Ok(());
            }
            Kind::Headers | Kind::Continuation => {
                self.check_block_size(head)?;
                length
            }
            Kind::Settings if length > MAX_SETTINGS_ENTRIES * 6 => return Err(Violation::TooManySettings),
            Kind::GoAway => length.min(8 + MAX_GOAWAY_DEBUG),
            _ => length,
        };
        self.reading = Reading::Control { head, keep };
        if keep == 0 {
            self.gather(now, head, keep, &[], events)?;
        }
        Ok(())
    }

    /// Takes payload of a frame other than DATA, and handles the frame once it is complete.
    fn gather(
        &mut self,
        now: Instant,
        head: Head,
        keep: usize,
        rest: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<usize, Violation> {
        let missing = keep.saturating_sub(self.partial.len());
        let used = missing.min(rest.len());
        if used < missing {
            self.clock.assembling(now);
            self.partial.extend_from_slice(&rest[..used]);
            return Ok(used);
        }
        self.reading = Reading::skip((head.length as usize).saturating_sub(keep));
        if self.partial.is_empty() {
            self.control(now, head, &rest[..used], events)?;
        } else {
            let mut payload = std::mem::take(&mut self.partial);
            payload.extend_from_slice(&rest[..used]);
            self.control(now, head, &payload, events)?;
            payload.clear();
            payload.shrink_to(KEPT_BUFFER);
            self.partial = payload;
        }
        if self.block.is_some() {
            self.clock.assembling(now);
        } else {
            self.clock.assembled();
        }
        Ok(used)
    }

    /// The head of a DATA frame: all its bytes, padding included, count against the windows now (RFC 9113 §6.9.1).
    fn begin_data(&mut self, now: Instant, head: Head, events: &mut Vec<Event>) -> Result<(), Violation> {
        let id = head.stream;
        let standing = self.streams.standing(id);
        if standing == Standing::Idle {
            return Err(Violation::IdleStream);
        }
        let padding_length = if head.has(frame::PADDED) { PaddingLength::Next } else { PaddingLength::Known };
        if padding_length == PaddingLength::Next && head.length == 0 {
            return Err(Violation::FrameLength);
        }
        if !self.receive_window.receive(head.length) {
            return Err(Violation::ConnectionWindow);
        }
        let most = self.config.stream_window;
        let mut is_narrow = false;
        let verdict = match self.streams.get_mut(id) {
            Some(stream) => match stream.state.receive(Received::Data(End::No)) {
                Ok(_) if stream.receive.receive(head.length) => {
                    is_narrow = stream.receive.is_narrow(most);
                    Ok(())
                }
                Ok(_) => Err(Violation::StreamWindow),
                Err(violation) => Err(violation),
            },
            // The peer may not have seen our RST_STREAM yet.
            None if standing == Standing::Reset => Ok(()),
            None => Err(Violation::StreamClosed),
        };
        if let Err(violation) = verdict {
            self.stream_error(now, id, violation, events)?;
        }
        let arriving = Arriving {
            id,
            padding_length,
            payload: head.length as usize,
            padding: 0,
            end: End::from_flag(head.has(frame::END_STREAM)),
            content: Content::None,
        };
        self.reading = Reading::Data(arriving);
        if is_narrow {
            self.consider_growth(now, id);
        }
        if head.length == 0 {
            self.data(now, arriving, 0, &[], events)?;
        }
        Ok(())
    }

    /// Takes payload and padding of a DATA frame as far as they are there.
    fn data(
        &mut self,
        now: Instant,
        mut arriving: Arriving,
        at: usize,
        rest: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<usize, Violation> {
        let mut used = 0;
        if arriving.padding_length == PaddingLength::Next
            && let Some(&padding) = rest.first()
        {
            used = 1;
            arriving.padding_length = PaddingLength::Known;
            arriving.padding = usize::from(padding);
            arriving.payload = (arriving.payload - 1).checked_sub(arriving.padding).ok_or(Violation::PaddingTooLong)?;
        }
        let overhead_before = used;
        let payload = arriving.payload.min(rest.len() - used);
        let start = at + used;
        used += payload;
        arriving.payload -= payload;
        if payload > 0 {
            arriving.content = Content::Some;
        }
        let padding = if arriving.payload == 0 { arriving.padding.min(rest.len() - used) } else { 0 };
        used += padding;
        arriving.padding -= padding;

        let complete = arriving.payload == 0 && arriving.padding == 0;
        self.reading = if complete { Reading::HEAD } else { Reading::Data(arriving) };
        let end = if complete { arriving.end } else { End::No };
        if complete && end == End::No && arriving.content == Content::None {
            self.count_noise(now)?;
        }
        self.report_data(arriving.id, start..start + payload, overhead_before + padding, end, events);
        Ok(used)
    }

    /// Reports payload if its stream still lives. Padding, and payload that nobody wants, is credited at once.
    fn report_data(
        &mut self,
        id: StreamId,
        range: std::ops::Range<usize>,
        overhead: usize,
        end: End,
        events: &mut Vec<Event>,
    ) {
        let Some(stream) = self.streams.get_mut(id) else {
            self.receive_window.credit(overhead + range.len());
            return;
        };
        let state = stream.state;
        if overhead > 0 {
            self.receive_window.credit(overhead);
            stream.receive.credit(overhead);
            self.streams.queue_update(id);
        }
        if !range.is_empty() {
            self.useful = true;
        } else if end == End::No {
            return;
        }
        if end.is_end() {
            // Allowed, as the frame was when it began and nothing but this changes the half.
            self.streams.advance(id, state.receive(Received::Data(end)).unwrap_or(state));
        }
        events.push(Event::Data { id, range, end });
    }
}
