//! What is logged: levels per target prefix, and one for everything else.
//!
//! Two languages are read: that of `RUST_LOG` at the start (spec configuration 3.4), and the stricter one of `/logging`
//! (spec admin-and-telemetry 2). Filters by span or field are not offered.

use std::fmt;
use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// In front of every filter: what existing deployments expect to read back (spec admin-and-telemetry 4).
const PREFIX: &str = "hickory_server::server=off,";
/// What is logged unless the operator says otherwise.
pub(super) const DEFAULT: &str = "info";

/// Which events are logged. Of several prefixes that match a target, the longest decides.
#[derive(Clone, Debug)]
pub struct Filter(Targets);

/// Directives that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{directives}` is not a comma-separated list of `level` or `target=level` ({cause})")]
pub struct InvalidFilter {
    directives: String,
    cause: tracing_subscriber::filter::ParseError,
}

/// A level for everything, or for the targets that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `None` is everything that no prefix covers.
    pub target: Option<String>,
    /// The most verbose level that is logged.
    pub level: LevelFilter,
}

/// Text that `/logging` does not take for levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a level (off, error, warn, info, debug, trace) nor `target=level`")]
pub struct InvalidLevel(pub String);

impl FromStr for Filter {
    type Err = InvalidFilter;

    /// Reads the value of `RUST_LOG`. A bare word is a target that is logged in full; an empty value means errors only.
    fn from_str(directives: &str) -> Result<Self, InvalidFilter> {
        // A space after a comma would become part of a target that nothing has.
        let items: Vec<_> = directives.split(',').map(str::trim).collect();
        let targets = format!("{PREFIX}{}", items.join(",")).parse();
        targets.map(Self).map_err(|cause| InvalidFilter { directives: directives.to_owned(), cause })
    }
}

impl Filter {
    /// Whether events of `target` and `level` are logged.
    #[must_use]
    pub fn enables(&self, target: &str, level: &Level) -> bool {
        self.0.would_enable(target, level)
    }

    /// The most verbose level that any target is logged at.
    pub(super) fn most_verbose(&self) -> LevelFilter {
        let levels = self.0.iter().map(|(_, level)| level).chain(self.0.default_level());
        levels.max().unwrap_or(LevelFilter::OFF)
    }

    /// The same filter with changes, of which later ones win.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = Directive>) -> Self {
        let targets = changes.into_iter().fold(self.0.clone(), |targets, change| match change.target {
            Some(target) => targets.with_target(target, change.level),
            None => targets.with_default(change.level),
        });
        Self(targets)
    }
}

impl Default for Filter {
    fn default() -> Self {
        let quiet = Targets::new().with_target("hickory_server::server", LevelFilter::OFF);
        Self(quiet.with_default(LevelFilter::INFO))
    }
}

impl fmt::Display for Filter {
    /// Targets with the longest first, then the level for everything else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the `level` parameter of `/logging`: a list of `level`, `target=level` or `target:level`.
///
/// # Errors
/// If an item is none of these.
pub fn directives(text: &str) -> Result<Vec<Directive>, InvalidLevel> {
    text.split(',').map(|item| directive(item.trim()).ok_or_else(|| InvalidLevel(text.to_owned()))).collect()
}

fn directive(item: &str) -> Option<Directive> {
    if let Some(level) = level(item) {
        return Some(Directive { target: None, level });
    }
    // In `a::b:debug` only the last colon stands before a level.
    let (target, word) = item.split_once('=').or_else(|| item.rsplit_once(':'))?;
    let odd = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | '=');
    let named = !target.is_empty() && !target.ends_with(':') && !target.contains(odd);
    let level = level(word).filter(|_| named)?;
    Some(Directive { target: Some(target.to_owned()), level })
}

fn level(word: &str) -> Option<LevelFilter> {
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    levels.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| level)
}

#[cfg(test)]
mod tests;
