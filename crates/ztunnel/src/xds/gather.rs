//! A response, decoded and applied in one go: what a push does to the state.
//!
//! Upserts first, in wire order, then removals (spec state-and-dns 2.2). Pure but for the time it takes, so that the
//! driver may run a large one elsewhere.

use bytes::{Buf, Bytes};
use istio_api::borrowed::Resource;
use mesh::State;
use prost::{DecodeError, Message};

use super::decode::{self, Interner};
use super::subscription::{Kind, Lookups, Name, Response};

/// A response whose resources are still as they came, so that only one at a time is taken apart; the fields of
/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
struct Push {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed_resources: Vec<String>,
}

/// What became of a response.
#[derive(Debug)]
pub(super) enum Gathered {
    /// It is applied, as far as it could be.
    Applied {
        /// What to settle.
        response: Response,
        /// Bytes of what its resources carried.
        bytes: usize,
    },
    /// It is of a type that we know nothing of.
    Unknown {
        /// The type.
        url: String,
        /// To be named in the answer.
        nonce: String,
    },
}

/// Applies what can be applied, and reports on every resource.
///
/// # Errors
/// It is no response at all.
pub(super) fn apply(
    message: impl Buf,
    lookups: Lookups,
    state: &mut State,
    names: &mut Interner,
) -> Result<Gathered, DecodeError> {
    let push = Push::decode(message)?;
    let Some(kind) = Kind::of(&push.type_url) else {
        return Ok(Gathered::Unknown { url: push.type_url, nonce: push.nonce });
    };
    let mut resources = Vec::with_capacity(push.resources.len());
    let mut bytes = 0;
    let upserts = push.resources.into_iter().filter_map(|resource| {
        let (received, change) = match Resource::read(&resource) {
            Ok(resource) => {
                bytes += resource.payload.map_or(0, <[u8]>::len);
                decode::resource(kind, &resource, lookups, names)
            }
            Err(error) => (decode::nameless(error), None),
        };
        resources.push(received);
        change
    });
    let _counts = state.apply(upserts);
    let removed: Vec<Name> = push.removed_resources.into_iter().map(Name::from).collect();
    remove(kind, &removed, state);
    Ok(Gathered::Applied { response: Response { kind, nonce: push.nonce, resources, removed }, bytes })
}

/// Takes names out of the state.
pub(super) fn remove<'a>(kind: Kind, names: impl IntoIterator<Item = &'a Name>, state: &mut State) {
    for name in names {
        let Some(change) = decode::removal(kind, name, &state.view()) else {
            tracing::debug!(%name, url = kind.url(), "removal of something that is not known");
            continue;
        };
        for absent in state.apply([change]).absent {
            tracing::debug!(service = %absent, "tried to remove service, but it was not found");
        }
    }
}

#[cfg(test)]
mod tests {
    use istio_api::discovery::{DeltaDiscoveryResponse, Payload, Resource};
    use istio_api::workload::address::Type;
    use istio_api::workload::{Address, Workload};

    use super::{Gathered, Interner, Kind, Lookups, Message as _, State, apply};
    use crate::xds::subscription::Verdict;

    fn workload(uid: &str, addresses: Vec<Vec<u8>>) -> Resource {
        let workload = Workload { uid: uid.into(), addresses, ..Workload::default() };
        let value = Address { r#type: Some(Type::Workload(workload)) }.encode_to_vec().into();
        let resource = Some(Payload { type_url: String::new(), value });
        Resource { name: uid.into(), resource, ..Resource::default() }
    }

    #[test]
    fn aliases_are_kept_where_something_may_have_been_asked_for_by_them() {
        let resource = Resource { aliases: vec!["/10.0.0.1".into()], ..workload("a//v1/Pod/ns/a", vec![]) };
        let type_url = Kind::Address.url().to_owned();
        let push = DeltaDiscoveryResponse { resources: vec![resource], type_url, ..DeltaDiscoveryResponse::default() };
        for (lookups, kept) in [(Lookups::Everything, 0), (Lookups::OnDemand, 1)] {
            let (mut state, mut names) = (State::new(None), Interner::default());
            let applied = apply(&push.encode_to_vec()[..], lookups, &mut state, &mut names).unwrap();
            let Gathered::Applied { response, .. } = applied else { panic!("{applied:?}") };
            assert_eq!(response.resources[0].aliases.len(), kept);
        }
    }

    #[test]
    fn good_resources_of_a_push_apply_beside_bad_ones_and_bad_ones_keep_what_was() {
        let (mut state, mut names) = (State::new(None), Interner::default());
        let mut push = |resources, removed: &[&str]| {
            let removed_resources = removed.iter().map(|name| (*name).to_owned()).collect();
            let type_url = Kind::Address.url().to_owned();
            let push =
                DeltaDiscoveryResponse { resources, removed_resources, type_url, ..DeltaDiscoveryResponse::default() };
            let applied = apply(&push.encode_to_vec()[..], Lookups::Everything, &mut state, &mut names).unwrap();
            let Gathered::Applied { response, bytes } = applied else { panic!("{applied:?}") };
            assert_eq!(bytes, push.resources.iter().map(|r| r.resource.as_ref().unwrap().value.len()).sum::<usize>());
            let bad = response.resources.iter().filter(|r| r.verdict != Verdict::Accepted).count();
            let view = state.view();
            let held = |uid: &str| view.workload(&uid.into()).map(|w| w.addresses.len());
            (bad, [held("a//v1/Pod/ns/a"), held("a//v1/Pod/ns/b")])
        };
        let (a, b) = ("a//v1/Pod/ns/a", "a//v1/Pod/ns/b");
        assert_eq!(push(vec![workload(a, vec![vec![10, 0, 0, 1]])], &[]), (0, [Some(1), None]));
        let mixed = vec![workload(a, vec![vec![1, 2, 3]]), workload(b, vec![])];
        assert_eq!(push(mixed, &[]), (1, [Some(1), Some(0)]));
        assert_eq!(push(vec![workload(b, vec![])], &[a, b, "never/seen/this", "nor-this"]), (0, [None, None]));
    }
}
