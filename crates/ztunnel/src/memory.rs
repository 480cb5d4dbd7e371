//! Memory that the allocator keeps though nobody uses it.
//!
//! What a large message occupied lies between what was made of it; without being told, the allocator gives none of it
//! back to the system.

/// Returns unused pages to the system where the allocator can do so: some milliseconds for hundreds of megabytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: it takes the allocator's own locks, and touches only what is not in use.
    let _some = unsafe { libc::malloc_trim(0) };
}

/// The allocators of other platforms return pages by themselves or have no way to be asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
