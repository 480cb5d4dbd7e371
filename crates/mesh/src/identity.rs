//! Who a workload is: its SPIFFE identity.
//!
//! Exactly one form exists: trust domain, namespace, service account (spec identity-and-tls 1). Empty parts are
//! accepted, nothing is decoded or case-folded. Certificates are not known here.

use std::fmt;
use std::str::FromStr;

use crate::name::{Namespace, ServiceAccount, TrustDomain};

/// A SPIFFE identity, printed as `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Compared byte by byte, like the other parts.
    pub trust_domain: TrustDomain,
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Service account of the workload.
    pub service_account: ServiceAccount,
}

/// Text that is not a SPIFFE identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid spiffe identity: {0}")]
pub struct InvalidIdentity(pub String);

impl Identity {
    /// The scheme in front of every identity; policies name principals without it (spec data-plane 13.5).
    pub const SCHEME: &'static str = "spiffe://";
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.strip_prefix(Self::SCHEME)?.split('/');
            let trust_domain = parts.next()?;
            parts.next().filter(|part| *part == "ns")?;
            let namespace = parts.next()?;
            parts.next().filter(|part| *part == "sa")?;
            let service_account = parts.next()?;
            if parts.next().is_some() {
                return None;
            }
            Some(Self {
                trust_domain: trust_domain.into(),
                namespace: namespace.into(),
                service_account: service_account.into(),
            })
        };
        parse().ok_or_else(|| InvalidIdentity(text.to_owned()))
    }
}

impl Identity {
    /// As policies name it: without the scheme.
    pub fn principal(&self) -> String {
        [self.trust_domain.as_str(), "/ns/", self.namespace.as_str(), "/sa/", self.service_account.as_str()].concat()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/ns/{}/sa/{}", Self::SCHEME, self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_print_as_they_parse() {
        for text in ["spiffe://td/ns/shop/sa/cart", "spiffe://a.b-c/ns//sa/", "spiffe:///ns/x/sa/y"] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!((identity.to_string(), format!("{identity:?}")), (text.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn a_principal_is_an_identity_without_its_scheme() {
        let identity: Identity = "spiffe://td/ns/shop/sa/cart".parse().unwrap();
        assert_eq!(identity.principal(), "td/ns/shop/sa/cart");
        assert_eq!(format!("{}{}", Identity::SCHEME, identity.principal()), identity.to_string());
    }

    #[test]
    fn anything_but_five_parts_with_ns_and_sa_is_refused() {
        for text in [
            "",
            "td/ns/shop/sa/cart",
            "http://td/ns/shop/sa/cart",
            "spiffe://td/ns/shop/sa/cart/",
            "spiffe://td/ns/shop/sa",
            "spiffe://td/namespace/shop/sa/cart",
            "spiffe://td/ns/shop/account/cart",
            "SPIFFE://td/ns/shop/sa/cart",
        ] {
            let error = text.parse::<Identity>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid spiffe identity: {text}"));
        }
    }
}
