//! Which request gets which answer, on each of the three servers (spec admin-and-telemetry 1 to 3).

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use hyper::http::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};

use super::body::Body;
use super::debug::{self, Told};
use super::driver::{Server, Turns};
use super::dump::{Shape, Sources};
use super::profile::driver::Profiler;
use super::profile::{self, HeapSampling, ProfileError, Sampling};
use super::ready::{Readiness, Ready, TaskName};
use super::{Inside, levels, negotiate};
use crate::drain::signals::Request;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::{Coding, Metrics};

/// The one page for people.
const HOME: &str = include_str!("home.html");

const TEXT: &str = "text/plain";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type Answer = Response<Body>;

/// What the servers serve.
pub(super) struct Site {
    ready: Ready,
    metrics: Arc<Metrics>,
    logging: Logging,
    shutdown: Request,
    dump: Arc<Sources>,
    debug: Arc<debug::Sources>,
    dumping: Turns,
    scraping: Turns,
    looking: Turns,
    profiler: Profiler,
}

impl Site {
    pub(super) fn new(inside: Inside) -> Self {
        let Inside { ready, metrics, logging, shutdown, dump, debug } = inside;
        Self {
            ready,
            metrics,
            logging,
            shutdown,
            dump: Arc::new(dump),
            debug: Arc::new(debug),
            dumping: Turns::default(),
            scraping: Turns::default(),
            looking: Turns::default(),
            profiler: Profiler::default(),
        }
    }

    pub(super) async fn answer(&self, server: Server, request: &Parts) -> Answer {
        match (server, request.uri.path(), &request.method) {
            (Server::Admin, "/", _) => answer(StatusCode::OK, HTML, HOME),
            (Server::Admin, "/config_dump", _) => self.dump(request.uri.query().unwrap_or_default()).await,
            (Server::Admin, "/debug/pprof/profile", _) => self.profile(request.uri.query().unwrap_or_default()).await,
            (Server::Admin, "/debug/pprof/heap", _) => self.heap().await,
            (Server::Admin, "/debug/pprof/heap/profiling", _) => {
                heap_profiling(request.uri.query().unwrap_or_default())
            }
            (Server::Admin, path, _) if path.starts_with("/debug/") => {
                self.debug(path, request.uri.query().unwrap_or_default()).await
            }
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

    async fn dump(&self, query: &str) -> Answer {
        let shape = match Shape::of(query) {
            Ok(shape) => shape,
            Err(error) => return answer(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
        };
        let sources = Arc::clone(&self.dump);
        match self.dumping.stream(move |out| sources.print(&shape, out)).await {
            Ok(body) => with_body(StatusCode::OK, JSON, body),
            Err(error) => failed(&error),
        }
    }

    async fn profile(&self, query: &str) -> Answer {
        let taken = match Sampling::of(query) {
            Ok(sampling) => self.profiler.take(sampling).await,
            Err(error) => return answer(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
        };
        match taken {
            Ok(profile) => {
                let mut answer = empty(StatusCode::OK);
                *answer.body_mut() = Body::Whole(profile.into());
                answer
            }
            Err(error) => failed(&error),
        }
    }

    async fn heap(&self) -> Answer {
        match self.looking.print(profile::driver::heap).await {
            Ok(Ok(profile)) => {
                let mut answer = empty(StatusCode::OK);
                *answer.body_mut() = Body::Whole(profile.into());
                answer
            }
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        }
    }

    async fn debug(&self, path: &str, query: &str) -> Answer {
        let Some(page) = debug::Page::of(path) else { return empty(StatusCode::NOT_FOUND) };
        let (inside, query) = (Arc::clone(&self.debug), query.to_owned());
        let seen = inside.look(page, &query).await;
        let told = self.looking.print(move || inside.tell(page, &query, &seen)).await;
        match told {
            Ok(Ok(Told::Json(json))) => answer(StatusCode::OK, JSON, json),
            Ok(Ok(Told::Words(words))) => answer(StatusCode::OK, "text/plain; charset=utf-8", words),
            Ok(Err(error)) => answer(error.status(), TEXT, format!("{error}\n")),
            Err(error) => failed(&error),
        }
    }

    async fn scrape(&self, headers: &HeaderMap) -> Answer {
        let exposition = negotiate::exposition(headers);
        let metrics = Arc::clone(&self.metrics);
        match self.scraping.print(move || metrics.expose(exposition)).await {
            Ok(body) => {
                let mut answer = answer(StatusCode::OK, negotiate::content_type(exposition.form), body);
                let headers = answer.headers_mut();
                headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
                if exposition.coding == Coding::Gzip {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                answer
            }
            Err(error) => failed(&error),
        }
    }
}

/// Begins or ends the sampling of memory, and tells whether there is any.
fn heap_profiling(query: &str) -> Answer {
    match HeapSampling::of(query).and_then(profile::driver::sample_heap) {
        Ok(active) => answer(StatusCode::OK, TEXT, format!("heap profiling active: {active}\n")),
        Err(error @ ProfileError::Activate(_)) => answer(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
        Err(error) => failed(&error),
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

fn failed(error: &dyn std::error::Error) -> Answer {
    answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    with_body(status, content_type, Body::Whole(body.into()))
}

fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::Whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests;
