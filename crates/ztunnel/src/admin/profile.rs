//! `/debug/pprof/profile`: where the process spends its time, as pprof reads it (spec admin-and-telemetry 2).
//!
//! Samples are taken by a timer signal for as long as was asked for and not a moment longer, one profile at a time.
//!
//! Not here: profiles of memory, which the allocator would have to keep; their paths are not found.

pub(super) mod driver;
mod encode;

use std::time::Duration;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    /// For how long samples are taken.
    pub(super) lasts: Duration,
    /// Samples a second, for each core at work.
    pub(super) frequency: i32,
}

/// Why there is no profile; the wording is that of the existing ztunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    #[error("invalid seconds value; expected 1-300")]
    Seconds,
    #[error("invalid frequency value; expected 1-1000")]
    Frequency,
    #[error("a profile is being taken already; try again when it is done")]
    Busy,
    #[error("the profile cannot be taken: {0}")]
    Failed(String),
}

impl Sampling {
    /// Reads the parameters of a request.
    pub(super) fn of(query: &str) -> Result<Self, ProfileError> {
        let number = |name: &str, default: i32| {
            let given = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
            given.map_or(Some(default), |(_, value)| value.parse().ok())
        };
        let seconds = number("seconds", 10).and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| (1..=300).contains(seconds)).ok_or(ProfileError::Seconds)?;
        let frequency = number("frequency", 100).filter(|hertz| (1..=1000).contains(hertz));
        Ok(Self { lasts: Duration::from_secs(seconds), frequency: frequency.ok_or(ProfileError::Frequency)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_defaults_and_bounds() {
        let of = |query| Sampling::of(query).map(|s| (s.lasts.as_secs(), s.frequency)).map_err(|e| e.to_string());
        assert_eq!(of(""), Ok((10, 100)));
        assert_eq!(of("seconds=300&frequency=1000"), Ok((300, 1000)));
        for query in ["seconds=0", "seconds=301", "seconds=x", "seconds=-1"] {
            assert_eq!(of(query), Err("invalid seconds value; expected 1-300".into()), "{query}");
        }
        for query in ["frequency=0", "frequency=1001", "frequency="] {
            assert_eq!(of(query), Err("invalid frequency value; expected 1-1000".into()), "{query}");
        }
    }
}
