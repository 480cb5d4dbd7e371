//! `/debug/pprof/…`: where the process spends its time and its memory, as pprof reads it (spec admin-and-telemetry 2).
//!
//! Samples of time are taken by a timer signal for as long as was asked for and not a moment longer, one profile at a time.
//! Those of memory are the allocator's, in builds with one that takes any (`jemalloc`), from when it is told to.

pub(super) mod driver;
mod encode;
mod heap;

use std::time::Duration;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    /// For how long samples are taken.
    pub(super) lasts: Duration,
    /// Samples a second, for each core at work.
    pub(super) frequency: i32,
}

/// What to do about the sampling of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeapSampling {
    /// Only tell.
    Ask,
    /// Begin it.
    Begin,
    /// End it.
    End,
}

impl HeapSampling {
    /// Reads the parameters of a request.
    pub(super) fn of(query: &str) -> Result<Self, ProfileError> {
        let given = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "activate");
        match given.as_ref().map(|(_, value)| &**value) {
            None => Ok(Self::Ask),
            Some("true") => Ok(Self::Begin),
            Some("false") => Ok(Self::End),
            Some(other) => Err(ProfileError::Activate(other.to_owned())),
        }
    }
}

/// Why there is no profile; the wording is that of the existing ztunnel, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    #[error("invalid seconds value; expected 1-300")]
    Seconds,
    #[error("invalid frequency value; expected 1-1000")]
    Frequency,
    #[error("invalid activate value {0:?}; expected true or false")]
    Activate(String),
    #[error("heap profiling not active; activate with /debug/pprof/heap/profiling?activate=true")]
    Inactive,
    #[error("heap profiling is not enabled; start ztunnel without prof:false in _RJEM_MALLOC_CONF")]
    Disabled,
    #[error("jemalloc not enabled; profiles of memory take a build with `--features jemalloc`")]
    NoJemalloc,
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

    #[test]
    fn sampling_of_memory_is_begun_ended_or_asked_about() {
        let of = |query| HeapSampling::of(query).map_err(|error| error.to_string());
        assert_eq!(of(""), Ok(HeapSampling::Ask));
        assert_eq!([of("activate=true"), of("activate=false")], [Ok(HeapSampling::Begin), Ok(HeapSampling::End)]);
        assert_eq!(of("activate=yes"), Err("invalid activate value \"yes\"; expected true or false".into()));
    }
}
