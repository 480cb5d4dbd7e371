//! How the tunnel itself ends: when it is over, and what its streams and its peer are told if it fails.

use std::io;

use hbone::error::Reason;
use mesh::{Cause, Fault, Outcome};

use super::{Driver, Role, in_doubt};
use crate::proxy::outbound::Failure;
use crate::proxy::scratch;
use crate::proxy::tunnel::failure::{Ended, Progress, TunnelFailure};
use crate::proxy::tunnel::streams::Stage;
use crate::proxy::tunnel::transport::Transport;
use crate::proxy::tunnel::{Broken, Command, Opening};
use crate::telemetry::StreamEnd;

impl Driver {
    /// Which end of the user's connection the app at this tunnel's end is.
    pub(super) fn app_side(&self) -> mesh::End {
        match self.role {
            Role::Client(_) => mesh::End::Client,
            Role::Server(_) => mesh::End::Server,
        }
    }

    pub(super) fn peer_side(&self) -> mesh::End {
        match self.role {
            Role::Client(_) => mesh::End::Server,
            Role::Server(_) => mesh::End::Client,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.streams.is_empty()
            && self.waiting.is_empty()
            && self.unsent.is_none()
            && (self.draining || self.tunnel.is_going_away() || self.tunnel.is_peer_closed())
            && (self.tunnel.is_drained() || self.tunnel.is_peer_closed() || !self.tunnel.is_established())
            && !self.tunnel.has_transmit()
    }

    pub(super) fn abort_streams(&mut self, end: StreamEnd, fault: Fault, outcome: impl Fn() -> Outcome) {
        let slots: Vec<usize> = self.streams.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            self.tunnel.reset(stream.id, Reason::CANCEL);
            let sent_early = stream.sent_early;
            match (std::mem::replace(&mut stream.stage, Stage::Closing), outcome()) {
                (Stage::Requested(opening), Outcome::Failed { cause, error, peer_reason }) => {
                    let fault = if in_doubt(sent_early, &opening) { Fault::Final } else { fault };
                    opening.fail(Failure { peer_reason, ..Failure::new(fault, cause, error) });
                }
                (Stage::Requested(opening), outcome) => opening.passenger.finish(outcome),
                (stage, _) => stream.stage = stage,
            }
            self.finish(slot, end, outcome());
        }
    }

    /// The tunnel cannot go on: its streams end as failed, and the peer is told as far as that is possible.
    pub(super) fn fail(&mut self, failure: TunnelFailure) -> Ended {
        let established = self.tunnel.is_established();
        let progress = if established { Progress::Established } else { Progress::Greeting };
        let told = failure.told(progress, &self.carrier);
        let outcome = || match &told {
            None => Outcome::Drained,
            Some(Failure { cause, error, peer_reason, .. }) => {
                Outcome::Failed { cause: *cause, error: error.clone(), peer_reason: peer_reason.clone() }
            }
        };
        let end = if told.is_some() { StreamEnd::TunnelFailure } else { StreamEnd::Drain };
        let fault = told.as_ref().map_or(Fault::Final, |told| told.fault);
        // Nobody is to come back to this tunnel.
        self.commands.close();
        self.load.limit_to(0);
        self.abort_streams(end, fault, outcome);
        let told =
            told.unwrap_or_else(|| Failure::new(Fault::Final, Cause::TunnelLost, format!("io error: {failure}")));
        let mut left: Vec<Box<Opening>> = self.waiting.drain(..).collect();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Open(opening) = command {
                left.push(opening);
            }
        }
        // Nothing has been said of them: a tunnel that was up may be followed by another.
        let followed =
            established && matches!(self.carrier, Transport::Socket(_)) && !matches!(failure, TunnelFailure::Aborted);
        for opening in left {
            if followed {
                self.move_on(opening, &told.error);
            } else {
                opening.fail(told.clone());
            }
        }
        self.say_goodbye();
        if established { Ended::Failed(failure) } else { Ended::Handshake(failure) }
    }

    /// What it means that the carrier has failed.
    pub(super) fn carrier_failure(&self, error: io::Error) -> TunnelFailure {
        match self.carrier.broken() {
            Some(Broken::Failed(failure)) => TunnelFailure::Carrier(failure),
            Some(Broken::Drained) => TunnelFailure::Aborted,
            None => TunnelFailure::Socket(error),
        }
    }

    /// One try to send what the machine still has to say; a socket that is full or gone gets nothing more.
    pub(super) fn say_goodbye(&mut self) {
        let mut outbox = self.unsent.take().unwrap_or_else(scratch::take_outbox);
        self.tunnel.close(Reason::NO_ERROR, &mut outbox);
        let _ = self.carrier.try_write(outbox.unsent());
        outbox.clear();
        scratch::give_outbox(outbox);
    }
}
