//! Leave to dial: the proof that a decision was made, without which no peer socket is opened.
//!
//! There are two ways to get one: [`crate::Route::permit`] and [`crate::authorize()`].

use crate::admit::Admission;
use crate::authorize::{Verdict, evaluate};
use crate::refusal::Refusal;
use crate::route::{Hop, Route};
use crate::view::View;

/// Leave to open a connection to a peer or an app; what to dial is inside.
#[derive(Clone, Debug)]
pub struct Permit(Granted);

#[derive(Clone, Debug)]
enum Granted {
    Outbound(Box<Route>),
    Inbound(Box<Admission>, Box<Verdict>),
}

/// What a permit was granted for.
#[derive(Clone, Copy, Debug)]
pub enum Grant<'a> {
    /// A connection out of a pod.
    Outbound(&'a Route),
    /// A connection into a pod, and what the policies said of it.
    Inbound(&'a Admission, &'a Verdict),
}

impl Permit {
    pub(crate) fn outbound(route: Route) -> Self {
        Self(Granted::Outbound(Box::new(route)))
    }

    pub(crate) fn inbound(admission: Admission, verdict: Verdict) -> Self {
        Self(Granted::Inbound(Box::new(admission), Box::new(verdict)))
    }

    /// What it was granted for.
    pub fn grant(&self) -> Grant<'_> {
        match &self.0 {
            Granted::Outbound(route) => Grant::Outbound(route),
            Granted::Inbound(admission, verdict) => Grant::Inbound(admission, verdict),
        }
    }

    /// How to get to the next hop: of a connection into a pod, the app, in plain TCP.
    pub fn hop(&self) -> Hop {
        match &self.0 {
            Granted::Outbound(route) => route.hop.clone(),
            Granted::Inbound(admission, _) => Hop::Tcp { target: admission.app() },
        }
    }

    /// Whether the connection is still allowed, by the same function that allowed it.
    ///
    /// The workload is looked up anew, so that a policy that selects it only now counts; one that has left the view is
    /// judged as it last was. If the refusal names a [`need`](Refusal::need), what is missing may only be late: wait
    /// for it, as briefly as a new connection would, before closing.
    pub fn recheck(&self, view: &View) -> Result<(), Refusal> {
        let Granted::Inbound(admission, _) = &self.0 else {
            return Ok(());
        };
        let captured = admission.destination();
        let workload = view.workload(&captured.uid).unwrap_or(captured);
        match evaluate(view, workload, admission.tuple(), admission.unknown_policy()).denial() {
            None => Ok(()),
            Some(denial) => Err(Refusal::NoLongerAllowed(denial)),
        }
    }
}
