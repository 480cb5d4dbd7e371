//! Which form of the metrics a scraper gets: the one that it likes best of those that there are (RFC 9110 §12.5).

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::telemetry::metrics::{Coding, Exposition, Form};

/// The forms by name, the first of those that are liked equally wins.
const FORMS: [(&str, Form); 3] = [
    ("application/openmetrics-text", Form::OpenMetrics),
    ("text/plain", Form::Text),
    ("application/vnd.google.protobuf", Form::Protobuf),
];
/// The one message that is understood of those that `application/vnd.google.protobuf` may mean.
const MESSAGE: &str = "io.prometheus.client.MetricFamily";

/// What to answer to a request with these headers. Who asks for nothing that there is gets the older text.
pub(super) fn exposition(headers: &HeaderMap) -> Exposition {
    let mut best = (Form::Text, 0.0);
    for (name, form) in FORMS {
        let liking = items(headers, &ACCEPT).filter(|item| item.is(name) && item.is_usable(form)).map(|item| item.q);
        let liking = liking.fold(0.0, f32::max);
        if liking > best.1 {
            best = (form, liking);
        }
    }
    let gzip = items(headers, &ACCEPT_ENCODING).any(|item| (item.is("gzip") || item.is("*")) && item.q > 0.0);
    Exposition { form: best.0, coding: if gzip { Coding::Gzip } else { Coding::Identity } }
}

/// How a form is announced (spec admin-and-telemetry 3; Prometheus' exposition formats).
pub(super) fn content_type(form: Form) -> &'static str {
    match form {
        Form::OpenMetrics => "application/openmetrics-text;charset=utf-8;version=1.0.0",
        Form::Text => "text/plain; version=0.0.4; charset=utf-8",
        Form::Protobuf => {
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
        }
    }
}

/// Something that is accepted.
struct Item<'a> {
    name: &'a str,
    parameters: &'a str,
    /// How much it is liked; 1 if nothing is said.
    q: f32,
}

impl Item<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether it means what we have.
    fn is_usable(&self, form: Form) -> bool {
        let parameter = |name| parameters(self.parameters).find(|(known, _)| known.eq_ignore_ascii_case(name));
        let fits = |name, value: &str| parameter(name).is_none_or(|(_, given)| given == value);
        form != Form::Protobuf || (fits("proto", MESSAGE) && fits("encoding", "delimited"))
    }
}

fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Item<'a>> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = self::parameters(parameters).find(|(name, _)| name.eq_ignore_ascii_case("q"));
        let q = weight.and_then(|(_, q)| q.parse().ok()).filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0);
        Item { name: name.trim(), parameters, q }
    })
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|parameter| parameter.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(accept: &str, encoding: &str) -> Exposition {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers.insert(ACCEPT_ENCODING, encoding.parse().unwrap());
        exposition(&headers)
    }

    #[test]
    fn a_scraper_gets_what_it_likes_best_of_what_there_is() {
        for (accept, form) in [
            ("", Form::Text),
            ("*/*", Form::Text),
            ("text/html, image/png", Form::Text),
            ("application/openmetrics-text", Form::OpenMetrics),
            ("application/OpenMetrics-Text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Form::OpenMetrics),
            ("application/openmetrics-text;q=0, text/plain", Form::Text),
            ("text/plain, application/openmetrics-text", Form::OpenMetrics),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
                 application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                Form::Protobuf,
            ),
            ("application/vnd.google.protobuf;proto=of.another.kind,text/plain;q=0.1", Form::Text),
            ("application/vnd.google.protobuf;encoding=text", Form::Text),
        ] {
            assert_eq!(answered(accept, "").form, form, "{accept}");
        }
    }

    #[test]
    fn a_body_is_compressed_only_for_those_who_take_it() {
        for (encoding, coding) in [
            ("", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("deflate, GZIP;q=0.5", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("br", Coding::Identity),
            ("*", Coding::Gzip),
        ] {
            assert_eq!(answered("", encoding).coding, coding, "{encoding}");
        }
    }
}
