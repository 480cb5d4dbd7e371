//! Names of single pods, as Kubernetes gives them.
//!
//! `<pod>.<service>.<namespace>.svc.<domain>` for endpoints of headless services, where `<pod>` is the name of the pod
//! (of a stateful set) or its address with dashes; `<address>.<namespace>.pod.<domain>`. Only names that are written out
//! in full mean that; what is not found may still be known to the cluster's own resolver.

use std::net::IpAddr;
use std::sync::Arc;

use super::Question;
use crate::address::NetworkAddress;
use crate::name::Uid;
use crate::service::{HealthPolicy, Service};
use crate::workload::{Health, Workload};

/// The workload of such a name, if it is in the client's network.
pub(super) fn find<'a>(question: &Question<'a>) -> Option<&'a Arc<Workload>> {
    let found = match question.below_services(question.name) {
        Some(labels) => of_service(question, labels),
        None => of_namespace(question, question.name.strip_suffix(&*question.settings.domain)?.strip_suffix(".pod.")?),
    };
    found.filter(|workload| workload.network == question.client.network)
}

fn of_namespace<'a>(question: &Question<'a>, labels: &str) -> Option<&'a Arc<Workload>> {
    let (address, namespace) = labels.split_once('.')?;
    let address = NetworkAddress::new(question.client.network.clone(), dashed(address)?);
    question.view.workload_at(&address).filter(|workload| workload.namespace.as_str() == namespace)
}

fn of_service<'a>(question: &Question<'a>, labels: &str) -> Option<&'a Arc<Workload>> {
    let (first, rest) = labels.split_once('.')?;
    let namespace = rest.split_once('.').map(|(_, namespace)| namespace).filter(|n| !n.contains('.'))?;
    let hostname = question.name.get(first.len() + 1..)?;
    let mut all = question.view.services_called(hostname).iter();
    let service = all.rfind(|s| s.namespace.as_str() == namespace && s.vips.is_empty() && question.may_tell(s))?;
    let found = match dashed(first) {
        Some(ip) => at(question, service, ip),
        None => called(question, service, first),
    };
    // Whether endpoints that are not ready have names is for the cluster's own resolver to say.
    let all = service.extras.load_balancer.as_ref().is_some_and(|lb| lb.health == HealthPolicy::AllowAll);
    found.filter(|workload| all || workload.status == Health::Healthy)
}

fn at<'a>(question: &Question<'a>, service: &Service, ip: IpAddr) -> Option<&'a Arc<Workload>> {
    let address = NetworkAddress::new(question.client.network.clone(), ip);
    let mut all = question.view.workloads_at(&address).iter();
    all.find(|workload| question.view.endpoint(&service.key(), &workload.uid).is_some())
}

/// By the key that such a pod has in the client's own cluster, or else by going through all endpoints: pods of other
/// clusters are rarely asked for by name.
fn called<'a>(question: &Question<'a>, service: &Service, name: &str) -> Option<&'a Arc<Workload>> {
    let (view, key) = (question.view, service.key());
    let (cluster, namespace) = (&question.client.deployment.cluster_id, &service.namespace);
    let likely: Uid = format!("{cluster}//Pod/{namespace}/{name}").into();
    let is = |workload: &Workload| workload.namespace == *namespace && *workload.name == *name;
    let found = view.endpoint(&key, &likely).filter(|endpoint| is(endpoint.workload));
    found.or_else(|| view.endpoints(&key).find(|endpoint| is(endpoint.workload))).map(|endpoint| endpoint.workload)
}

/// An address whose dots or colons are dashes, since a label has none.
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse().map(IpAddr::V6)).ok()
}
