//! The allocator: giving back what nobody uses, and what it knows of who uses the rest.
//!
//! What a large message occupied lies between what was made of it; without being told, the C library's allocator gives
//! none of it back to the system. With the feature `jemalloc` the allocator is that one, which does so by itself and can
//! sample who allocates. Which of them a build has, `main` says; here is what can be asked of it.

use std::ffi::CStr;
use std::io;

#[cfg(feature = "jemalloc")]
mod jemalloc;
#[cfg(not(feature = "jemalloc"))]
mod plain;

mod aligned;
mod driver;
mod ebb;

pub use aligned::Aligned;
pub use driver::give_back_after_load;

#[cfg(feature = "jemalloc")]
use jemalloc as allocator;
#[cfg(not(feature = "jemalloc"))]
use plain as allocator;

/// Whether it is sampled who allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Now.
    Active,
    /// Not now, and it can be begun.
    Inactive,
    /// It was ruled out when the process was started (`_RJEM_MALLOC_CONF`).
    Disabled,
    /// This build's allocator cannot.
    Unsupported,
}

/// Returns unused pages to the system where the allocator has to be told: some milliseconds for hundreds of megabytes.
pub fn give_back() {
    allocator::give_back();
}

/// Whether it is sampled who allocates.
#[must_use]
pub fn sampling() -> Sampling {
    allocator::sampling()
}

/// Samples from now on; what was allocated before is not known.
///
/// # Errors
/// The allocator's; that it cannot.
pub fn begin_sampling() -> io::Result<()> {
    allocator::sample(true)
}

/// Samples no more; those there are stay.
///
/// # Errors
/// The allocator's; that it cannot.
pub fn end_sampling() -> io::Result<()> {
    allocator::sample(false)
}

/// Writes the stacks that have allocated what is in use, as jemalloc prints them, to a file that is made.
///
/// # Errors
/// The allocator's; that it cannot.
pub fn write_samples(file: &CStr) -> io::Result<()> {
    allocator::write_samples(file)
}
