//! The names that a name may stand for, in the order in which they are tried (spec state-and-dns 10.3).
//!
//! First the name as it is, then what Kubernetes' search domains would make of it, then what is left of it without a
//! search domain that a resolver has appended, again with what search domains would make of that. Each is tried as it
//! is, then with more and more of its first labels covered by a wildcard. Whatever holds on the way is put together in
//! one buffer.

use std::sync::Arc;

use super::{Hit, MAX_NAME, Question, Search};
use crate::service::Service;

pub(super) struct Candidates<'q, 'a> {
    pub(super) question: &'q Question<'a>,
    pub(super) text: &'q mut String,
}

impl<'a> Candidates<'_, 'a> {
    /// What the first candidate that is the name of something is the name of.
    pub(super) fn first_hit(mut self) -> Option<Hit<'a>> {
        let name = self.question.name;
        if let Some(service) = self.with_expansions(name) {
            return Some(Hit { service: service.0, canonical: None });
        }
        match &self.question.settings.search {
            Search::OfPod => {
                let (domain, namespace) = (&*self.question.settings.domain, self.question.client.namespace.as_str());
                let in_cluster = undotted_prefix(name, domain)?;
                let services = undotted_prefix(in_cluster, "svc");
                let own = services.and_then(|services| undotted_prefix(services, namespace));
                [own, services, Some(in_cluster)].into_iter().flatten().find_map(|stripped| self.stripped(stripped))
            }
            Search::These(domains) => {
                domains.iter().filter_map(|domain| undotted_prefix(name, domain)).find_map(|s| self.stripped(s))
            }
        }
    }

    /// A name without a search domain. It is told as a canonical name, unless a wildcard covers it.
    fn stripped(&mut self, name: &'a str) -> Option<Hit<'a>> {
        let (service, exactly) = self.with_expansions(name)?;
        Some(Hit { service, canonical: (exactly == Exactness::Exact).then_some(name) })
    }

    fn with_expansions(&mut self, name: &str) -> Option<Found<'a>> {
        let (domain, namespace) = (&*self.question.settings.domain, self.question.client.namespace.as_str());
        self.covered(&[name]).or_else(|| match name.split('.').count() {
            1 => self.covered(&[name, ".", namespace, ".svc.", domain]),
            2 => {
                let full = self.covered(&[name, ".svc.", domain]);
                full.or_else(|| self.covered(&[name, ".", namespace, ".svc.", domain]))
            }
            3 if name.ends_with(".svc") => {
                let full = self.covered(&[name, ".", domain]);
                full.or_else(|| self.covered(&[name, ".svc.", domain]))
            }
            3 => self.covered(&[name, ".svc.", domain]),
            4 if name.ends_with(".svc") => self.covered(&[name, ".", domain]),
            _ => None,
        })
    }

    /// The service of a name that is made of parts, or of the longest wildcard above it.
    fn covered(&mut self, parts: &[&str]) -> Option<Found<'a>> {
        self.text.clear();
        if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_NAME {
            return None;
        }
        parts.iter().for_each(|part| self.text.push_str(part));
        if !self.text.is_ascii() {
            return None; // no name of DNS, whatever the namespace is called
        }
        if let Some(service) = self.named(0) {
            return Some((service, Exactness::Exact));
        }
        // `x.y.z`, `*.y.z`, `*.z`: what is before a star is not looked at any more.
        let mut at = 0;
        while let Some(dot) = self.text[at..].find('.').map(|offset| at + offset) {
            if dot > at {
                self.text.replace_range(dot - 1..dot, "*");
                if let Some(service) = self.named(dot - 1) {
                    return Some((service, Exactness::Wildcard));
                }
            }
            at = dot + 1;
        }
        None
    }

    fn named(&self, from: usize) -> Option<&'a Arc<Service>> {
        self.question.meant(self.question.view.services_called(&self.text[from..]))
    }
}

type Found<'a> = (&'a Arc<Service>, Exactness);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exactness {
    Exact,
    Wildcard,
}

/// What stands before `.suffix`, if that is anything.
fn undotted_prefix<'n>(name: &'n str, suffix: &str) -> Option<&'n str> {
    name.strip_suffix(suffix)?.strip_suffix('.').filter(|rest| !rest.is_empty())
}
