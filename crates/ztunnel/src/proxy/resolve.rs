//! Addresses of endpoints that are known by host name only (spec data-plane 4.6).

use std::time::Duration;

use mesh::Hostname;
use mesh::ask::Resolution;

/// How long a name may take; the resolver's own retries fit in.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses used of one answer; no real name has more, and none is needed.
const MAX_ADDRESSES: usize = 64;

/// Asks the resolver of this process's own namespace.
pub(super) async fn resolve(hostname: &Hostname) -> Resolution {
    let lookup = tokio::net::lookup_host((hostname.as_str().to_owned(), 0));
    match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => Resolution::Addresses(addresses.take(MAX_ADDRESSES).map(|a| a.ip()).collect()),
        Ok(Err(error)) => {
            tracing::debug!(%hostname, %error, "failed to resolve");
            Resolution::Failed
        }
        Err(_) => {
            tracing::debug!(%hostname, "resolving timed out");
            Resolution::Failed
        }
    }
}
