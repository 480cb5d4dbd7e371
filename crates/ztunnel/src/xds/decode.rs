//! From discovery's protobuf to what the mesh knows (spec wire-protocols 3 and 4).
//!
//! Every resource is judged by itself: it becomes a [`Change`] that is valid, or a [`Rejection`] that says why not.
//! Nothing is cut to fit: a port of 70000 or a prefix of /200 is an error, not another value. The one exception are the
//! elements of a policy's matches: one that cannot be read is counted in its list, so that the policy still applies
//! and errs on the side of denying.

mod address;
mod intern;
mod policy;
#[cfg(test)]
mod tests;

use istio_api::borrowed::{Address, Malformed, Resource};
use istio_api::security::Authorization;
use mesh::{Change, NamespacedHostname, Uid, View};
use prost::Message;

pub use intern::Interner;

use super::subscription::{Kind, Lookups, Name, Received, Verdict, Version};

/// Why a resource is not applied (wording: spec state-and-dns 2.3).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// Not protobuf of the type.
    #[error("decode: {0}")]
    Malformed(#[from] Malformed),
    /// Nothing in it.
    #[error("XDS payload without resource")]
    NoPayload,
    /// Neither a workload nor a service.
    #[error("unknown address type")]
    UnknownType,
    /// Without the key by which it is known.
    #[error("{0} is empty")]
    NoKey(&'static str),
    /// A number that is none of the enum's.
    #[error("decode error: unknown enumeration value {value} of {field}")]
    UnknownEnum {
        /// Which enum.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// A protocol of the past.
    #[error("unknown enum: unsupported tunnel protocol: legacy istio mtls")]
    LegacyMtls,
    /// Neither IPv4 nor IPv6.
    #[error("failed to parse address, had {0} bytes")]
    Address(usize),
    /// A prefix that the address cannot have.
    #[error("invalid cidr: {address}/{length}")]
    Cidr {
        /// The address.
        address: std::net::IpAddr,
        /// The prefix.
        length: u32,
    },
    /// No `namespace/hostname`.
    #[error(transparent)]
    Hostname(#[from] mesh::name::InvalidNamespacedHostname),
    /// A reference to nothing.
    #[error("nonempty gateway address is missing address")]
    NoGateway,
    /// No port.
    #[error("{field} {value} is larger than 65535")]
    Port {
        /// Which port.
        field: &'static str,
        /// The number.
        value: u32,
    },
}

/// A resource that can be applied, and what of it could not be read.
#[derive(Debug, Clone, PartialEq)]
struct Readable {
    change: Change,
    flaw: Option<String>,
}

/// Takes one resource of a response apart. Other names of it are kept where something may have been asked for by them.
pub fn resource(
    kind: Kind,
    resource: &Resource<'_>,
    lookups: Lookups,
    names: &mut Interner,
) -> (Received, Option<Change>) {
    let name: Name = resource.name.into();
    let decoded = match resource.payload {
        None => Err(Rejection::NoPayload),
        Some(payload) => match kind {
            Kind::Address => address(&name, payload, names),
            Kind::Authorization => authorization(&name, payload, names),
        },
    };
    let (verdict, change) = match decoded {
        Ok(Readable { change, flaw: None }) => (Verdict::Accepted, Some(change)),
        Ok(Readable { change, flaw: Some(flaw) }) => (Verdict::Flawed(flaw), Some(change)),
        Err(rejection) => (Verdict::Rejected(rejection.to_string()), None),
    };
    let aliases = match lookups {
        Lookups::Everything => Vec::new(),
        Lookups::OnDemand => resource.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
    };
    (Received { name, version: resource.version.into(), aliases, verdict }, change)
}

/// What is no resource at all, and so has no name by which it could be kept or refused.
pub fn nameless(error: Malformed) -> Received {
    let verdict = Verdict::Rejected(Rejection::from(error).to_string());
    Received { name: Name::default(), version: Version::default(), aliases: Vec::new(), verdict }
}

fn address(name: &Name, payload: &[u8], names: &mut Interner) -> Result<Readable, Rejection> {
    let change = match Address::read(payload)? {
        Some(Address::Workload(workload)) => address::workload(name, *workload, names)?.into(),
        Some(Address::Service(service)) => address::service(*service, names)?.into(),
        None => return Err(Rejection::UnknownType),
    };
    Ok(Readable { change, flaw: None })
}

fn authorization(name: &Name, payload: &[u8], names: &mut Interner) -> Result<Readable, Rejection> {
    let policy = policy::policy(name, Authorization::decode(payload).map_err(Malformed::from)?, names)?;
    let flaw = policy::flaw(&policy);
    Ok(Readable { change: policy.into(), flaw })
}

/// What the removal of a name means, given what is known (spec state-and-dns 2.5). A name that is none of ours means
/// nothing.
#[must_use]
pub fn removal(kind: Kind, name: &Name, view: &View) -> Option<Change> {
    if kind == Kind::Authorization {
        return Some(Change::RemovePolicy(name.clone().into()));
    }
    let uid = Uid::from(name.clone());
    if view.workload(&uid).is_some() {
        return Some(Change::RemoveWorkload(uid));
    }
    let service: NamespacedHostname = name.parse().ok()?;
    // With more slashes it is the key of a workload that we do not know.
    (!service.hostname.as_str().contains('/')).then_some(Change::RemoveService(service))
}
