//! The `certificates` part of `/config_dump` (spec admin-and-telemetry 2).
//!
//! Shows what is in use at this moment, sorted by identity, keys in alphabetical order. Private keys are not reachable
//! from here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::certificate::{Certificate, rfc3339};
use super::{Published, Table};

/// All identities of the table as a JSON list.
pub(super) fn certificates(table: &Table) -> Value {
    let mut rows: Vec<(String, &Published)> = table.iter().map(|(id, state)| (id.to_string(), state)).collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    rows.into_iter().map(|(identity, state)| row(&identity, state)).collect()
}

fn row(identity: &str, state: &Published) -> Value {
    let (chain, roots) = match state {
        Published::Available(certificate) => (certificate.chain(), certificate.roots()),
        Published::Initializing | Published::Unavailable(_) => (&[][..], &[][..]),
    };
    json!({
        "certChain": chain.iter().map(described).collect::<Value>(),
        "identity": identity,
        "rootCerts": roots.iter().map(described).collect::<Value>(),
        "state": wording(state),
    })
}

/// What is known of an identity's certificate, in the dump's words.
pub(super) fn wording(state: &Published) -> String {
    match state {
        Published::Initializing => "Initializing".to_owned(),
        Published::Available(_) => "Available".to_owned(),
        Published::Unavailable(error) => format!("Unavailable: {error}"),
    }
}

fn described(certificate: &Certificate) -> Value {
    let validity = certificate.validity();
    json!({
        "expirationTime": rfc3339(validity.not_after),
        "pem": BASE64.encode(certificate.pem()),
        "serialNumber": certificate.serial(),
        "validFrom": rfc3339(validity.not_before),
    })
}

#[cfg(test)]
mod tests;
