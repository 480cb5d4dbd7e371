//! Which request gets which answer, on each of the three servers (spec admin-and-telemetry 1 to 3).

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};

use super::driver::{Server, Turns};
use super::dump::Sources;
use super::ready::{Readiness, Ready, TaskName};
use super::{Inside, levels};
use crate::drain::signals::Request;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;

/// The one page for people.
const HOME: &str = include_str!("home.html");

const TEXT: &str = "text/plain";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// For a scraper that does not ask for OpenMetrics by name.
const PROMETHEUS: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";

pub(super) type Answer = Response<Full<Bytes>>;

/// What the servers serve.
pub(super) struct Site {
    ready: Ready,
    metrics: Arc<Metrics>,
    logging: Logging,
    shutdown: Request,
    dump: Arc<Sources>,
    dumping: Turns,
    scraping: Turns,
}

impl Site {
    pub(super) fn new(inside: Inside) -> Self {
        let Inside { ready, metrics, logging, shutdown, dump } = inside;
        Self {
            ready,
            metrics,
            logging,
            shutdown,
            dump: Arc::new(dump),
            dumping: Turns::default(),
            scraping: Turns::default(),
        }
    }

    pub(super) async fn answer(&self, server: Server, request: &Parts) -> Answer {
        match (server, request.uri.path(), &request.method) {
            (Server::Admin, "/", _) => answer(StatusCode::OK, HTML, HOME),
            (Server::Admin, "/config_dump", _) => self.dump().await,
            (Server::Admin, "/logging", method) => {
                let (status, text) = levels::answer(&self.logging, method, request.uri.query().unwrap_or_default());
                answer(status, TEXT, text)
            }
            (Server::Admin, "/quitquitquit", &Method::POST) => {
                self.shutdown.ask();
                answer(StatusCode::OK, TEXT, "shutdown now\n")
            }
            (Server::Stats, "/metrics" | "/stats/prometheus", _) => self.scrape(&request.headers).await,
            (Server::Readiness, "/healthz/ready", &Method::GET) => probe(&self.ready),
            (Server::Admin, "/quitquitquit", _) | (Server::Readiness, "/healthz/ready", _) => {
                empty(StatusCode::METHOD_NOT_ALLOWED)
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }

    async fn dump(&self) -> Answer {
        let sources = Arc::clone(&self.dump);
        match self.dumping.print(move || sources.print()).await {
            Ok(Ok(json)) => answer(StatusCode::OK, JSON, json),
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        }
    }

    async fn scrape(&self, headers: &HeaderMap) -> Answer {
        let content_type = if accepts_openmetrics(headers) { OPENMETRICS } else { PROMETHEUS };
        let metrics = Arc::clone(&self.metrics);
        match self.scraping.print(move || metrics.render()).await {
            Ok(text) => answer(StatusCode::OK, content_type, text),
            Err(error) => failed(&error),
        }
    }
}

fn probe(ready: &Ready) -> Answer {
    match ready.readiness() {
        Readiness::Ready => answer(StatusCode::OK, TEXT, "ready\n"),
        Readiness::Draining => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "not ready, draining\n"),
        Readiness::Pending(tasks) => {
            let names: Vec<_> = tasks.into_iter().map(TaskName::as_str).collect();
            let text = format!("not ready, pending: {}\n", names.join(", "));
            answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
        }
    }
}

/// Whether any item of any `Accept` header names the OpenMetrics text format.
fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(',')).filter_map(|item| item.split(';').next());
    types.any(|media| media.trim().eq_ignore_ascii_case("application/openmetrics-text"))
}

fn failed(error: &dyn std::error::Error) -> Answer {
    answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests;
