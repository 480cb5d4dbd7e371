//! The `baggage` header: what a workload is called, for the telemetry of the other end (spec data-plane 6.4, W3C
//! Baggage §3.3).
//!
//! Values that the grammar does not allow are percent-encoded on the way out and decoded on the way in. Nothing that
//! is read here may be trusted for a decision: a peer writes what it likes.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use crate::workload::{Workload, WorkloadType};

/// What a peer says of itself; each part `None` if it says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Baggage {
    /// `k8s.cluster.name`.
    pub cluster: Option<Arc<str>>,
    /// `k8s.namespace.name`.
    pub namespace: Option<Arc<str>>,
    /// `k8s.deployment.name` and its like.
    pub workload_name: Option<Arc<str>>,
    /// `service.name`.
    pub service_name: Option<Arc<str>>,
    /// `service.version`.
    pub revision: Option<Arc<str>>,
    /// `cloud.region`.
    pub region: Option<Arc<str>>,
    /// `cloud.availability_zone`.
    pub zone: Option<Arc<str>>,
}

/// The header cannot be read: it is not visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("baggage header is not visible ASCII")]
pub struct InvalidBaggage;

/// Members read at most, over all lines (W3C Baggage §3.3.2 asks for at least 64): a peer cannot buy more work.
const MAX_MEMBERS: usize = 64;

/// The header's value for a workload; empty if there is nothing to say.
pub fn write(workload: &Workload) -> String {
    let mut value = String::with_capacity(192);
    let mut member = |key: std::fmt::Arguments<'_>, text: &str| {
        if text.is_empty() {
            return;
        }
        if !value.is_empty() {
            value.push(',');
        }
        let _ = write!(value, "{key}=");
        encode(&mut value, text);
    };
    member(format_args!("k8s.cluster.name"), workload.deployment.cluster_id.as_str());
    member(format_args!("k8s.namespace.name"), workload.namespace.as_str());
    member(format_args!("k8s.{}.name", workload.deployment.workload_type.as_str()), &workload.deployment.workload_name);
    member(format_args!("service.name"), &workload.deployment.canonical_name);
    member(format_args!("service.version"), &workload.deployment.canonical_revision);
    member(format_args!("cloud.region"), &workload.locality.region);
    member(format_args!("cloud.availability_zone"), &workload.locality.zone);
    value
}

/// Reads all lines of the header; of two values for one thing the later wins.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Baggage, InvalidBaggage> {
    let mut baggage = Baggage::default();
    let mut room = MAX_MEMBERS;
    for line in lines {
        let visible = line.iter().all(|b| (0x20..0x7f).contains(b) || *b == b'\t');
        let text = std::str::from_utf8(line).ok().filter(|_| visible).ok_or(InvalidBaggage)?;
        for member in text.split(',').take(room) {
            room -= 1;
            baggage.read(member);
        }
    }
    Ok(baggage)
}

impl Baggage {
    fn read(&mut self, member: &str) {
        // Properties after `;` say nothing about names.
        let Some((key, value)) = member.split(';').next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let slot = match key.trim() {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "service.name" => &mut self.service_name,
            "service.version" => &mut self.revision,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            key => match key.strip_prefix("k8s.").and_then(|rest| rest.strip_suffix(".name")) {
                Some(kind) if WorkloadType::ALL.iter().any(|t| t.as_str() == kind) => &mut self.workload_name,
                _ => return,
            },
        };
        let text = decode(value.trim());
        *slot = (!text.is_empty()).then(|| text.into());
    }
}

/// Appends `text`, percent-encoding what W3C Baggage §3.3.1.3 does not allow in a value, and `=`, at which older
/// peers stop reading.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_graphic() && !b"\"%,;=\\".contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Undoes percent-encoding; text that does not decode to UTF-8 without control characters is left as it is.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    return text.into();
                };
                out.push(high << 4 | low);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    match String::from_utf8(out) {
        Ok(decoded) if !decoded.chars().any(char::is_control) => decoded.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests;
