//! The C library's allocator.

use std::ffi::CStr;
use std::io;

use super::Sampling;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]
pub(super) fn give_back() {
    // SAFETY: it takes the allocator's own locks, and touches only what is not in use.
    let _some = unsafe { libc::malloc_trim(0) };
}

/// The allocators of other platforms return pages by themselves or have no way to be asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}

pub(super) fn sampling() -> Sampling {
    Sampling::Unsupported
}

pub(super) fn sample(_on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn write_samples(_file: &CStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
