use std::io::Read;

use prost::Message;

use super::protobuf::{LabelPair, MetricFamily, MetricType};
use super::*;

/// Something of each type, a label value with everything that is escaped, and a unit.
const TEXT: &str = "\
# HELP requests All \\\"requests\\\".
# TYPE requests counter
requests_total{path=\"/a b\",odd=\"x\\\"},y=\\\\\\n\"} 7
requests_total{path=\"/\",odd=\"\"} 1
# HELP open Open ones.
# TYPE open gauge
open -3
# HELP took_seconds Time.
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_sum{of=\"a\"} 0.75
took_seconds_count{of=\"a\"} 2
took_seconds_bucket{le=\"0.5\",of=\"a\"} 1
took_seconds_bucket{le=\"+Inf\",of=\"a\"} 2
# EOF
";

fn expose(form: Form) -> Vec<u8> {
    Exposition { form, coding: Coding::Identity }.of(TEXT.to_owned())
}

#[test]
fn openmetrics_is_handed_out_as_it_is() {
    assert_eq!(expose(Form::OpenMetrics), TEXT.as_bytes());
}

#[test]
fn the_older_text_names_counters_as_their_samples_are_named() {
    let expected = "\
# HELP requests_total All \"requests\".
# TYPE requests_total counter
requests_total{path=\"/a b\",odd=\"x\\\"},y=\\\\\\n\"} 7
requests_total{path=\"/\",odd=\"\"} 1
# HELP open Open ones.
# TYPE open gauge
open -3
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum{of=\"a\"} 0.75
took_seconds_count{of=\"a\"} 2
took_seconds_bucket{le=\"0.5\",of=\"a\"} 1
took_seconds_bucket{le=\"+Inf\",of=\"a\"} 2
";
    assert_eq!(String::from_utf8(expose(Form::Text)).unwrap(), expected);
}

#[test]
fn protobuf_says_the_same() {
    let body = expose(Form::Protobuf);
    let mut rest = body.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    let [requests, open, took] = families.try_into().unwrap();
    assert_eq!((requests.name(), requests.help()), ("requests_total", "All \"requests\"."));
    assert_eq!(requests.r#type(), MetricType::Counter);
    let pair = |name: &str, value: &str| LabelPair { name: Some(name.to_owned()), value: Some(value.to_owned()) };
    assert_eq!(requests.metric[0].label, [pair("path", "/a b"), pair("odd", "x\"},y=\\\n")]);
    assert_eq!(requests.metric[0].counter.unwrap().value(), 7.0);
    assert_eq!(requests.metric.len(), 2);
    assert_eq!((open.r#type(), open.metric[0].gauge.unwrap().value()), (MetricType::Gauge, -3.0));
    let histogram = took.metric[0].histogram.clone().unwrap();
    assert_eq!((took.metric.len(), histogram.sample_count(), histogram.sample_sum()), (1, 2, 0.75));
    let buckets: Vec<_> = histogram.bucket.iter().map(|b| (b.upper_bound(), b.cumulative_count())).collect();
    assert_eq!(buckets, [(0.5, 1), (f64::INFINITY, 2)]);
}

#[test]
fn what_is_compressed_comes_out_as_it_went_in() {
    let body = Exposition { form: Form::OpenMetrics, coding: Coding::Gzip }.of(TEXT.repeat(50));
    assert!(body.len() < TEXT.len() * 5);
    let mut text = String::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, TEXT.repeat(50));
}
