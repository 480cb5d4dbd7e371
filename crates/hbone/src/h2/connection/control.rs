//! SETTINGS, PING, GOAWAY, WINDOW_UPDATE and RST_STREAM from the peer (RFC 9113 §6).
//!
//! Invariant: each is answered or applied before the next frame is looked at, and each that has no effect is counted.

use std::time::Instant;

use super::registry::Standing;
use super::timing::Pong;
use super::{Connection, Event, Role};
use crate::error::{Reason, Violation};
use crate::h2::event::ResetBy;
use crate::h2::frame::{self, Frame, Head, Settings, setting};
use crate::h2::stream::{Half, StreamId};
use crate::h2::window::Opened;
use crate::limits::{DEFAULT_WINDOW, MAX_MAX_FRAME_SIZE, MAX_WINDOW, MIN_MAX_FRAME_SIZE};

impl Connection {
    /// Handles a complete frame other than DATA.
    pub(super) fn control(
        &mut self,
        now: Instant,
        head: Head,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        match frame::parse(head, payload)? {
            Frame::Headers(fragment) => self.headers(now, head, fragment, events),
            Frame::Continuation(fragment) => self.continuation(now, head, fragment, events),
            Frame::Priority | Frame::Unknown => self.count_noise(now),
            Frame::Reset(reason) => self.peer_reset(now, head.stream, reason, events),
            Frame::Settings(settings) => self.settings(now, settings, events),
            Frame::SettingsAck => self.settings_ack(now),
            Frame::Ping(echo) => {
                self.count_noise(now)?;
                self.outbox.reply(|out| frame::put_pong(out, echo))
            }
            Frame::Pong(echo) => self.pong(now, echo),
            Frame::GoAway { last, reason, debug } => self.peer_goaway(last, reason, debug, events),
            Frame::WindowUpdate(increment) if head.stream.is_connection() => {
                self.connection_window_update(now, increment, events)
            }
            Frame::WindowUpdate(increment) => self.stream_window_update(now, head.stream, increment, events),
        }
    }

    fn peer_reset(
        &mut self,
        now: Instant,
        id: StreamId,
        reason: Reason,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        if self.streams.standing(id) == Standing::Idle {
            return Err(Violation::IdleStream);
        }
        let Some(stream) = self.streams.reset_by_peer(id) else {
            // Resets may cross each other, and may cross the regular end of the stream.
            return self.count_noise(now);
        };
        events.push(Event::Reset { id, reason, by: ResetBy::Peer });
        let unanswered = self.role == Role::Server && stream.state.send == Half::Head;
        if unanswered && !self.early_resets.spend(now) { Err(Violation::RapidReset) } else { Ok(()) }
    }

    fn settings(&mut self, now: Instant, settings: Settings<'_>, events: &mut Vec<Event>) -> Result<(), Violation> {
        if !self.peer.arrived {
            self.peer.arrived = true;
            self.peer.max_streams = None;
            self.clock.established();
        } else {
            self.count_noise(now)?;
        }
        let window_before = self.peer.initial_window;
        for (id, value) in settings.entries() {
            self.apply(id, value)?;
        }
        self.outbox.reply(frame::put_settings_ack)?;
        events.push(Event::SettingsChanged);
        if self.peer.initial_window > window_before {
            events.push(Event::SendWindow { id: None });
        }
        Ok(())
    }

    fn apply(&mut self, id: u16, value: u32) -> Result<(), Violation> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.limit_table(value),
            // A server must not announce push at all but as zero (RFC 9113 §6.5.2).
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                return Err(Violation::SettingValue);
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = Some(value),
            setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(Violation::SettingWindow),
            setting::INITIAL_WINDOW_SIZE => {
                let delta = i64::from(value) - i64::from(self.peer.initial_window);
                self.peer.initial_window = value;
                for stream in self.streams.all_mut() {
                    stream.send.adjust(delta)?;
                }
            }
            setting::MAX_FRAME_SIZE => {
                if !(MIN_MAX_FRAME_SIZE..=MAX_MAX_FRAME_SIZE).contains(&value) {
                    return Err(Violation::SettingValue);
                }
                self.peer.max_frame_size = value;
            }
            setting::MAX_HEADER_LIST_SIZE => self.peer.max_header_list = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn settings_ack(&mut self, now: Instant) -> Result<(), Violation> {
        if self.clock.settings_acknowledged() {
            return self.count_noise(now);
        }
        self.clock.acknowledge_settings();
        // Streams opened so far were granted the protocol's default, if ours is lower (RFC 9113 §6.9.2).
        let lower = DEFAULT_WINDOW.saturating_sub(self.config.first_stream_window);
        for stream in self.streams.all_mut() {
            stream.receive.lower(lower);
        }
        Ok(())
    }

    fn peer_goaway(
        &mut self,
        last: StreamId,
        reason: Reason,
        debug: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        if self.peer_going_away.is_some_and(|before| last > before) {
            return Err(Violation::GoAwayRaised);
        }
        self.peer_going_away = Some(last);
        events.push(Event::GoingAway { last, reason, debug: debug.into() });
        // A client's GOAWAY names streams of the server, of which there are none.
        if self.role == Role::Client {
            let abandoned = self.streams.abandon_above(last);
            let by = ResetBy::PeerGoingAway;
            events.extend(abandoned.map(|id| Event::Reset { id, reason: Reason::REFUSED_STREAM, by }));
        }
        Ok(())
    }

    fn pong(&mut self, now: Instant, echo: [u8; 8]) -> Result<(), Violation> {
        if self.is_sample(now, echo) {
            return Ok(());
        }
        match self.clock.pong(echo) {
            Pong::Keepalive => {}
            Pong::Farewell => self.finish_announcement(),
            Pong::Unasked => return self.count_noise(now),
        }
        Ok(())
    }

    fn connection_window_update(
        &mut self,
        now: Instant,
        increment: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        if increment == 0 {
            return Err(Violation::ZeroIncrement);
        }
        if self.send_window.adjust(i64::from(increment))? == Opened::Yes {
            events.push(Event::SendWindow { id: None });
        }
        let effective = std::mem::take(&mut self.sent_since_update);
        self.count_update(now, effective)
    }

    fn stream_window_update(
        &mut self,
        now: Instant,
        id: StreamId,
        increment: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        if self.streams.standing(id) == Standing::Idle {
            return Err(Violation::IdleStream);
        }
        // For streams that are gone the update may have crossed their end (RFC 9113 §5.1).
        let Some(stream) = self.streams.get_mut(id) else { return self.count_noise(now) };
        let effective = std::mem::take(&mut stream.sent_since_update);
        let adjusted = match increment {
            0 => Err(Violation::ZeroIncrement),
            _ => stream.send.adjust(i64::from(increment)),
        };
        match adjusted {
            Err(violation) => return self.stream_error(now, id, violation, events),
            Ok(Opened::Yes) => events.push(Event::SendWindow { id: Some(id) }),
            Ok(Opened::No) => {}
        }
        self.count_update(now, effective)
    }

    /// A WINDOW_UPDATE is worth its work only if DATA has used the window since the last one.
    fn count_update(&mut self, now: Instant, effective: bool) -> Result<(), Violation> {
        if effective {
            self.useful = true;
            return Ok(());
        }
        self.count_noise(now)
    }
}
