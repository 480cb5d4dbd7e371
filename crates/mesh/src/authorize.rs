//! Whether a peer may talk to the local workload (spec data-plane 13).
//!
//! One function decides at admission and again whenever policies or workloads change. It errs on the side of denying:
//! a policy that is referred to but not known, and a part of a policy that could not be read, count as whatever denies.

use std::sync::Arc;

use crate::admit::{Admission, Tuple};
use crate::name::PolicyName;
use crate::permit::Permit;
use crate::policy::{Action, DryRun, Policy};
use crate::refusal::{Denial, Refusal};
use crate::view::View;
use crate::view::policies::Selection;
use crate::workload::Workload;

mod matching;

use matching::{Subject, Truth};

/// What to make of a policy that a workload refers to and that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnknownPolicy {
    /// It might deny: so does its absence.
    #[default]
    Deny,
    /// It is skipped, as older ztunnels do.
    Skip,
}

/// What the policies say of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// What policies that are not enforced would have said; for the log.
    pub dry_run: Vec<DryRunHit>,
    /// Policies that the workload refers to, that are not known, and that were skipped; for the log.
    pub skipped: Vec<PolicyName>,
}

/// What the enforced policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed: there is no ALLOW policy.
    NoAllowPolicies,
    /// Allowed by a policy.
    Allowed(Deciding),
    /// Denied by a policy.
    Denied(Deciding),
    /// Denied: there are ALLOW policies and none matches.
    NotAllowed,
    /// Denied: a policy that the workload refers to is not known.
    Unknown(PolicyName),
}

/// The policy and the rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Which of its rules, counted from 0.
    pub rule: usize,
}

/// What a policy that is not enforced would have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRunHit {
    /// It matches.
    Match(Action, Deciding),
    /// There are only ALLOW policies that are not enforced, and none of them matches.
    NoAllow,
}

impl Decision {
    /// The wording of the decision log (spec data-plane 13.3).
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoAllowPolicies => "no allow policies, allow",
            Self::Allowed(_) => "allow policy match",
            Self::Denied(_) => "deny policy match",
            Self::NotAllowed => "no allow policies matched",
            Self::Unknown(_) => "unknown policy, deny",
        }
    }

    /// The policy that decided, if one did.
    pub fn deciding(&self) -> Option<&Deciding> {
        match self {
            Self::Allowed(deciding) | Self::Denied(deciding) => Some(deciding),
            Self::NoAllowPolicies | Self::NotAllowed | Self::Unknown(_) => None,
        }
    }
}

impl DryRunHit {
    /// The wording of the decision log (spec data-plane 13.3).
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Match(Action::Deny, _) => "dry-run: deny policy match",
            Self::Match(Action::Allow, _) => "dry-run: allow policy match",
            Self::NoAllow => "dry-run: no allow policies match",
        }
    }

    /// The policy that would have decided, if one would.
    pub fn deciding(&self) -> Option<&Deciding> {
        match self {
            Self::Match(_, deciding) => Some(deciding),
            Self::NoAllow => None,
        }
    }
}

impl std::fmt::Display for Deciding {
    /// `namespace/name`, as the decision log and refusals name a policy.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.policy.namespace, self.policy.name)
    }
}

impl Verdict {
    /// Why the connection is denied, if it is.
    pub fn denial(&self) -> Option<Denial> {
        match &self.decision {
            Decision::NoAllowPolicies | Decision::Allowed(_) => None,
            Decision::Denied(Deciding { policy, rule }) => {
                Some(Denial::Explicit { namespace: policy.namespace.clone(), name: policy.name.clone(), rule: *rule })
            }
            Decision::NotAllowed => Some(Denial::NotAllowed),
            Decision::Unknown(name) => Some(Denial::UnknownPolicy(name.clone())),
        }
    }
}

/// A connection that the policies deny.
#[derive(Debug)]
pub struct Denied {
    /// Why; if it names a [`need`](Refusal::need), wait for that briefly and ask again with the same admission.
    pub refusal: Refusal,
    /// What the policies said, for the log.
    pub verdict: Verdict,
    /// The admission, given back.
    pub admission: Admission,
}

/// Turns an admission into leave to dial, if the policies of the local workload allow it.
pub fn authorize(view: &View, admission: Admission) -> Result<Permit, Box<Denied>> {
    let verdict = evaluate(view, admission.destination(), admission.tuple(), admission.unknown_policy());
    match verdict.denial() {
        None => Ok(Permit::inbound(admission, verdict)),
        Some(denial) => Err(Box::new(Denied { refusal: Refusal::Denied(denial), verdict, admission })),
    }
}

/// What the policies of `workload` say of a connection (spec data-plane 13.3).
pub fn evaluate(view: &View, workload: &Workload, tuple: &Tuple, unknown: UnknownPolicy) -> Verdict {
    let subject = Subject::of(tuple);
    let policies = Applicable::new(view, workload, &subject);
    let mut verdict = Verdict { decision: Decision::NoAllowPolicies, dry_run: Vec::new(), skipped: Vec::new() };

    let dry = policies.matching(&subject, Action::Deny, DryRun::DryRun);
    verdict.dry_run.extend(dry.map(|deciding| DryRunHit::Match(Action::Deny, deciding)));
    if let Some(deciding) = policies.matching(&subject, Action::Deny, DryRun::Enforced).next() {
        verdict.decision = Decision::Denied(deciding);
        return verdict;
    }
    for name in policies.unknown() {
        match unknown {
            UnknownPolicy::Skip => verdict.skipped.push(name.clone()),
            UnknownPolicy::Deny => {
                verdict.decision = Decision::Unknown(name.clone());
                return verdict;
            }
        }
    }
    let enforced = policies.has(Action::Allow, DryRun::Enforced);
    let before = verdict.dry_run.len();
    let dry = policies.matching(&subject, Action::Allow, DryRun::DryRun);
    verdict.dry_run.extend(dry.map(|deciding| DryRunHit::Match(Action::Allow, deciding)));
    let none_matched = verdict.dry_run.len() == before;
    if none_matched && !enforced && policies.has(Action::Allow, DryRun::DryRun) {
        verdict.dry_run.push(DryRunHit::NoAllow);
    }
    if enforced {
        let allowed = policies.matching(&subject, Action::Allow, DryRun::Enforced).next();
        verdict.decision = allowed.map_or(Decision::NotAllowed, Decision::Allowed);
    }
    verdict
}

/// The policies that apply to a workload (spec data-plane 13.2): those of its namespace, the global ones, those that it
/// refers to; always in the same order.
struct Applicable<'a> {
    view: &'a View,
    workload: &'a Workload,
    /// Those that the workload refers to, if they are many.
    selection: Option<&'a Selection>,
    /// Those of which a rule may match; those that the workload refers to last, all of them if they are few.
    candidates: Vec<&'a Arc<Policy>>,
    /// Where the latter begin.
    referred: usize,
}

impl<'a> Applicable<'a> {
    fn new(view: &'a View, workload: &'a Workload, subject: &Subject<'_>) -> Self {
        let (probe, mut candidates) = (subject.probe(), Vec::new());
        view.policies_over(&workload.namespace).for_each(|set| set.find(&probe, &mut candidates));
        let (referred, selection) = (candidates.len(), view.selection(workload));
        match selection {
            Some(selection) => selection.policies.find(&probe, &mut candidates),
            None => candidates.extend(workload.authorization_policies.iter().filter_map(|key| view.policy(key))),
        }
        Self { view, workload, selection, candidates, referred }
    }

    fn of(&self, action: Action, dry_run: DryRun) -> impl Iterator<Item = &'a Arc<Policy>> {
        self.candidates.iter().copied().filter(is(action, dry_run))
    }

    /// Whether any policy of that kind applies, whether or not it may match.
    fn has(&self, action: Action, dry_run: DryRun) -> bool {
        let mut referred = self.candidates.iter().copied().skip(self.referred);
        referred.any(|policy| is(action, dry_run)(&policy))
            || self.selection.is_some_and(|selection| selection.policies.has(action, dry_run))
            || self.view.policies_over(&self.workload.namespace).any(|set| set.has(action, dry_run))
    }

    /// Those that match. What cannot be told for certain, because a part of the policy could not be read, denies.
    fn matching<'s>(
        &self,
        subject: &'s Subject<'_>,
        action: Action,
        dry_run: DryRun,
    ) -> impl Iterator<Item = Deciding> + use<'_, 'a, 's> {
        let enough = match action {
            Action::Allow => Truth::Yes,
            Action::Deny => Truth::Maybe,
        };
        self.of(action, dry_run).filter_map(move |policy| {
            let rule = policy.rules.iter().position(|rule| matching::rule(rule, subject) >= enough)?;
            Some(Deciding { policy: policy.clone(), rule })
        })
    }

    /// The keys that the workload refers to and that are not known.
    fn unknown(&self) -> impl Iterator<Item = &'a PolicyName> + use<'a> {
        let Self { view, workload, selection, .. } = *self;
        let all = if selection.is_none() { &workload.authorization_policies[..] } else { &[] };
        let looked_up = all.iter().filter(|key| view.policy(key).is_none());
        selection.into_iter().flat_map(|selection| selection.unknown.iter()).chain(looked_up)
    }
}

fn is(action: Action, dry_run: DryRun) -> impl Fn(&&Arc<Policy>) -> bool {
    move |policy| policy.action == action && policy.dry_run == dry_run
}

#[cfg(test)]
mod tests;
