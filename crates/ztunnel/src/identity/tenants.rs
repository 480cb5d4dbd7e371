//! The workloads that this process stands for, and so the identities whose certificates it needs.
//!
//! A pod that has come is given its certificate before its first connection, and one that has left is not renewed for.
//! Who a workload is, is the control plane's to say, which may say it later or change its mind: the wanted identities are
//! reckoned anew whenever pods or the view change. Nothing here waits for a CA.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{Identity, LocalWorkload, View};
use tokio::sync::Notify;

use super::Identities;
use crate::state::Views;

/// The workloads; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tenants(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many pods there are of each: while one replaces another there may be two.
    present: Mutex<HashMap<LocalWorkload, usize>>,
    changed: Notify,
}

/// That a workload is here; dropped when it leaves.
#[derive(Debug)]
pub struct Stay {
    who: LocalWorkload,
    tenants: Tenants,
}

impl Tenants {
    /// A workload has come.
    #[must_use]
    pub fn come(&self, who: LocalWorkload) -> Stay {
        *self.lock().entry(who.clone()).or_default() += 1;
        self.0.changed.notify_one();
        Stay { who, tenants: self.clone() }
    }

    /// Sees to it that those who are here have certificates, for as long as the process runs.
    pub async fn look_after(self, views: Views, identities: Identities) {
        let mut changes = views.changes();
        let mut wanted = BTreeSet::new();
        loop {
            let next = self.identities(&views.current().view);
            for identity in next.difference(&wanted) {
                identities.prefetch(identity).await;
            }
            for identity in wanted.difference(&next) {
                identities.forget(identity).await;
            }
            wanted = next;
            tokio::select! {
                () = self.0.changed.notified() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Who those that are here are, as far as the control plane has told.
    fn identities(&self, view: &View) -> BTreeSet<Identity> {
        self.lock().keys().filter_map(|who| Some(view.local(who)?.identity())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LocalWorkload, usize>> {
        // Counts are changed in one step, so that what a poisoned lock guards is whole.
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut present = self.tenants.lock();
        if let Some(count) = present.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.who);
            }
        }
        drop(present);
        self.tenants.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use mesh::{Deployment, State, Workload};

    use super::*;

    fn who(name: &str) -> LocalWorkload {
        LocalWorkload { name: name.into(), namespace: "ns".into(), service_account: "sa".into() }
    }

    fn workload(name: &str, trust_domain: &str) -> Workload {
        Workload {
            name: name.into(),
            namespace: "ns".into(),
            service_account: "sa".into(),
            deployment: Deployment { trust_domain: trust_domain.into(), ..Deployment::default() }.into(),
            ..Workload::new(name.into())
        }
    }

    #[test]
    fn an_identity_is_wanted_while_a_pod_with_it_is_here_and_known() {
        let (tenants, mut state) = (Tenants::default(), State::new(None));
        let names = |state: &State| -> Vec<String> {
            tenants.identities(&state.view()).iter().map(|id| id.trust_domain.to_string()).collect()
        };
        let (first, second) = (tenants.come(who("a")), tenants.come(who("a")));
        assert!(names(&state).is_empty(), "nobody has said who it is");
        let _ = state.apply([workload("a", "td1").into(), workload("b", "td2").into()]);
        assert_eq!(names(&state), ["td1"]);
        drop(first);
        assert_eq!(names(&state), ["td1"], "there were two");
        let _ = state.apply([workload("a", "td3").into()]);
        assert_eq!(names(&state), ["td3"], "it has become somebody else");
        drop(second);
        assert!(names(&state).is_empty());
    }
}
