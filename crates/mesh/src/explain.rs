//! What would happen to a connection if it were made now: the decisions of the data path, asked in advance.
//!
//! Everything here is said by the functions that decide about real connections: [`route()`] on this side,
//! [`admit_hbone`], [`admit_plaintext`] and [`authorize()`] on the other, all on one view. Invariant: nothing is decided
//! here, and nothing is changed by asking.
//!
//! Not here: what is not in the view, such as certificates and whether anybody answers, and what connections remember of
//! endpoints that have failed lately.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::address::{Authority, NetworkAddress, canonical};
use crate::admit::{AdmitSettings, HboneRequest, admit_hbone, admit_plaintext};
use crate::ask::{Halt, Learnt, Need};
use crate::authorize::{Denied, Verdict, authorize};
use crate::balance::Draw;
use crate::permit::Grant;
use crate::refusal::Refusal;
use crate::retry::{Failures, Past};
use crate::route::{Hop, Outbound, Route, RouteSettings, route};
use crate::view::{Addressed, View};
use crate::workload::{Protocol, Workload};

/// A connection that somebody thinks of.
pub struct Thought<'a> {
    /// What is known.
    pub view: &'a View,
    /// Who would make it.
    pub source: &'a Arc<Workload>,
    /// The address that the app would dial.
    pub target: SocketAddr,
    /// How this node routes.
    pub route: &'a RouteSettings,
    /// How this node admits; the other node is taken to be set up alike.
    pub admit: &'a AdmitSettings,
    /// The time.
    pub now: Instant,
}

/// What would become of it.
#[derive(Debug)]
pub struct Forecast {
    /// How it would get there.
    pub way: Way,
    /// What the other side would say.
    pub arrival: Arrival,
}

/// How a connection would leave.
#[derive(Debug)]
pub enum Way {
    /// Nobody captures it: its source is not in the mesh, and dials by itself.
    Plain,
    /// By this route.
    Route(Box<Route>),
    /// Not at all.
    Refused(Refusal),
    /// Something would have to be found out first.
    Unsettled(Need),
}

/// What would be said where it arrives.
#[derive(Debug)]
pub enum Arrival {
    /// It does not arrive anywhere.
    Nowhere,
    /// A waypoint or the gateway of another network decides, by rules that are not known here.
    Elsewhere,
    /// Nobody asks: the destination is not in the mesh.
    Unenforced,
    /// The policies of the workload say so.
    Judged(Arc<Workload>, Verdict),
    /// It is not let in, for a reason other than the policies.
    Refused(Arc<Workload>, Refusal),
    /// Something would have to be found out first.
    Unsettled(Need),
}

/// Chooses the first of what there is to choose from, so that asking again gets the same answer.
struct First;

impl Draw for First {
    fn below(&mut self, _bound: u64) -> u64 {
        0
    }
}

impl Thought<'_> {
    /// What would become of it.
    pub fn forecast(&self) -> Forecast {
        let way = self.way();
        let arrival = match &way {
            Way::Plain => self.plain_arrival(),
            Way::Route(route) => self.arrival(route),
            Way::Refused(_) | Way::Unsettled(_) => Arrival::Nowhere,
        };
        Forecast { way, arrival }
    }

    fn way(&self) -> Way {
        if self.source.protocol != Protocol::Hbone {
            return Way::Plain;
        }
        let (learnt, failures) = (Learnt::default(), Failures::default());
        let asked = Outbound {
            view: self.view,
            source: self.source,
            client: self.client(),
            target: self.target,
            learnt: &learnt,
            settings: self.route,
            past: Past { failures: &failures, tried: &[], now: self.now },
        };
        match route(&asked, &mut First) {
            Ok(route) => Way::Route(Box::new(route)),
            Err(Halt::Refuse(refusal)) => Way::Refused(refusal),
            Err(Halt::Need(need)) => Way::Unsettled(need),
        }
    }

    /// The app's end; policies do not look at its port.
    fn client(&self) -> SocketAddr {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == self.target.is_ipv4();
        let ip = self.source.addresses.iter().find(same_family).or(self.source.addresses.first());
        SocketAddr::new(ip.copied().unwrap_or(self.target.ip()), 0)
    }

    fn arrival(&self, route: &Route) -> Arrival {
        match (&route.hop, &route.destination) {
            (Hop::DoubleHbone { .. }, _) => Arrival::Elsewhere,
            (Hop::Hbone { next, authority, .. }, Some(workload)) if ends_at(workload, authority) => {
                self.by_tunnel(workload, *next, authority)
            }
            (Hop::Hbone { .. }, _) => Arrival::Elsewhere,
            // Whoever is in the mesh is reached by tunnel.
            (Hop::Tcp { .. }, _) => Arrival::Unenforced,
        }
    }

    fn plain_arrival(&self) -> Arrival {
        let address = NetworkAddress::new(self.route.network.clone(), self.target.ip());
        match self.view.find(&address, None) {
            Some(Addressed::Workload(workload)) if workload.protocol == Protocol::Hbone => {
                self.in_plain(workload, canonical(self.target))
            }
            Some(Addressed::Service(_)) => Arrival::Elsewhere, // kube-proxy, or what stands in for it, chooses
            _ => Arrival::Unenforced,
        }
    }

    fn by_tunnel(&self, workload: &Arc<Workload>, local: SocketAddr, authority: &Authority) -> Arrival {
        let (identity, authority) = (self.source.identity(), authority.to_string());
        let request = HboneRequest {
            peer: self.client(),
            local,
            identity: Some(&identity),
            method: "CONNECT",
            authority: &authority,
            baggage: &[],
            forwarded: None,
            forwarded_network: None,
        };
        let admission = admit_hbone(self.view, workload, &request, &Learnt::default(), self.admit);
        self.judge(workload, admission)
    }

    fn in_plain(&self, workload: &Arc<Workload>, target: SocketAddr) -> Arrival {
        let learnt = Learnt::default();
        self.judge(workload, admit_plaintext(self.view, workload, self.client(), target, &learnt, self.admit))
    }

    fn judge(&self, workload: &Arc<Workload>, admission: Result<crate::Admission, Halt>) -> Arrival {
        match admission.map(|admission| authorize(self.view, admission)) {
            Err(Halt::Refuse(refusal)) => Arrival::Refused(workload.clone(), refusal),
            Err(Halt::Need(need)) => Arrival::Unsettled(need),
            Ok(Ok(permit)) => match permit.grant() {
                Grant::Inbound(_, verdict) => Arrival::Judged(workload.clone(), verdict.clone()),
                Grant::Outbound(_) => Arrival::Unenforced,
            },
            Ok(Err(denied)) => {
                let Denied { verdict, .. } = *denied;
                Arrival::Judged(workload.clone(), verdict)
            }
        }
    }
}

/// Whether what a tunnel is asked for is at its end, as opposed to a waypoint's way on.
fn ends_at(workload: &Workload, authority: &Authority) -> bool {
    match authority {
        Authority::Address(address) => workload.addresses.contains(&address.ip()),
        Authority::Host { .. } => false,
    }
}

#[cfg(test)]
mod tests;
