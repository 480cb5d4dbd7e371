//! Connections that reach a pod: HBONE requests, and plain TCP.
//!
//! For both the steps are the same: find the local workload, admit, authorize, dial the app. The order of telemetry is
//! that of spec data-plane 10.2: refusals before the policies are early denials, what comes later is a record.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hbone::h2::{Header, Request};
use mesh::ask::{Halt, Learnt};
use mesh::authorize::{Denied, Verdict};
use mesh::permit::{Grant, Standing};
use mesh::{
    Admission, Cause, Decided, Direction, Flow, HboneRequest, Identity, Outcome, Permit, Refusal, Traceparent,
    Workload, admit_hbone, admit_plaintext, authorize,
};
use tokio::net::TcpStream;

use super::context::Context;
use super::tunnel::{Accepted, Answer};
use crate::net::dial::FirstBytes;
use crate::telemetry::Meter;

/// An inbound tunnel whose peer is known.
pub(super) struct InboundTunnel {
    pub(super) context: Arc<Context>,
    /// The peer's end of the TCP connection.
    pub(super) peer: SocketAddr,
    /// Our end of it.
    pub(super) local: SocketAddr,
    /// Who the peer has proven to be.
    pub(super) identity: Option<Identity>,
}

/// Whether there is something already that is to be passed on to the app of a request that is being decided.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<AtomicBool>);

impl Said {
    /// There is.
    pub(super) fn something(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn anything(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl InboundTunnel {
    /// Decides about a request, and connects the app if the answer is yes.
    pub(super) fn answer(
        self: &Arc<Self>,
        request: Request,
        said: Said,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let this = Arc::clone(self);
        Box::pin(async move { this.decide(&request, &said).await.into() })
    }

    /// The same for a connection that is not asked for by HTTP; the headers are those that the request would have.
    pub(super) async fn connect_for(self: &Arc<Self>, authority: &str, headers: &[(&'static str, String)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| Header::new(name, value)).collect();
        let request = Request { method: "CONNECT".into(), authority: Some(authority.into()), headers };
        self.decide(&request, &Said::default()).await.into()
    }

    /// Whether nothing has been published since a decision was made.
    pub(super) fn is_current(&self, version: u64) -> bool {
        self.context.views.version() == version
    }

    /// Whether a stream is still allowed; if not, how its record ends.
    pub(super) fn recheck(&self, standing: &Standing, patience: Patience) -> Result<(), TakenBack> {
        recheck(&self.context, standing, patience)
    }

    async fn decide(&self, request: &Request, said: &Said) -> Result<Box<Accepted>, Cause> {
        let asked = match self.context.local().await {
            Ok(workload) => {
                self.ask(self.context.settle(|learnt| self.admit(request, &workload, learnt)).await, request)
            }
            Err(refusal) => self.ask(Err(refusal), request),
        };
        let (asked, headers, prologue) = asked?;
        if !prologue.is_empty() {
            said.something();
        }
        let Connected { app, standing, decided_on, meter } = asked.connect(&self.context, said).await?;
        Ok(Box::new(Accepted { app, standing, decided_on, meter, headers, prologue }))
    }

    /// Asks the policies about what was admitted. With it come the headers of a 200, and what the app is told first.
    fn ask(&self, admitted: Result<Admission, Refusal>, request: &Request) -> Result<(Asked, Told, Vec<u8>), Cause> {
        let admission = admitted.map_err(|refusal| {
            self.context.deny_early(self.peer, self.local, Direction::Inbound, &refusal);
            refusal.cause()
        })?;
        let headers = admission.response_baggage().map(|baggage| ("baggage", baggage)).into_iter().collect();
        let prologue = admission.proxy_header().map(|header| header.encode()).unwrap_or_default();
        Ok((Asked::of(&self.context, admission, trace_of(request)), headers, prologue))
    }

    fn admit(&self, request: &Request, workload: &Arc<Workload>, learnt: &Learnt) -> Result<Admission, Halt> {
        let headers = &request.headers;
        let baggage: Vec<&[u8]> = headers.all("baggage").collect();
        let asked = HboneRequest {
            peer: self.peer,
            local: self.local,
            identity: self.identity.as_ref(),
            method: &request.method,
            authority: request.authority.as_deref().unwrap_or_default(),
            baggage: &baggage,
            forwarded: headers.get("forwarded"),
            forwarded_network: headers.get("x-forwarded-network"),
        };
        admit_hbone(&self.context.views.current().view, workload, &asked, learnt, &self.context.config.admit)
    }
}

/// Headers of an answer.
type Told = Vec<(&'static str, String)>;

/// The id that the peer gave the connection, or a new one.
fn trace_of(request: &Request) -> Traceparent {
    let given = request.headers.get("traceparent").and_then(Traceparent::parse);
    given.unwrap_or_else(super::random::first_known)
}

/// A plain connection that reached a pod, from accept to its app being connected. `None` if it is not to be.
pub(super) async fn accept_plaintext(
    context: &Context,
    peer: SocketAddr,
    original_destination: SocketAddr,
) -> Option<Connected> {
    let admitted = match context.local().await {
        Ok(workload) => {
            let admit = |learnt: &Learnt| {
                let view = &context.views.current().view;
                admit_plaintext(view, &workload, peer, original_destination, learnt, &context.config.admit)
            };
            context.settle(admit).await
        }
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(admission) => {
            Asked::of(context, admission, super::random::first_known()).connect(context, &Said::default()).await.ok()
        }
        Err(refusal) => {
            context.deny_early(peer, original_destination, Direction::Inbound, &refusal);
            None
        }
    }
}

/// An app that has been connected for somebody who may talk to it.
pub(super) struct Connected {
    pub(super) app: TcpStream,
    /// What it is checked by when policies change.
    pub(super) standing: Option<Box<Standing>>,
    /// Version of the view that the permit was given on.
    pub(super) decided_on: u64,
    pub(super) meter: Meter,
}

/// A connection that is on record, and what the policies said of it.
struct Asked {
    meter: Meter,
    answer: Result<(Permit, u64), Box<Denied>>,
}

impl Asked {
    /// Puts an admission on record and asks the policies.
    fn of(context: &Context, admission: Admission, trace: Traceparent) -> Self {
        let meter = context.telemetry.open(Arc::new(Flow::inbound(&admission, trace)));
        let now = context.views.current();
        let answer = authorize(&now.view, admission).map(|permit| (permit, now.version));
        Self { meter, answer }
    }

    /// Dials the app, if that is allowed. An error is what whoever asked is told.
    ///
    /// What is awaited is kept small, since there is one for each connection: nothing is in it twice.
    fn connect(self, context: &Context, said: &Said) -> impl Future<Output = Result<Connected, Cause>> + Send {
        let Self { mut meter, mut answer } = self;
        async move {
            if let Err(denied) = answer {
                answer = Box::pin(ask_again(context, denied)).await; // rare, and larger than all that is not
            }
            let (permit, decided_on) = match answer {
                Ok(allowed) => allowed,
                Err(denied) => {
                    context.telemetry.policy_decision(Some(&denied.verdict));
                    meter.decided(denied.refusal.denial().and_then(Decided::of_denial));
                    meter.finish(Outcome::failed(denied.refusal.cause(), denied.refusal.to_string()));
                    return Err(denied.refusal.cause());
                }
            };
            context.telemetry.policy_decision(verdict_of(&permit));
            meter.decided(verdict_of(&permit).and_then(|verdict| Decided::of(&verdict.decision)));
            let first_bytes = if said.anything() { FirstBytes::Ours } else { FirstBytes::Unknown };
            match context.dialer.dial(&permit, first_bytes).await {
                Ok(app) => {
                    meter.connected();
                    Ok(Connected { app, standing: permit.standing().map(Box::new), decided_on, meter })
                }
                Err(error) => {
                    meter.finish(Outcome::failed(Cause::AppUnreachable, format!("connection failed: {error}")));
                    Err(Cause::AppUnreachable)
                }
            }
        }
    }
}

/// Asks the policies once more if they denied for want of one that the workload refers to and that has not been announced:
/// it is waited for.
async fn ask_again(context: &Context, denied: Box<Denied>) -> Result<(Permit, u64), Box<Denied>> {
    if denied.refusal.need().is_none() {
        return Err(denied);
    }
    let admission = denied.admission;
    context.views.wait_for(|view| authorize(view, admission.clone()).map_or_else(settled, |_| Some(()))).await;
    let now = context.views.current();
    authorize(&now.view, admission).map(|permit| (permit, now.version))
}

/// Whether a denial is final, as opposed to one for want of an announcement.
fn settled(denied: Box<Denied>) -> Option<()> {
    denied.refusal.need().is_none().then_some(())
}

fn verdict_of(permit: &Permit) -> Option<&Verdict> {
    match permit.grant() {
        Grant::Inbound(_, verdict) => Some(verdict),
        Grant::Outbound(_) => None,
    }
}

/// What to make of a policy that a workload refers to and that is not there at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It may be on its way, as for a new connection: leave the connection alone for now.
    Wait,
    /// It has had its time.
    Final,
}

/// That a live connection is no longer allowed.
pub(super) struct TakenBack {
    /// How its record ends.
    pub(super) outcome: Outcome,
    /// The policy that says so, if it is one.
    pub(super) by: Option<Decided>,
}

impl TakenBack {
    /// Puts the connection on record.
    pub(super) fn finish(self, mut meter: Meter) {
        meter.decided(self.by);
        meter.finish(self.outcome);
    }
}

/// Whether a live connection is still allowed.
pub(super) fn recheck(context: &Context, standing: &Standing, patience: Patience) -> Result<(), TakenBack> {
    let Err(refusal) = standing.recheck(&context.views.current().view) else { return Ok(()) };
    if patience == Patience::Wait && refusal.need().is_some() {
        return Ok(());
    }
    let tuple = standing.tuple();
    let identity = tuple.identity.as_ref().map_or_else(|| "None".to_owned(), ToString::to_string);
    tracing::info!(
        "connection {}({identity})->{} ({}) closed because it's no longer allowed after a policy update",
        tuple.source,
        tuple.destination,
        standing.destination().uid,
    );
    refusal.denial().into_iter().for_each(|denial| context.telemetry.policy_cut(denial));
    let by = refusal.denial().and_then(Decided::of_denial);
    Err(TakenBack { outcome: Outcome::failed(refusal.cause(), refusal.to_string()), by })
}
