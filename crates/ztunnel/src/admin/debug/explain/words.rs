//! An explanation in sentences, in the order in which things would happen.

use mesh::explain::{Arrival, Forecast, Way};

use super::{Explanation, Path, Presented, needed};

pub(super) fn of(explanation: &Explanation, forecast: &Forecast, node: Option<&str>) -> Vec<String> {
    let mut words = vec![who(explanation, node)];
    words.extend(endpoints(explanation));
    words.push(way(explanation, forecast));
    words.extend(explanation.certificate.as_ref().map(certificate));
    words.extend(explanation.tunnel.as_ref().map(|tunnel| match tunnel.connections {
        0 => "No open connection uses such a tunnel; one would be dialled unless one is kept.".to_owned(),
        1 => "1 open connection uses such a tunnel.".to_owned(),
        many => format!("{many} open connections use such tunnels."),
    }));
    words.extend(arrival(explanation, forecast));
    words.extend(explanation.last_failure.as_ref().map(|last| {
        let peer = last.peer_reason.as_ref().map(|reason| format!(" (the peer: {reason})")).unwrap_or_default();
        format!("The last failure between the two was at {}: {}{peer}: {}", last.time, last.code, last.error)
    }));
    words.push(match (&explanation.failure, explanation.verdict) {
        (Some(failure), _) => format!(
            "It would fail: {} (reason {}, stage {}, side {}). {}",
            failure.error, failure.code, failure.stage, failure.side, failure.hint
        ),
        (None, "unknown") => "Whether it would succeed is not decided here.".to_owned(),
        (None, _) => "Nothing that is known here would stop it.".to_owned(),
    });
    words
}

fn who(explanation: &Explanation, node: Option<&str>) -> String {
    let (source, destination) = (&explanation.source, &explanation.destination);
    let elsewhere = node.is_some_and(|node| !source.node.is_empty() && source.node != node);
    let place = if elsewhere {
        format!(" on node {}, whose ztunnel would decide in our place,", source.node)
    } else {
        String::new()
    };
    let service = match &destination.service {
        Some(service) => format!(", an address of the service {service}"),
        None => String::new(),
    };
    format!(
        "{}/{} ({}){place} would dial {}{service}.",
        source.namespace, source.name, source.identity, destination.address
    )
}

fn endpoints(explanation: &Explanation) -> Option<String> {
    let service = explanation.destination.service.as_ref()?;
    let all = explanation.endpoints.len();
    let healthy = explanation.endpoints.iter().filter(|one| one.status == "Healthy").count();
    let port = explanation.destination.address.port();
    let serving = explanation.endpoints.iter().filter(|one| one.status == "Healthy" && one.port.is_some()).count();
    Some(format!(
        "{service} has {all} endpoints, of which {healthy} are healthy and {serving} of those serve port {port}."
    ))
}

fn way(explanation: &Explanation, forecast: &Forecast) -> String {
    let Path { authority, expect, next, workload, .. } = &explanation.route;
    let next = next.map(|next| next.to_string()).unwrap_or_default();
    let workload = workload.as_ref().map(|uid| format!(" ({uid})")).unwrap_or_default();
    let authority = authority.clone().unwrap_or_default();
    let expect = expect.join(" or ");
    match (&forecast.way, explanation.route.kind) {
        (Way::Plain, _) => "Its connections are not captured: it is not in the mesh.".to_owned(),
        (Way::Refused(refusal), _) => format!("There is no route: {refusal}."),
        (Way::Unsettled(need), _) => format!("Routing would first find out {}.", needed(need)),
        (Way::Route(_), "tcp") => format!("It would go to {next}{workload} in plain TCP."),
        (Way::Route(_), kind) => {
            format!(
                "It would go by {kind} to {next}{workload}, asking for {authority}; the next hop has to be {expect}."
            )
        }
    }
}

fn certificate(presented: &Presented) -> String {
    let Presented { expires, identity, state } = presented;
    match (state.as_str(), expires) {
        ("Available", Some(expires)) => format!("The certificate of {identity} is there and good until {expires}."),
        ("Unknown", _) => format!("This ztunnel does not look after a certificate of {identity} at the moment."),
        (state, _) => format!("The certificate of {identity}: {state}."),
    }
}

fn arrival(explanation: &Explanation, forecast: &Forecast) -> Vec<String> {
    let policy = &explanation.policy;
    match &forecast.arrival {
        Arrival::Nowhere => Vec::new(),
        Arrival::Elsewhere => {
            vec![
                "A waypoint, a gateway or the network in between decides where it ends, and whether it may.".to_owned(),
            ]
        }
        Arrival::Unenforced => vec!["The destination is not in the mesh: no policies are enforced there.".to_owned()],
        Arrival::Refused(workload, refusal) => {
            vec![format!("The ztunnel of {} would refuse it: {refusal}.", workload.uid)]
        }
        Arrival::Unsettled(need) => vec![format!("The destination's ztunnel would first find out {}.", needed(need))],
        Arrival::Judged(workload, verdict) => {
            let by = match (&policy.policy, policy.rule) {
                (Some(policy), Some(rule)) => format!(" (policy {policy}, rule {rule})"),
                _ => String::new(),
            };
            let said = format!("The policies of {} say: {}{by}.", workload.uid, verdict.decision.as_str());
            let dry = policy.dry_run.iter().map(|hit| format!("Not enforced: {hit}."));
            std::iter::once(said).chain(dry).collect()
        }
    }
}
