//! How often each authorization policy decided, or would have.
//!
//! A connection that no policy has a say about is not counted. Policies come from the control plane: their number is bounded
//! ([`MAX_POLICIES`]), and what exceeds it is counted under one name.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh::authorize::{Decision, DryRunHit};
use mesh::policy::Action;
use mesh::refusal::Denial;
use mesh::{Decided, Verdict};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Policies that are told apart: more would make a scrape of this alone larger than of everything else.
const MAX_POLICIES: usize = 2_000;
/// Stands for the policies that no number is left for.
const OTHERS: &str = "others";
/// Stands for the absence of an ALLOW policy that matches.
const NONE: &str = "none";

type Labels = [(&'static str, Cow<'static, str>); 3];

#[derive(Debug, Default)]
pub(in crate::telemetry) struct Decisions {
    family: Family<Labels, Counter>,
    series: AtomicUsize,
}

impl Decisions {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let decisions = Self::default();
        let help = "How often an authorization policy decided about a connection, or would have";
        registry.register("istio_authz_decisions", help, decisions.family.clone());
        decisions
    }

    /// Counts what was said of a connection that came.
    pub(in crate::telemetry) fn came(&self, verdict: &Verdict) {
        for hit in &verdict.dry_run {
            let policy = hit.deciding().map_or(NONE, |by| by.policy.key.as_str());
            let action = match hit {
                DryRunHit::Match(Action::Allow, _) => "allow",
                DryRunHit::Match(Action::Deny, _) | DryRunHit::NoAllow => "deny",
            };
            self.count(policy, action, "true");
        }
        let action = match &verdict.decision {
            Decision::NoAllowPolicies => return,
            Decision::Allowed(_) => "allow",
            Decision::Denied(_) | Decision::NotAllowed => "deny",
            Decision::Unknown(_) => "unknown",
        };
        let by = Decided::of(&verdict.decision);
        self.count(by.as_ref().map_or(NONE, |by| &by.policy), action, "false");
    }

    /// Counts that a live connection was cut.
    pub(in crate::telemetry) fn cut(&self, denial: &Denial) {
        let action = match denial {
            Denial::Explicit { .. } | Denial::NotAllowed => "deny",
            Denial::UnknownPolicy(_) => "unknown",
        };
        let by = Decided::of_denial(denial);
        self.count(by.as_ref().map_or(NONE, |by| &by.policy), action, "false");
    }

    fn count(&self, policy: &str, action: &'static str, dry_run: &'static str) {
        let labels = |policy: String| -> Labels {
            [("policy", policy.into()), ("action", action.into()), ("dry_run", dry_run.into())]
        };
        let own = labels(policy.to_owned());
        if let Some(counter) = self.family.get(&own) {
            counter.inc();
            return;
        }
        // Two that come at once may both be counted here, which only makes the bound a little closer.
        let room = self.series.fetch_add(1, Ordering::Relaxed) < MAX_POLICIES;
        let labels = if room { own } else { labels(OTHERS.to_owned()) };
        self.family.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn decisions_are_told_apart_by_policy_action_and_whether_they_count() {
        let mut registry = Registry::default();
        let decisions = Decisions::register(&mut registry);
        let verdict = |decision, dry_run| Verdict { decision, dry_run, skipped: Vec::new() };
        decisions.came(&verdict(Decision::NoAllowPolicies, Vec::new()));
        decisions.came(&verdict(Decision::NotAllowed, vec![DryRunHit::NoAllow]));
        decisions.came(&verdict(Decision::Unknown("ns/late".into()), Vec::new()));
        decisions.cut(&Denial::Explicit { namespace: "ns".into(), name: "no".into(), rule: 3 });
        let shown = shown(&registry);
        for line in [
            r#"istio_authz_decisions_total{policy="none",action="deny",dry_run="true"} 1"#,
            r#"istio_authz_decisions_total{policy="none",action="deny",dry_run="false"} 1"#,
            r#"istio_authz_decisions_total{policy="ns/late",action="unknown",dry_run="false"} 1"#,
            r#"istio_authz_decisions_total{policy="ns/no",action="deny",dry_run="false"} 1"#,
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        assert_eq!(shown.lines().filter(|line| line.starts_with("istio_authz")).count(), 4);
    }

    #[test]
    fn policies_beyond_the_bound_share_a_name() {
        let mut registry = Registry::default();
        let decisions = Decisions::register(&mut registry);
        for n in 0..MAX_POLICIES + 10 {
            decisions.cut(&Denial::UnknownPolicy(format!("ns/{n}").as_str().into()));
        }
        let shown = shown(&registry);
        assert!(shown.contains(r#"{policy="others",action="unknown",dry_run="false"} 10"#));
        assert_eq!(shown.lines().filter(|line| line.starts_with("istio_authz")).count(), MAX_POLICIES + 1);
    }
}
