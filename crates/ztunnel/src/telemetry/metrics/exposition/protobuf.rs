//! Metrics as `io.prometheus.client.MetricFamily`: the messages, with the field numbers that Prometheus published, and how
//! they are filled from OpenMetrics text.
//!
//! Not here: summaries and native histograms, of which there are none.

use prost::Message;

use super::{Line, lines, older_name};

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) help: Option<String>,
    #[prost(enumeration = "MetricType", optional, tag = "3")]
    pub(super) r#type: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub(super) metric: Vec<Metric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum MetricType {
    Counter = 0,
    Gauge = 1,
    Untyped = 3,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Value>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Value>,
    #[prost(message, optional, tag = "5")]
    pub(super) untyped: Option<Value>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

/// A counter, a gauge or what is neither: the three messages look the same.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Value {
    #[prost(double, optional, tag = "1")]
    pub(super) value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub(super) sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub(super) cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) upper_bound: Option<f64>,
}

pub(super) fn encode(openmetrics: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(openmetrics.len() / 2);
    let mut family = MetricFamily::default();
    let mut help = None;
    for line in lines(openmetrics) {
        match line {
            Line::Help(text) => help = Some(unescaped(text)),
            Line::Type { family: name, kind } => {
                finish(&mut family, &mut out);
                family.name = Some(older_name(name, kind));
                family.help = help.take();
                family.r#type = Some(metric_type(kind).into());
            }
            Line::Sample { name, labels, value } => add(&mut family, name, pairs(labels), number(value)),
        }
    }
    finish(&mut family, &mut out);
    out
}

fn finish(family: &mut MetricFamily, out: &mut Vec<u8>) {
    let family = std::mem::take(family);
    if !family.metric.is_empty() {
        // A Vec takes everything.
        let _ = family.encode_length_delimited(out);
    }
}

fn metric_type(kind: &str) -> MetricType {
    match kind {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        _ => MetricType::Untyped,
    }
}

fn add(family: &mut MetricFamily, name: &str, mut label: Vec<LabelPair>, value: f64) {
    let some = Some(Value { value: Some(value) });
    let metric = match family.r#type() {
        MetricType::Counter => Metric { label, counter: some, ..Metric::default() },
        MetricType::Gauge => Metric { label, gauge: some, ..Metric::default() },
        MetricType::Untyped => Metric { label, untyped: some, ..Metric::default() },
        MetricType::Histogram => {
            let bound = label.extract_if(.., |pair| pair.name.as_deref() == Some("le")).next();
            return observe(family, name, label, bound, value);
        }
    };
    family.metric.push(metric);
}

/// Adds one sample of a histogram to the others with the same labels, which stand together.
fn observe(family: &mut MetricFamily, name: &str, label: Vec<LabelPair>, bound: Option<LabelPair>, value: f64) {
    if family.metric.last().is_none_or(|last| last.label != label) {
        family.metric.push(Metric { label, ..Metric::default() });
    }
    let Some(histogram) = family.metric.last_mut().map(|last| last.histogram.get_or_insert_default()) else { return };
    if name.ends_with("_sum") {
        histogram.sample_sum = Some(value);
    } else if name.ends_with("_count") {
        histogram.sample_count = Some(whole(value));
    } else if let Some(bound) = bound.and_then(|pair| pair.value) {
        let (cumulative_count, upper_bound) = (Some(whole(value)), Some(number(&bound)));
        histogram.bucket.push(Bucket { cumulative_count, upper_bound });
    }
}

/// Counts are printed as whole numbers.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
fn whole(count: f64) -> u64 {
    count as u64
}

/// A number of ours is always one.
fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or(f64::NAN),
    }
}

/// The labels between the braces.
fn pairs(mut labels: &str) -> Vec<LabelPair> {
    let mut pairs = Vec::new();
    while let Some((name, rest)) = labels.split_once("=\"") {
        let end = closing_quote(rest);
        let (value, rest) = rest.split_at(end);
        pairs.push(LabelPair { name: Some(name.to_owned()), value: Some(unescaped(value)) });
        labels = rest.trim_start_matches(['"', ',']);
    }
    pairs
}

/// Where the value ends.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return at,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match (character, character == '\\') {
            (_, true) => match rest.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (plain, false) => out.push(plain),
        }
    }
    out
}
