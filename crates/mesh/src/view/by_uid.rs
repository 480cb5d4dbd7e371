//! A workload as its own key: an entry of the largest of all maps is one pointer.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::name::Uid;
use crate::workload::Workload;

/// A workload; equal to all of its versions.
#[derive(Clone, Debug)]
pub(super) struct ByUid(pub(super) Arc<Workload>);

impl Borrow<Uid> for ByUid {
    fn borrow(&self) -> &Uid {
        &self.0.uid
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.uid.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pod;

    #[test]
    fn a_workload_is_equal_to_its_versions_and_to_no_other() {
        let of = |name: &str, ip: &str| ByUid(pod(name, &[ip]).into());
        assert!(of("a", "10.0.0.1") == of("a", "10.0.0.2") && of("a", "10.0.0.1") != of("b", "10.0.0.1"));
    }
}
