//! The forms in which metrics are handed out: OpenMetrics text, the older Prometheus text, and Prometheus' protobuf.
//!
//! Everything is printed as OpenMetrics once; the other two are made from that text, line by line, so that there is one
//! place where metrics are walked. Invariant: all three say the same.

mod protobuf;

use std::io::Write;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

/// How metrics are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// What the body looks like.
    pub form: Form,
    /// What is done to it.
    pub coding: Coding,
}

/// What metrics look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// `io.prometheus.client.MetricFamily`, each behind its length.
    Protobuf,
}

/// What a body is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Nothing.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
}

impl Exposition {
    /// The body made from OpenMetrics text of ours.
    pub(super) fn of(self, openmetrics: String) -> Vec<u8> {
        let body = match self.form {
            Form::OpenMetrics => openmetrics.into_bytes(),
            Form::Text => older_text(&openmetrics).into_bytes(),
            Form::Protobuf => protobuf::encode(&openmetrics),
        };
        match self.coding {
            Coding::Identity => body,
            Coding::Gzip => gzip(&body),
        }
    }
}

/// As quickly as it goes: label sets repeat themselves, so that there is little to gain by looking longer.
fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Level::fast());
    // A Vec takes everything.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

/// What a line of OpenMetrics text says.
enum Line<'a> {
    Help(&'a str),
    Type { family: &'a str, kind: &'a str },
    Sample { name: &'a str, labels: &'a str, value: &'a str },
}

/// The lines that say something.
fn lines(openmetrics: &str) -> impl Iterator<Item = Line<'_>> {
    openmetrics.lines().filter_map(line)
}

fn line(line: &str) -> Option<Line<'_>> {
    if let Some(comment) = line.strip_prefix("# ") {
        let (what, rest) = comment.split_once(' ')?;
        let (family, text) = rest.split_once(' ')?;
        return match what {
            "HELP" => Some(Line::Help(text)),
            "TYPE" => Some(Line::Type { family, kind: text }),
            _ => None,
        };
    }
    // Values contain no spaces; those of labels may.
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    Some(Line::Sample { name, labels, value })
}

/// What families of a type are called where a family is called as its samples are.
fn older_name(family: &str, kind: &str) -> String {
    if kind == "counter" { format!("{family}_total") } else { family.to_owned() }
}

fn older_text(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in lines(openmetrics) {
        match line {
            // Its name depends on the type, which comes next.
            Line::Help(text) => help = text,
            Line::Type { family, kind } => {
                let name = older_name(family, kind);
                // In this format, quotes in it stand for themselves.
                let help = std::mem::take(&mut help).replace("\\\"", "\"");
                out += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            Line::Sample { name, labels: "", value } => out.extend([name, " ", value, "\n"]),
            Line::Sample { name, labels, value } => out.extend([name, "{", labels, "} ", value, "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests;
