//! What would become of a connection: `/debug/explain?src=&dst=`, in words and as JSON.
//!
//! What the data path would decide is asked of [`mesh::explain`], which asks the data path's own functions; added is what
//! only this process knows: certificates, open connections, and failures of the recent past.
//!
//! Not here: whether anybody answers. Nothing is dialled.

mod named;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh::explain::{Arrival, Forecast, Thought, Way};
use mesh::{Cause, Hop, Identity, Need, Refusal, Route, View, Workload};
use serde::Serialize;

use super::{Question, Sources, connections, failures, parameter};
use crate::identity::certificate::rfc3339;

/// The answer. Keys are in alphabetical order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The certificate that would be presented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Presented>,
    /// Where it would go.
    pub destination: Destination,
    /// What the service that is addressed could be served by.
    pub endpoints: Vec<Endpoint>,
    /// What it would fail with, if it is known that it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Expected>,
    /// The last failure between the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// What the policies would say.
    pub policy: Judgement,
    /// How it would get there.
    pub route: Path,
    /// Who would make it.
    pub source: Source,
    /// The tunnel that it would go through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// `allowed`, `refused` or `unknown`.
    pub verdict: &'static str,
    /// All of it for people.
    pub words: Vec<String>,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub struct Presented {
    /// Its end.
    pub expires: Option<String>,
    /// Whose it is.
    pub identity: String,
    /// As in the dump; `Unknown` if this ztunnel does not look after it.
    pub state: String,
}

/// What was asked for, and what it was taken for.
#[derive(Debug, Serialize)]
pub struct Destination {
    /// The address that an app would dial.
    pub address: SocketAddr,
    /// As it was asked.
    pub asked: String,
    /// The service of that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// An endpoint of the service.
#[derive(Debug, Serialize)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its network, if it is not ours.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The port at which it serves; `None` if it does not serve the port asked for.
    pub port: Option<u16>,
    /// Whether it is fit to serve.
    pub status: &'static str,
    /// Its key.
    pub uid: String,
}

/// What it would fail with: a row of `docs/troubleshooting.md`.
#[derive(Debug, Serialize)]
pub struct Expected {
    /// What the log of the client's ztunnel would say in `reason`; of the server's, if that one refuses.
    pub code: &'static str,
    /// The wording.
    pub error: String,
    /// What to do about it.
    pub hint: &'static str,
    /// Where to look.
    pub side: &'static str,
    /// How far it would come.
    pub stage: &'static str,
}

/// A failure that has happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Its code.
    pub code: &'static str,
    /// The wording.
    pub error: String,
    /// The code that the peer gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_reason: Option<String>,
    /// When.
    pub time: String,
}

/// What the policies would say.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// The wording of the decision log; `None` if nobody is asked or it is not known here.
    pub decision: Option<String>,
    /// What policies that are not enforced would have said.
    pub dry_run: Vec<String>,
    /// The policy that decides, `namespace/name`.
    pub policy: Option<String>,
    /// Which of its rules, counted from 0.
    pub rule: Option<usize>,
    /// Policies that are referred to and not known, and skipped.
    pub skipped: Vec<String>,
    /// The workload whose policies they are.
    pub workload: Option<String>,
}

/// How it would get there.
#[derive(Debug, Default, Serialize)]
pub struct Path {
    /// What a tunnel would be asked for.
    pub authority: Option<String>,
    /// Identities of which the next hop has to prove one.
    pub expect: Vec<String>,
    /// `hbone`, `double hbone`, `tcp`, `not captured`, `refused` or `unknown`.
    pub kind: &'static str,
    /// The address that would be dialled.
    pub next: Option<SocketAddr>,
    /// The workload there.
    pub workload: Option<String>,
}

/// Who would make the connection.
#[derive(Debug, Serialize)]
pub struct Source {
    /// Its identity.
    pub identity: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its node.
    pub node: String,
    /// Its key.
    pub uid: String,
}

/// Tunnels are shared by connections of the same identities to the same next hop.
#[derive(Debug, Serialize)]
pub struct Tunnel {
    /// Connections that are open through such tunnels.
    pub connections: usize,
}

/// Explains.
pub(super) fn explain(sources: &Sources, query: &str) -> Result<Explanation, Question> {
    let missing = |name| {
        Question::Unclear(format!("say src and dst, such as src=shop/web-1&dst=cart.shop:80; {name} is missing"))
    };
    let src = parameter(query, "src").ok_or_else(|| missing("src"))?;
    let dst = parameter(query, "dst").ok_or_else(|| missing("dst"))?;
    let now = sources.views.current();
    let view = &now.view;
    let source = named::workload(view, &sources.route.network, &src).ok_or_else(|| {
        Question::Unknown(format!("no workload is known as {src:?}; give its address, namespace/name or uid"))
    })?;
    let target = named::target(view, source, &sources.cluster_domain, &dst)?;
    let (route, admit) = (&sources.route, &sources.admit);
    let forecast = Thought { view, source, target, route, admit, now: Instant::now() }.forecast();
    Ok(Explainer { sources, view, source, target, forecast }.explain(dst))
}

struct Explainer<'a> {
    sources: &'a Sources,
    view: &'a View,
    source: &'a Arc<Workload>,
    target: SocketAddr,
    forecast: Forecast,
}

impl Explainer<'_> {
    fn explain(&self, asked: String) -> Explanation {
        let certificate = self.certificate();
        let mut explanation = Explanation {
            destination: Destination {
                address: self.target,
                asked,
                service: self.service().map(|key| key.to_string()),
            },
            endpoints: self.endpoints(),
            failure: self.failure(certificate.as_ref()),
            certificate,
            last_failure: self.last_failure(),
            policy: self.judgement(),
            route: self.path(),
            source: Source {
                identity: self.source.identity().to_string(),
                name: self.source.name.to_string(),
                namespace: self.source.namespace.as_str().to_owned(),
                node: self.source.node.as_str().to_owned(),
                uid: self.source.uid.as_str().to_owned(),
            },
            tunnel: self.tunnel(),
            verdict: "allowed",
            words: Vec::new(),
        };
        if explanation.failure.is_some() {
            explanation.verdict = "refused";
        } else if matches!(self.forecast.way, Way::Unsettled(_))
            || matches!(self.forecast.arrival, Arrival::Unsettled(_) | Arrival::Elsewhere)
        {
            explanation.verdict = "unknown";
        }
        explanation.words = words::of(&explanation, &self.forecast, self.sources.node.as_deref());
        explanation
    }

    fn route(&self) -> Option<&Route> {
        match &self.forecast.way {
            Way::Route(route) => Some(route),
            Way::Plain | Way::Refused(_) | Way::Unsettled(_) => None,
        }
    }

    fn path(&self) -> Path {
        let names = |identities: &[Identity]| identities.iter().map(ToString::to_string).collect();
        let route = match &self.forecast.way {
            Way::Plain => return Path { kind: "not captured", next: Some(self.target), ..Path::default() },
            Way::Refused(_) => return Path { kind: "refused", ..Path::default() },
            Way::Unsettled(_) => return Path { kind: "unknown", ..Path::default() },
            Way::Route(route) => route,
        };
        let (next, workload) =
            (Some(route.hop.dial()), route.destination.as_ref().map(|one| one.uid.as_str().to_owned()));
        match &route.hop {
            Hop::Tcp { .. } => Path { kind: "tcp", next, workload, ..Path::default() },
            Hop::Hbone { authority, expect, .. } => {
                let authority = Some(authority.to_string());
                Path { authority, expect: names(expect), kind: "hbone", next, workload }
            }
            Hop::DoubleHbone { authority, gateway_expect, .. } => {
                let authority = Some(authority.to_string());
                Path { authority, expect: names(gateway_expect), kind: "double hbone", next, workload }
            }
        }
    }

    /// The service that the address belongs to, as the source sees it.
    fn service(&self) -> Option<mesh::NamespacedHostname> {
        let address = mesh::NetworkAddress::new(self.source.network.clone(), self.target.ip());
        self.view.service_at(&address, Some(&self.source.namespace)).map(|service| service.key())
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let Some(key) = self.service() else { return Vec::new() };
        let own = &self.sources.route.network;
        let mut endpoints: Vec<Endpoint> = self
            .view
            .endpoints(&key)
            .map(|endpoint| Endpoint {
                addresses: endpoint.workload.addresses.to_vec(),
                network: if endpoint.workload.network == *own {
                    String::new()
                } else {
                    endpoint.workload.network.as_str().to_owned()
                },
                port: endpoint.ports.get(self.target.port()),
                status: match endpoint.workload.status {
                    mesh::workload::Health::Healthy => "Healthy",
                    mesh::workload::Health::Unhealthy => "Unhealthy",
                },
                uid: endpoint.workload.uid.as_str().to_owned(),
            })
            .collect();
        endpoints.sort_by(|a, b| a.uid.cmp(&b.uid));
        endpoints
    }

    fn certificate(&self) -> Option<Presented> {
        if !matches!(self.route()?.hop, Hop::Hbone { .. } | Hop::DoubleHbone { .. }) {
            return None;
        }
        let identity = self.source.identity();
        let known = self.sources.identities.states().into_iter().find(|(known, ..)| *known == identity);
        Some(match known {
            Some((identity, state, until)) => {
                let expired = until.is_some_and(|until| until < SystemTime::now());
                let state = if expired { "Expired".to_owned() } else { state };
                Presented { expires: until.map(rfc3339), identity: identity.to_string(), state }
            }
            None => Presented { expires: None, identity: identity.to_string(), state: "Unknown".to_owned() },
        })
    }

    fn tunnel(&self) -> Option<Tunnel> {
        let hop = &self.route()?.hop;
        if matches!(hop, Hop::Tcp { .. }) {
            return None;
        }
        let connections = connections::between(&self.sources.telemetry, &self.source.identity(), hop.dial());
        Some(Tunnel { connections })
    }

    fn judgement(&self) -> Judgement {
        let Arrival::Judged(workload, verdict) = &self.forecast.arrival else { return Judgement::default() };
        let deciding = verdict.decision.deciding();
        let dry_run = verdict.dry_run.iter().map(|hit| match hit.deciding() {
            Some(deciding) => format!("{}: {deciding}", hit.as_str()),
            None => hit.as_str().to_owned(),
        });
        Judgement {
            decision: Some(verdict.decision.as_str().to_owned()),
            dry_run: dry_run.collect(),
            policy: deciding.map(ToString::to_string),
            rule: deciding.map(|deciding| deciding.rule),
            skipped: verdict.skipped.iter().map(|name| name.as_str().to_owned()).collect(),
            workload: Some(workload.uid.as_str().to_owned()),
        }
    }

    /// What is known to go wrong, the first thing first.
    fn failure(&self, certificate: Option<&Presented>) -> Option<Expected> {
        if let Way::Refused(refusal) = &self.forecast.way {
            return Some(expected(refusal.cause(), refusal.to_string()));
        }
        if let Some(Presented { state, .. }) = certificate
            && (state.starts_with("Unavailable") || state == "Expired")
        {
            return Some(expected(Cause::NoCertificate, format!("identity error: {state}")));
        }
        match &self.forecast.arrival {
            Arrival::Refused(_, refusal) => Some(expected(refusal.cause(), refusal.to_string())),
            Arrival::Judged(_, verdict) => {
                let refusal = Refusal::Denied(verdict.denial()?);
                Some(expected(refusal.cause(), refusal.to_string()))
            }
            Arrival::Nowhere | Arrival::Elsewhere | Arrival::Unenforced | Arrival::Unsettled(_) => None,
        }
    }

    fn last_failure(&self) -> Option<LastFailure> {
        let (last, _) = self.sources.telemetry.failures();
        let addresses = &self.source.addresses;
        let to = |address: SocketAddr| {
            address == self.target || self.route().is_some_and(|route| route.hop.dial() == address)
        };
        let same = last.iter().find(|failure| {
            let original = failure.record.as_ref().map(|record| record.flow.original_destination);
            addresses.contains(&failure.source.ip())
                && original.map_or_else(|| to(failure.destination), |it| it == self.target)
        })?;
        let row = failures::row(same);
        Some(LastFailure { code: row.code, error: row.error, peer_reason: row.peer_reason, time: row.time })
    }
}

fn expected(cause: Cause, error: String) -> Expected {
    let meaning = cause.meaning();
    Expected {
        code: meaning.code,
        error,
        hint: meaning.hint,
        side: meaning.side.as_str(),
        stage: meaning.stage.as_str(),
    }
}

/// What would have to be found out first.
fn needed(need: &Need) -> String {
    match need {
        Need::LocalWorkload(who) => format!("the control plane's word on {who}"),
        Need::Address(address) => format!("the control plane's word on the address {address}"),
        Need::Host(name) => format!("the control plane's word on the host {name}"),
        Need::Policy(name) => format!("the policy {name}"),
        Need::Resolve { hostname, .. } => format!("the address of {hostname}, by DNS"),
    }
}
