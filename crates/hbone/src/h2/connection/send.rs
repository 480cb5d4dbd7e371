//! What this side's application does: open, answer, send and reset streams.
//!
//! Invariant: nothing is queued and no window is touched when an error is returned; a header that HTTP/2 cannot carry is
//! an error and never reaches the wire.

use super::{Connection, Role};
use crate::error::{OpenError, Reason, SendError};
use crate::h2::frame::{self, Head, Kind};
use crate::h2::message::Header;
use crate::h2::stream::{End, Half, Sent, State, StreamId};
use crate::limits::MAX_SENT_HEADERS;

impl Connection {
    /// Client: opens a stream with a CONNECT request to `authority` (`host:port`), without ending it. The server's
    /// SETTINGS need not have arrived (spec data-plane 8). DATA may be sent at once, if the server is known to cope.
    ///
    /// # Errors
    /// Why there is no stream; nothing was sent.
    pub fn open(&mut self, authority: &str, headers: &[Header<'_>]) -> Result<StreamId, OpenError> {
        if self.role != Role::Client {
            return Err(OpenError::NotAClient);
        }
        if self.is_closed() {
            return Err(OpenError::Closed);
        }
        if self.is_going_away() {
            return Err(OpenError::GoingAway);
        }
        if self.open_slots() == 0 {
            return Err(OpenError::StreamLimit);
        }
        let id = self.streams.next_id().ok_or(OpenError::IdsExhausted)?;
        let legal_authority = !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_graphic());
        if !legal_authority || !headers.iter().all(Header::is_legal) {
            return Err(OpenError::IllegalHeader);
        }
        let pseudo = [Header::new(":method", "CONNECT"), Header::new(":authority", authority)];
        if !self.accepts_headers(&pseudo, headers) {
            return Err(OpenError::HeadersTooLarge);
        }
        self.streams.insert(id, self.new_stream(State::REQUESTED));
        self.queue_headers(id, &pseudo, headers, End::No);
        Ok(id)
    }

    /// Server: answers a request with a final status, 200 to 999.
    ///
    /// If the answer ends the stream and the client has not, the client may go on sending; [`reset`](Self::reset) with
    /// [`Reason::NO_ERROR`] then tells it to stop (RFC 9113 §8.1).
    ///
    /// # Errors
    /// Why nothing was sent.
    pub fn respond(&mut self, id: StreamId, status: u16, headers: &[Header<'_>], end: End) -> Result<(), SendError> {
        let stream = self.streams.get(id).ok_or(SendError::StreamGone)?;
        let state = stream.state.send(Sent::Headers(end))?;
        if !(200..=999).contains(&status) || !headers.iter().all(Header::is_legal) {
            return Err(SendError::IllegalHeader);
        }
        let status = status.to_string();
        let pseudo = [Header::new(":status", &status)];
        if !self.accepts_headers(&pseudo, headers) {
            return Err(SendError::HeadersTooLarge);
        }
        self.queue_headers(id, &pseudo, headers, end);
        self.streams.advance(id, state);
        Ok(())
    }

    /// Payload bytes that may be sent on a stream now: what its window and the connection's allow, zero if the stream is
    /// gone, ended, or (as a server's) not answered. When it was zero, an
    /// [`Event::SendWindow`](super::Event::SendWindow) tells of a change.
    pub fn send_capacity(&self, id: StreamId) -> usize {
        match self.streams.get(id) {
            Some(stream) if stream.state.send == Half::Body => {
                stream.send.available().min(self.send_window.available())
            }
            _ => 0,
        }
    }

    /// Largest payload of one DATA frame, at least 16384 bytes.
    pub fn max_data_len(&self) -> usize {
        self.peer.max_frame_size as usize
    }

    /// Sends a DATA frame: takes `len` bytes from the windows and returns the frame's head, behind which the caller
    /// lays out the payload itself. Zero bytes may always be sent, to end the stream.
    ///
    /// # Errors
    /// Why nothing may be sent.
    pub fn data_header(&mut self, id: StreamId, len: usize, end: End) -> Result<[u8; frame::HEAD_LEN], SendError> {
        if len > self.max_data_len() {
            return Err(SendError::FrameTooLarge);
        }
        let room = self.send_window.available();
        let stream = self.streams.get_mut(id).ok_or(SendError::StreamGone)?;
        let state = stream.state.send(Sent::Data(end))?;
        if len > room.min(stream.send.available()) {
            return Err(SendError::WindowExceeded);
        }
        if len > 0 {
            stream.send.consume(len);
            stream.sent_since_update = true;
            self.send_window.consume(len);
            self.sent_since_update = true;
        }
        self.streams.advance(id, state);
        let flags = if end.is_end() { frame::END_STREAM } else { 0 };
        // At most 2^24-1, as `max_data_len` is.
        Ok(Head { length: len as u32, kind: Kind::Data, flags, stream: id }.encode())
    }

    /// Gives a stream up, telling the peer why. No effect if it is gone already. Frames of the peer that are still on
    /// their way are ignored; payload reported before must still be credited.
    pub fn reset(&mut self, id: StreamId, reason: Reason) {
        if self.streams.get(id).is_some() {
            self.streams.reset(id);
            self.outbox.queue(|out| frame::put_reset(out, id, reason));
        }
    }

    fn accepts_headers(&self, pseudo: &[Header<'_>], headers: &[Header<'_>]) -> bool {
        let size = size_of_list(pseudo, headers);
        let limit = self.peer.max_header_list.map_or(MAX_SENT_HEADERS, |limit| MAX_SENT_HEADERS.min(limit as usize));
        size <= limit
    }

    fn queue_headers(&mut self, id: StreamId, pseudo: &[Header<'_>], headers: &[Header<'_>], end: End) {
        let mut block = Vec::with_capacity(size_of_list(pseudo, headers));
        self.encoder.begin(&mut block);
        for header in pseudo.iter().chain(headers) {
            self.encoder.field(&mut block, header.name.as_bytes(), header.value);
        }
        let max_frame_size = self.max_data_len();
        self.outbox.queue(|out| frame::put_headers(out, id, &block, end.is_end(), max_frame_size));
    }
}

/// The size of a header list as its receiver counts it (RFC 9113 §10.5.1), which is more than its encoding takes.
fn size_of_list(pseudo: &[Header<'_>], headers: &[Header<'_>]) -> usize {
    pseudo.iter().chain(headers).map(Header::size).sum()
}
