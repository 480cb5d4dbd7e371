//! What a name means to a workload that asks: the decision of the DNS proxy (spec state-and-dns 10.3, 10.4).
//!
//! A plain function over one view. Names of the mesh are answered from it, a few special names by what they are, and
//! everything else is somebody else's to answer. A miss costs a bounded number of lookups in the index of host names,
//! and nothing here allocates once the buffers of a [`Lookup`] have grown; only the endpoints of a headless service are
//! walked, since they are the answer.
//!
//! Deliberately absent: messages, times to live and caching, which are the caller's; SRV, because the control plane does
//! not tell names of ports.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ask::{Learnt, Need};
use crate::name::{Namespace, NamespacedHostname};
use crate::service::Service;
use crate::view::View;
use crate::workload::Workload;

mod candidates;
mod endpoint;
mod reverse;
mod special;

use candidates::Candidates;

/// The longest name in text form, without the final dot (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 253;

/// What somebody wants to know.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// What is known.
    pub view: &'a View,
    /// The workload that asks.
    pub client: &'a Workload,
    /// The name asked for: in lower case, without a final dot, of at most [`MAX_NAME`] bytes.
    pub name: &'a str,
    /// What about it.
    pub kind: Kind,
    /// What the caller has found out since it first asked.
    pub learnt: &'a Learnt,
    /// What the operator set.
    pub settings: &'a LookupSettings,
}

/// What is asked about a name: a type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its IPv4 addresses.
    A,
    /// Its IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Something that the mesh knows nothing of.
    Other,
}

/// What the operator set about names.
#[derive(Clone, Debug)]
pub struct LookupSettings {
    /// Domain of the cluster, in lower case and without a final dot (`CLUSTER_DOMAIN`).
    pub domain: Box<str>,
    /// What the resolvers of clients append to names.
    pub search: Search,
    /// Whose service is meant when several have one name and nothing else decides (`PREFERED_SERVICE_NAMESPACE`).
    pub preferred: Option<Namespace>,
    /// Which addresses are told at all (`IPV6_ENABLED`).
    pub families: Families,
    /// Whether a service that is not known is asked for before its name is taken for a stranger's.
    pub on_demand: bool,
}

/// Which search domains clients have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// Those of a pod: its namespace, all services, the cluster.
    OfPod,
    /// These, in lower case and without final dots.
    These(Box<[Box<str>]>),
}

/// Which families of addresses are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Both.
    Dual,
    /// IPv4.
    Ipv4,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The name has addresses of that family: [`Lookup::addresses`].
    Addresses {
        /// What the name stands for, if it only is that with a search domain appended: a canonical name to be told, and
        /// the owner of the addresses.
        canonical: Option<&'a str>,
    },
    /// The address has a name.
    Name(String),
    /// The name exists, but there is nothing of that kind.
    NoData,
    /// The name does not exist, nor does anything below it.
    NoName,
    /// Somebody else's to answer.
    Forward(Standing),
    /// Find this out, put it into [`Learnt`] and ask again.
    Need(Need),
}

/// What the mesh knows of a name that it does not answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It exists: whoever says that it does not means that there is nothing of that kind.
    Exists,
    /// Nothing.
    Stranger,
}

/// Looks names up; keeps its buffers from one question to the next.
#[derive(Debug, Default)]
pub struct Lookup {
    addresses: Vec<IpAddr>,
    text: String,
}

/// A name that something of the mesh has.
struct Hit<'a> {
    service: &'a Arc<Service>,
    canonical: Option<&'a str>,
}

impl Lookup {
    /// What was found last, if that was addresses: each once, in the order of the view. Shuffling is the caller's.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The same, to be shuffled.
    pub fn addresses_mut(&mut self) -> &mut [IpAddr] {
        &mut self.addresses
    }

    /// Decides one question.
    pub fn find<'a>(&mut self, question: &Question<'a>) -> Found<'a> {
        self.addresses.clear();
        if question.kind == Kind::Ptr {
            return reverse::find(question);
        }
        if let Some(found) = special::find(question, &mut self.addresses) {
            return found;
        }
        if let Some(need) = question.need() {
            return Found::Need(need);
        }
        let candidates = Candidates { question, text: &mut self.text };
        if let Some(hit) = candidates.first_hit() {
            return self.tell(question, &hit);
        }
        match endpoint::find(question) {
            Some(_) if question.kind == Kind::Other => Found::Forward(Standing::Exists),
            Some(workload) => {
                self.addresses.extend(workload.addresses.iter().filter(|ip| question.wants(**ip)));
                self.found(None)
            }
            None => Found::Forward(Standing::Stranger),
        }
    }

    fn tell<'a>(&mut self, question: &Question<'a>, hit: &Hit<'a>) -> Found<'a> {
        if question.kind == Kind::Other {
            return Found::Forward(Standing::Exists);
        }
        let service = hit.service;
        let (families, network) = (service.ip_families, &question.client.network);
        let wanted = |ip: &IpAddr| question.wants(*ip) && families.accept(*ip);
        if !service.vips.is_empty() {
            let here = service.vips.iter().filter(|vip| vip.network == *network).map(|vip| vip.ip);
            self.addresses.extend(here.filter(wanted));
        } else if let Some(endpoints) = question.view.endpoints_of(&service.key()) {
            let here = endpoints.members().filter(|m| m.eligible && m.workload.network == *network);
            self.addresses.extend(here.flat_map(|m| m.workload.addresses.iter().copied()).filter(wanted));
        }
        self.found(hit.canonical)
    }

    fn found<'a>(&self, canonical: Option<&'a str>) -> Found<'a> {
        if self.addresses.is_empty() { Found::NoData } else { Found::Addresses { canonical } }
    }
}

impl<'a> Question<'a> {
    /// Whether an address is of the family asked for.
    fn wants(&self, ip: IpAddr) -> bool {
        match self.kind {
            Kind::A => ip.is_ipv4(),
            Kind::Aaaa => ip.is_ipv6() && self.settings.families == Families::Dual,
            Kind::Ptr | Kind::Other => false,
        }
    }

    /// The part of a name before `.svc.<domain>`, of the name asked for as a rule.
    fn below_services<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(&*self.settings.domain)?.strip_suffix(".svc.")
    }

    /// Whether a service may be told of to this client, under one of its names.
    fn may_tell(&self, service: &Service) -> bool {
        let reachable = !service.vips.is_empty() || self.below_services(service.hostname.undotted()).is_some();
        reachable && service.visible_to(&self.client.namespace)
    }

    /// Of the services of one name the one that this client means (spec state-and-dns 10.3).
    fn meant(&self, all: &'a [Arc<Service>]) -> Option<&'a Arc<Service>> {
        let fit = || all.iter().filter(|service| self.may_tell(service));
        let of = |namespace: &Namespace| fit().rfind(|service| service.namespace == *namespace);
        of(&self.client.namespace)
            .or_else(|| fit().rfind(|service| service.canonical))
            .or_else(|| self.settings.preferred.as_ref().and_then(of))
            .or_else(|| fit().next())
    }

    /// The service that the name asked for would be, or be an endpoint of, if the control plane has not been asked for
    /// it. Only names within the cluster's domain say in which namespace to ask; the others are not asked for, so that
    /// ordinary names of the Internet wait for nobody.
    fn need(&self) -> Option<Need> {
        if !self.settings.on_demand {
            return None;
        }
        let labels = self.below_services(self.name)?;
        let (above, namespace) = labels.rsplit_once('.')?;
        let (service, of_endpoint) = match above.rsplit_once('.') {
            Some((endpoint, service)) => (service, Some(endpoint)),
            None => (above, None),
        };
        if of_endpoint.is_some_and(|endpoint| endpoint.contains('.')) {
            return None;
        }
        let hostname = format!("{service}.{namespace}.svc.{}", self.settings.domain);
        let key = NamespacedHostname { namespace: namespace.into(), hostname: hostname.into() };
        let known = self.view.service(&key).is_some();
        Some(Need::Host(key)).filter(|need| !known && !self.learnt.has_asked(need))
    }
}

#[cfg(test)]
mod tests;
