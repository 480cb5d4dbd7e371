//! Leave to dial: the proof that a decision was made, without which no peer socket is opened.
//!
//! There are two ways to get one: [`crate::Route::permit`] and [`crate::authorize()`].

use std::sync::Arc;

use crate::admit::{Admission, Tuple};
use crate::authorize::{UnknownPolicy, Verdict, evaluate};
use crate::refusal::Refusal;
use crate::route::{Hop, Route};
use crate::view::View;
use crate::workload::Workload;

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

    /// What a connection into a pod stands on from now on; `None` of one on its way out, which nobody takes back.
    pub fn standing(&self) -> Option<Standing> {
        match &self.0 {
            Granted::Outbound(_) => None,
            Granted::Inbound(admission, _) => Some(Standing {
                tuple: admission.tuple().clone(),
                destination: admission.destination().clone(),
                unknown_policy: admission.unknown_policy(),
            }),
        }
    }
}

/// What is left of a [`Permit`] while its connection lives: whatever asking again takes.
#[derive(Clone, Debug)]
pub struct Standing {
    tuple: Tuple,
    destination: Arc<Workload>,
    unknown_policy: UnknownPolicy,
}

impl Standing {
    /// The connection.
    pub fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    /// The local workload, as it was when the permit was given.
    pub fn destination(&self) -> &Arc<Workload> {
        &self.destination
    }

    /// Whether the connection is still allowed, by the same function that allowed it.
    ///
    /// The workload is looked up anew, so that a policy that selects it only now counts; one that has left the view is
    /// judged as it last was. If the refusal names a [`need`](Refusal::need), what is missing may only be late: wait
    /// for it, as briefly as a new connection would, before closing.
    pub fn recheck(&self, view: &View) -> Result<(), Refusal> {
        let workload = view.workload(&self.destination.uid).unwrap_or(&self.destination);
        match evaluate(view, workload, &self.tuple, self.unknown_policy).denial() {
            None => Ok(()),
            Some(denial) => Err(Refusal::NoLongerAllowed(denial)),
        }
    }
}
