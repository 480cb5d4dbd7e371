//! The endpoints of one service, grouped by what they have in common with a possible client.
//!
//! All endpoints are kept, healthy or not, whether or not the service is known, so that no order of announcements loses
//! one. For a service that prefers near endpoints there is also a pool for every group that a client may prefer;
//! finding the best group is then a lookup for each preference, not a look at each endpoint.

use std::sync::Arc;

use super::Map;
use super::pool::{Member, Pool};
use crate::name::Uid;
use crate::service::{HealthPolicy, LoadBalancer, Mode, Scope, Service};
use crate::workload::{Health, Workload};

/// All endpoints of one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    members: Pool,
    health: HealthPolicy,
    preferences: Option<Box<Preferences>>,
}

/// Groups of eligible endpoints, by the first of what the preferences name.
#[derive(Clone, Debug)]
struct Preferences {
    scopes: Vec<Scope>,
    mode: Mode,
    /// By the values of the first one or more scopes.
    near: Map<Box<[Arc<str>]>, Pool>,
    /// Where the first scope is the network: by the values of one or more scopes after it, whatever the network.
    far: Map<Box<[Arc<str>]>, Pool>,
}

/// The value that a workload has for a scope.
pub(crate) fn value(scope: Scope, workload: &Workload) -> &Arc<str> {
    match scope {
        Scope::Region => &workload.locality.region,
        Scope::Zone => &workload.locality.zone,
        Scope::Subzone => &workload.locality.subzone,
        Scope::Node => workload.node.shared(),
        Scope::Cluster => workload.deployment.cluster_id.shared(),
        Scope::Network => workload.network.shared(),
    }
}

impl Endpoints {
    /// No endpoints yet, of a service that is known or not.
    pub(super) fn new(service: Option<&Service>) -> Self {
        let mut endpoints = Self::default();
        if let Some(service) = service {
            endpoints.plan(service);
        }
        endpoints
    }

    /// All endpoints, in no order.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The endpoint that a workload is.
    pub(crate) fn member(&self, uid: &Uid) -> Option<&Member> {
        self.members.get(uid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The eligible endpoints that have most in common with `source`, by weight (spec state-and-dns 7.4), and after them
    /// those of whom less and less is asked, down to all that may be used.
    pub(crate) fn groups(&self, source: &Workload) -> impl Iterator<Item = &Pool> {
        let all = match &self.preferences {
            Some(preferences) if preferences.mode == Mode::Strict => None,
            _ => Some(&self.members),
        };
        self.preferences.iter().flat_map(|preferences| preferences.groups(source)).chain(all)
    }

    /// The service's preferences, if they mean anything.
    pub(crate) fn preferences(&self) -> Option<(&[Scope], Mode)> {
        self.preferences.as_ref().map(|p| (&p.scopes[..], p.mode))
    }

    /// Takes over what the service says about load balancing.
    pub(super) fn plan(&mut self, service: &Service) {
        let health = service.extras.load_balancer.as_ref().map(|lb| lb.health).unwrap_or_default();
        // Passthrough means something to who dials the VIP only; whoever gets here by name gets failover
        // (spec state-and-dns 7.2).
        let wanted =
            service.extras.load_balancer.as_ref().filter(|lb| lb.mode != Mode::Standard && !lb.preferences.is_empty());
        let same = self.preferences() == wanted.map(|lb| (&lb.preferences[..], lb.mode));
        if same && health == self.health {
            return;
        }
        self.health = health;
        self.preferences = wanted.map(|lb| Box::new(Preferences::new(lb)));
        let all: Vec<Member> = std::mem::take(&mut self.members).iter().cloned().collect();
        for member in all {
            self.put(member);
        }
    }

    /// Puts an endpoint in the place of an older one of the same workload.
    pub(super) fn put(&mut self, mut member: Member) {
        member.eligible = member.workload.status == Health::Healthy || self.health == HealthPolicy::AllowAll;
        if let Some(preferences) = &mut self.preferences {
            if let Some(old) = self.members.get(&member.workload.uid) {
                preferences.remove(&old.workload);
            }
            if member.eligible {
                preferences.put(&member);
            }
        }
        self.members.put(member);
    }

    /// Removes the endpoint that a workload is.
    pub(super) fn remove(&mut self, uid: &Uid) {
        if let (Some(preferences), Some(old)) = (&mut self.preferences, self.members.get(uid)) {
            preferences.remove(&old.workload);
        }
        self.members.remove(uid);
    }
}

impl Preferences {
    fn new(lb: &LoadBalancer) -> Self {
        Self { scopes: lb.preferences.clone(), mode: lb.mode, near: Map::default(), far: Map::default() }
    }

    fn values(&self, workload: &Workload) -> Vec<Arc<str>> {
        self.scopes.iter().map(|scope| value(*scope, workload).clone()).collect()
    }

    /// Whether endpoints of other networks are told apart by the scopes that follow.
    fn network_first(&self) -> bool {
        self.scopes.first() == Some(&Scope::Network) && self.mode != Mode::Strict
    }

    fn groups(&self, source: &Workload) -> impl Iterator<Item = &Pool> {
        let values = self.values(source);
        let scopes = values.len();
        let steps = if self.mode == Mode::Strict { 1 } else { 2 * scopes };
        (0..steps).filter_map(move |step| match scopes.checked_sub(step) {
            Some(in_common @ 1..) => self.near.get(&values[..in_common]),
            // By then nobody of the source's network is left, so that these are all of other networks.
            _ => self.far.get(values.get(1..2 * scopes - step)?),
        })
    }

    fn put(&mut self, member: &Member) {
        self.change(&member.workload, |pool| pool.put(member.clone()));
    }

    fn remove(&mut self, workload: &Workload) {
        self.change(workload, |pool| pool.remove(&workload.uid));
    }

    /// Changes all groups that a workload belongs to.
    fn change(&mut self, workload: &Workload, change: impl Fn(&mut Pool)) {
        let values = self.values(workload);
        let network_first = self.network_first();
        for n in 1..=values.len() {
            change_group(&mut self.near, &values[..n], &change);
            if network_first && n > 1 {
                change_group(&mut self.far, &values[1..n], &change);
            }
        }
    }
}

fn change_group(groups: &mut Map<Box<[Arc<str>]>, Pool>, key: &[Arc<str>], change: impl Fn(&mut Pool)) {
    match groups.get_mut(key) {
        Some(pool) => {
            change(pool);
            if pool.is_empty() {
                groups.remove_mut(key);
            }
        }
        None => {
            let mut pool = Pool::default();
            change(&mut pool);
            if !pool.is_empty() {
                groups.insert_mut(key.into(), pool);
            }
        }
    }
}
