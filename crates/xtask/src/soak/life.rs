//! The lives that a connection can have, and the ports that stand for them.
//!
//! Each life has ports of its own, so that a record in the log tells what was to become of its connection.

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    /// Questions and answers, then the client ends and the server ends.
    Talk,
    /// The client ends its direction at once and reads on; the answer comes after a wait.
    ClientEndsFirst,
    /// The server ends its direction at once; the client goes on talking.
    ServerEndsFirst,
    /// The client resets after some questions and answers.
    ClientResets,
    /// The server does.
    ServerResets,
    /// The server says more than its share of windows, the client reads nothing of it and resets.
    NeverRead,
}

/// The server's first port.
const FIRST_PORT: u16 = 9000;
/// Ports for each life: a client runs out of ports of its own towards one address only after 28,000 connections a minute.
const PORTS: u16 = 6;

impl Life {
    pub(super) const ALL: [Life; 6] = [
        Life::Talk,
        Life::ClientEndsFirst,
        Life::ServerEndsFirst,
        Life::ClientResets,
        Life::ServerResets,
        Life::NeverRead,
    ];

    /// One of its ports.
    pub(super) fn port(self, number: usize) -> u16 {
        FIRST_PORT + self as u16 * PORTS + (number % usize::from(PORTS)) as u16
    }

    /// Whose port it is.
    pub(super) fn at_port(port: u16) -> Option<Life> {
        Self::ALL.get(usize::from(port.checked_sub(FIRST_PORT)? / PORTS)).copied()
    }

    /// All ports of all lives.
    pub(super) fn ports() -> std::ops::Range<u16> {
        FIRST_PORT..FIRST_PORT + PORTS * Self::ALL.len() as u16
    }
}

/// A number for each life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PerLife([u64; Life::ALL.len()]);

impl PerLife {
    pub(super) fn count(&mut self, life: Life) {
        self.0[life as usize] += 1;
    }

    pub(super) fn of(&self, life: Life) -> u64 {
        self.0[life as usize]
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_stands_for_the_life_that_uses_it() {
        for life in Life::ALL {
            assert!((0..100).all(|number| Life::at_port(life.port(number)) == Some(life)));
        }
        assert!(Life::ports().all(|port| Life::at_port(port).is_some()));
        assert_eq!((Life::at_port(8999), Life::at_port(Life::ports().end)), (None, None));
    }
}
