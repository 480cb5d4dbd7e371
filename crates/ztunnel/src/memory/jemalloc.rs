//! jemalloc, which returns pages by itself some seconds after their last use, and samples if it is told to.

use std::ffi::{CStr, c_char};
use std::io;

use tikv_jemalloc_ctl::{profiling, raw};

use super::Sampling;

/// Whether samples are taken (jemalloc(3), "MALLCTL NAMESPACE").
const ACTIVE: &[u8] = b"prof.active\0";
/// Writing a file's name to it has the samples written there.
const DUMP: &[u8] = b"prof.dump\0";

pub(super) fn give_back() {}

#[allow(unsafe_code, reason = "the crate's typed options lack this one")]
pub(super) fn sampling() -> Sampling {
    if !profiling::prof::read().unwrap_or(false) {
        return Sampling::Disabled;
    }
    // SAFETY: `prof.active` is a bool.
    match unsafe { raw::read::<bool>(ACTIVE) } {
        Ok(true) => Sampling::Active,
        Ok(false) => Sampling::Inactive,
        Err(_) => Sampling::Disabled,
    }
}

#[allow(unsafe_code, reason = "the crate's typed options lack this one")]
pub(super) fn sample(on: bool) -> io::Result<()> {
    // SAFETY: `prof.active` is a bool.
    unsafe { raw::write(ACTIVE, on) }.map_err(|error| io::Error::other(error.to_string()))
}

#[allow(unsafe_code, reason = "the crate's typed options lack this one")]
pub(super) fn write_samples(file: &CStr) -> io::Result<()> {
    let name: *const c_char = file.as_ptr();
    // SAFETY: `prof.dump` is a C string, which outlives the call.
    unsafe { raw::write(DUMP, name) }.map_err(|error| io::Error::other(error.to_string()))
}
