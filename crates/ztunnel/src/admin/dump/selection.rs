//! Which part of the dump is asked for: `/config_dump?resource=workloads&namespace=shop`.

use std::collections::BTreeSet;

/// The keys of the dump, in its order.
pub(super) const RESOURCES: [&str; 10] = [
    "certificates",
    "config",
    "policies",
    "rejectedResources",
    "services",
    "stagedServices",
    "staticConfig",
    "version",
    "workloadState",
    "workloads",
];

/// What is to be shown; by default everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Keys of the dump; `None` is all.
    resources: Option<BTreeSet<String>>,
    /// Of workloads, services and policies.
    namespace: Option<String>,
    /// Of workloads, services (or their host name) and policies.
    name: Option<String>,
    /// Of workloads.
    node: Option<String>,
}

/// A request that names something that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no resource {0}; there are {all}", all = RESOURCES.join(", "))]
pub struct UnknownResource(String);

impl Selection {
    /// Reads the parameters of a request; those that mean nothing are passed over.
    ///
    /// # Errors
    /// If a resource is asked for that there is not.
    pub fn of(query: &str) -> Result<Self, UnknownResource> {
        let mut selection = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "resource" => {
                    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                        let known = RESOURCES.iter().find(|known| known.eq_ignore_ascii_case(name));
                        let known = known.ok_or_else(|| UnknownResource(name.to_owned()))?;
                        selection.resources.get_or_insert_default().insert((*known).to_owned());
                    }
                }
                "namespace" => selection.namespace = Some(value.into_owned()),
                "name" => selection.name = Some(value.into_owned()),
                "node" => selection.node = Some(value.into_owned()),
                _ => {}
            }
        }
        Ok(selection)
    }

    /// Whether a key of the dump is to be shown.
    pub(super) fn shows(&self, resource: &str) -> bool {
        self.resources.as_ref().is_none_or(|wanted| wanted.contains(resource))
    }

    /// Whether something of that namespace with one of these names is to be shown.
    pub(super) fn takes(&self, namespace: &str, names: &[&str]) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| names.contains(&wanted.as_str()))
    }

    /// Whether a workload on that node is to be shown.
    pub(super) fn takes_node(&self, node: &str) -> bool {
        self.node.as_ref().is_none_or(|wanted| wanted == node)
    }
}
