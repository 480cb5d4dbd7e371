//! Header blocks: gathering, decoding, and what they do to their stream (RFC 9113 §4.3, §5.1.1, §8).
//!
//! Invariant: every block that arrives whole is decoded, also for streams that are gone or refused, because the
//! compression state belongs to the connection; nothing else may come between a block's frames.
//!
//! Trailers end a stream like DATA with END_STREAM and their content is dropped. RFC 9113 §8.5 would have a stream error
//! for them on CONNECT streams; accepting them loses nothing and keeps peers working which translate from other
//! protocols.

use std::time::Instant;

use super::adapt::Pace;
use super::registry::Standing;
use super::{Connection, Ending, Event, Role};
use crate::error::Violation;
use crate::h2::frame::{self, Head, Kind};
use crate::h2::message::Collector;
use crate::h2::stream::{End, Half, Received, State, Stream, StreamId};
use crate::h2::window::{ReceiveWindow, SendWindow};
use crate::limits::{DEFAULT_WINDOW, HEADER_BLOCK_SLACK, MAX_CONTINUATIONS};

/// A block whose END_HEADERS has not come.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    id: StreamId,
    end: End,
    bytes: Vec<u8>,
    continuations: u32,
}

impl Connection {
    /// An open header block admits only its CONTINUATION, and only it does (RFC 9113 §6.10).
    pub(super) fn check_block_order(&mut self, head: Head) -> Result<(), Violation> {
        match &self.block {
            Some(block) if head.kind != Kind::Continuation || head.stream != block.id => {
                Err(Violation::ContinuationExpected)
            }
            None if head.kind == Kind::Continuation => Err(Violation::ContinuationUnexpected),
            _ => Ok(()),
        }
    }

    /// Bounds a block before its next frame is gathered.
    pub(super) fn check_block_size(&mut self, head: Head) -> Result<(), Violation> {
        let mut size = head.length as usize;
        if let Some(block) = &mut self.block {
            block.continuations += 1;
            if block.continuations > MAX_CONTINUATIONS {
                return Err(Violation::TooManyContinuations);
            }
            size += block.bytes.len();
        }
        let limit = (self.config.max_header_list_size as usize).saturating_add(HEADER_BLOCK_SLACK);
        if size > limit { Err(Violation::HeaderBlockTooLarge) } else { Ok(()) }
    }

    /// HEADERS: the start of a block, and mostly all of it.
    pub(super) fn headers(
        &mut self,
        now: Instant,
        head: Head,
        fragment: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        if !head.stream.is_client_initiated() {
            return Err(Violation::WrongStreamParity);
        }
        let end = End::from_flag(head.has(frame::END_STREAM));
        if head.has(frame::END_HEADERS) {
            return self.header_block(now, head.stream, end, fragment, events);
        }
        self.block = Some(HeaderBlock { id: head.stream, end, bytes: fragment.to_vec(), continuations: 0 });
        Ok(())
    }

    /// CONTINUATION: more of the open block.
    pub(super) fn continuation(
        &mut self,
        now: Instant,
        head: Head,
        fragment: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        let mut block = self.block.take().ok_or(Violation::ContinuationUnexpected)?;
        block.bytes.extend_from_slice(fragment);
        if head.has(frame::END_HEADERS) {
            return self.header_block(now, block.id, block.end, &block.bytes, events);
        }
        self.block = Some(block);
        Ok(())
    }

    fn header_block(
        &mut self,
        now: Instant,
        id: StreamId,
        end: End,
        block: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        let mut collector = Collector::new(self.config.max_header_list_size as usize);
        self.decoder.decode(block, &mut |name, value| collector.push(name, value))?;
        match (self.streams.standing(id), self.role) {
            (Standing::Live, _) => match self.existing(now, id, end, collector, events)? {
                Ok(()) => Ok(()),
                Err(violation) => self.stream_error(now, id, violation, events),
            },
            (Standing::Idle, Role::Server) => self.request(now, id, end, collector, events),
            (Standing::Idle, Role::Client) => Err(Violation::IdleStream),
            (Standing::Reset, _) => self.count_noise(now),
            (Standing::Ended, _) => Err(Violation::HeadersOnClosedStream),
            (Standing::Forgotten, Role::Server) => Err(Violation::StreamIdReused),
            (Standing::Forgotten, Role::Client) => self.stream_error(now, id, Violation::StreamClosed, events),
        }
    }

    /// A request opens a stream, unless it is malformed or one too many.
    fn request(
        &mut self,
        now: Instant,
        id: StreamId,
        end: End,
        collector: Collector,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        self.streams.use_id(id);
        let refusal = if self.ending == Ending::Final {
            Err(Violation::GoingAway)
        } else if self.streams.len() >= self.config.max_concurrent_streams as usize {
            Err(Violation::TooManyStreams)
        } else {
            Ok(())
        };
        let request = match refusal.and_then(|()| collector.request()) {
            Ok(request) => request,
            Err(violation) => return self.stream_error(now, id, violation, events),
        };
        self.streams.insert(id, self.new_stream(State::accepted(end)));
        self.streams.accept(id);
        self.useful = true;
        events.push(Event::Request { id, request, end });
        Ok(())
    }

    /// A header block on a stream that lives: a response or trailers. The outer error ends the connection, the inner
    /// one the stream.
    fn existing(
        &mut self,
        now: Instant,
        id: StreamId,
        end: End,
        collector: Collector,
        events: &mut Vec<Event>,
    ) -> Result<Result<(), Violation>, Violation> {
        let Some(state) = self.streams.get(id).map(|stream| stream.state) else { return Ok(Ok(())) };
        if state.receive != Half::Head {
            let ended = state.receive(Received::Headers(end)).and_then(|state| collector.trailers().map(|()| state));
            return Ok(ended.map(|state| {
                self.streams.advance(id, state);
                events.push(Event::Data { id, range: 0..0, end });
            }));
        }
        let response = match collector.response() {
            Ok(response) => response,
            Err(violation) => return Ok(Err(violation)),
        };
        if response.status < 200 {
            self.count_noise(now)?;
            // An interim response cannot be the last thing on a stream (RFC 9113 §8.1).
            let interim = if end.is_end() { Err(Violation::Status) } else { state.receive(Received::Interim) };
            return Ok(interim.map(|state| self.streams.advance(id, state)));
        }
        Ok(state.receive(Received::Headers(end)).map(|state| {
            self.streams.advance(id, state);
            self.useful = true;
            events.push(Event::Response { id, response, end });
        }))
    }

    /// A stream with the windows that both sides currently start streams with.
    pub(super) fn new_stream(&self, state: State) -> Stream {
        let target = self.config.first_stream_window;
        // Until it has acknowledged ours, the peer may still go by the protocol's default (RFC 9113 §6.9.3).
        let granted = if self.clock.settings_acknowledged() { target } else { target.max(DEFAULT_WINDOW) };
        Stream {
            state,
            send: SendWindow::new(self.peer.initial_window),
            receive: ReceiveWindow::new(granted, target),
            sent_since_update: false,
            update_queued: false,
            pace: Pace::default(),
        }
    }
}
