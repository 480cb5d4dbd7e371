//! Where the control plane is: `https://HOST:PORT` or `unix:///PATH`.
//!
//! Plain HTTP over a network is refused: tokens would cross it in the clear.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::Authority;

/// Port of `https` where none is given (RFC 9110 §4.2.2).
const HTTPS: u16 = 443;

/// A place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TLS over TCP.
    Tls {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Both as they were written, for `:authority`.
        authority: Authority,
    },
    /// A Unix socket, without TLS.
    Unix(PathBuf),
}

/// Text that is no address of a control plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid uri: {0}; write https://HOST:PORT or unix:///PATH")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    /// A path behind the port is dropped; `https` is meant where no scheme is given (spec wire-protocols 6.1).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(invalid()) };
        }
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = full.parse().map_err(|_| invalid())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(invalid)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err(invalid());
        }
        let port = match authority.as_str().len() - authority.host().len() {
            0 => HTTPS,
            _ => authority.port_u16().ok_or_else(invalid)?,
        };
        Ok(Self::Tls { host: host.to_owned(), port, authority: authority.clone() })
    }
}

impl Address {
    /// Scheme and authority of requests. A Unix socket has no authority of its own.
    #[must_use]
    pub fn origin(&self) -> Uri {
        match self {
            Self::Tls { authority, .. } => {
                let origin = Uri::builder().scheme("https").authority(authority.clone()).path_and_query("/").build();
                origin.unwrap_or_default() // an authority that was parsed is one
            }
            Self::Unix(_) => Uri::from_static("http://localhost/"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { authority, .. } => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports_or_sockets() {
        for (text, host, port, origin) in [
            ("https://istiod.istio-system.svc:15012", "istiod.istio-system.svc", 15012, None),
            ("istiod:15012", "istiod", 15012, Some("https://istiod:15012/")),
            ("https://istiod", "istiod", 443, Some("https://istiod/")),
            ("https://[::1]:15012/ignored", "::1", 15012, Some("https://[::1]:15012/")),
        ] {
            let address: Address = text.parse().unwrap();
            assert!(
                matches!(&address, Address::Tls { host: h, port: p, .. } if h == host && *p == port),
                "{address:?}"
            );
            assert_eq!(address.origin().to_string(), origin.map_or(format!("{text}/"), str::to_owned));
        }
        assert_eq!("unix:///run/istiod.sock".parse(), Ok(Address::Unix("/run/istiod.sock".into())));
    }

    #[test]
    fn plain_http_and_nonsense_are_refused_by_name() {
        for text in
            ["http://istiod:15010", "https://", "unix://relative", "ftp://x", "https://u@h:1", "https://h:x", ""]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("invalid uri: {text};")), "{error}");
        }
    }
}
