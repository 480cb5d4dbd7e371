//! `/logging`: what is logged, seen and changed (spec admin-and-telemetry 2, `/logging` in detail).

use hyper::{Method, StatusCode};

use crate::telemetry::logging::{Base, Logging, directives};

/// What a request that cannot be served is answered with, after the reason.
const HELP: &str = "\nusage: POST /logging\t\t\t\t\t\t(To list current level)
usage: POST /logging?level=<level>\t\t\t\t(To change global levels)
usage: POST /logging?level={mod1}:{level1},{mod2}:{level2}\t(To change specific mods' logging level)

hint: loglevel:\terror|warn|info|debug|trace|off
hint: mod_name:\tthe module name, i.e. ztunnel::proxy
";

/// Serves a request with this method and query.
pub(super) fn answer(logging: &Logging, method: &Method, query: &str) -> (StatusCode, String) {
    if method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, format!("Invalid HTTP method\n {HELP}"));
    }
    let (mut level, mut base) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "level" => level = Some(value.into_owned()),
            "reset" => base = Some(Base::Initial),
            _ => {}
        }
    }
    let changes = match level.as_deref().map(directives).transpose() {
        Ok(changes) => changes,
        Err(invalid) => return (StatusCode::BAD_REQUEST, format!("Invalid level provided: {}\n{HELP}", invalid.0)),
    };
    if changes.is_some() || base.is_some() {
        logging.change(base.unwrap_or(Base::Current), changes.unwrap_or_default());
    }
    (StatusCode::OK, format!("current log level is {}\n", logging.filter()))
}

#[cfg(test)]
mod tests;
