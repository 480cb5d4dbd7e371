//! A small map from service ports to target ports.
//!
//! Most have one to three entries, so it is a sorted slice, not a hash map. Clones share it.

use std::sync::Arc;

/// Service port to target port; of a service, target 0 means a named port that each endpoint maps by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct PortMap(Arc<[(u16, u16)]>);

impl PortMap {
    /// The target of a service port.
    pub fn get(&self, service_port: u16) -> Option<u16> {
        self.0.binary_search_by_key(&service_port, |(port, _)| *port).ok().map(|i| self.0[i].1)
    }

    /// Whether anybody else has it too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// All pairs of service port and target port, by service port.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<(u16, u16)> for PortMap {
    /// Of two entries for one service port the later wins.
    fn from_iter<I: IntoIterator<Item = (u16, u16)>>(pairs: I) -> Self {
        let mut all: Vec<(u16, u16)> = pairs.into_iter().collect();
        all.reverse();
        all.sort_by_key(|(port, _)| *port);
        all.dedup_by_key(|(port, _)| *port);
        Self(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_entries_for_a_port_wins() {
        let ports: PortMap = [(90, 9), (80, 1), (80, 2)].into_iter().collect();
        assert_eq!(ports.get(80), Some(2));
        assert_eq!(ports.get(90), Some(9));
        assert_eq!(ports.get(81), None);
        assert_eq!(ports.iter().collect::<Vec<_>>(), [(80, 2), (90, 9)]);
    }
}
