//! Reads rows of the table from an environment and collects everything that is wrong, so that an operator is told all
//! of it at once.

use std::fmt::Display;
use std::time::Duration;

use super::environment::Environment;
use super::parse;
use super::table::{KNOBS, Kind, row};

/// Most problems that are listed; the rest would be noise.
const MAX_PROBLEMS: usize = 32;

pub(super) struct Reader<'a> {
    pub(super) environment: &'a Environment,
    problems: Vec<String>,
    #[cfg(test)]
    pub(super) asked: std::cell::RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            problems: Vec::new(),
            #[cfg(test)]
            asked: std::cell::RefCell::default(),
        }
    }

    /// Notes something that is wrong.
    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }

    /// What is wrong, if anything is.
    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// Notes that a variable's value is not usable.
    pub(super) fn invalid(&mut self, name: &str, value: &str, reason: impl Display) {
        self.problem(format!("invalid env var {name}={value} ({reason})"));
    }

    /// The text of a row's variable, or of its default.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        #[cfg(test)]
        self.asked.borrow_mut().push(name);
        if self.environment.is_unreadable(name) {
            self.problem(format!("invalid env var {name} (the value is not valid UTF-8)"));
        }
        let default = row(name).and_then(|knob| knob.default);
        self.environment.get(name).or(default).map(str::to_owned)
    }

    /// The value of a row's variable. A wrong one is noted and replaced by the default, so that whatever else is wrong is
    /// found as well.
    fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.invalid(name, &text, reason);
                row(name).and_then(|knob| parse(knob.default?).ok())
            }
        }
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.parsed(name, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected `true` or `false`".to_owned()),
        })
    }

    /// Anything but `true` is off.
    pub(super) fn switch(&mut self, name: &'static str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    pub(super) fn number(&mut self, name: &'static str) -> Option<u64> {
        let bounds = row(name).map(|knob| knob.kind);
        self.parsed(name, |text| {
            let number: u64 = text.parse().map_err(|e| format!("{e}"))?;
            match bounds {
                Some(Kind::Number { min, max }) if !(min..=max).contains(&number) => {
                    Err(format!("must be from {min} to {max}"))
                }
                _ => Ok(number),
            }
        })
    }

    pub(super) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let kind = row(name).map(|knob| knob.kind);
        self.parsed(name, |text| {
            let duration = parse::duration(text)?;
            match kind {
                Some(Kind::Duration { min }) if duration < Duration::from_millis(min) => {
                    Err(format!("must be at least {min} ms"))
                }
                _ => Ok(duration),
            }
        })
    }

    /// A value with a spelling of its own.
    pub(super) fn special<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.parsed(name, parse)
    }

    /// Variables that look like ours and are not, with the name that was probably meant.
    pub(super) fn typos(&self) -> Vec<String> {
        const OURS: [&str; 7] = ["ZTUNNEL_", "HTTP2_", "INPOD_", "KEEPALIVE_", "POOL_", "XDS_", "LOCAL_XDS"];
        let ours = |name: &str| OURS.iter().any(|prefix| name.starts_with(prefix));
        let known = |name: &str| row(name).is_some() || name.starts_with("XDS_HEADER_") || name == "INPOD_ENABLED";
        let unknown = self.environment.iter().map(|(name, _)| name).filter(|name| ours(name) && !known(name));
        let nearest = |name: &str| KNOBS.iter().map(|knob| knob.name).min_by_key(|other| distance(name, other));
        unknown
            .map(|name| match nearest(name) {
                Some(near) => format!("unknown setting {name} is ignored; did you mean {near}?"),
                None => format!("unknown setting {name} is ignored"),
            })
            .collect()
    }
}

/// How many letters have to be changed, added or removed to get from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
