//! Takes profiles: of time by a timer, of memory by asking the allocator, and has what was seen named on a thread where
//! nobody waits for anything else.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::ProfilerGuardBuilder;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::Semaphore;

use super::encode::{self, Place};
use super::heap::Heap;
use super::{HeapSampling, ProfileError, Sampling};
use crate::memory;

/// Libraries inside which the stack cannot be followed from a signal without the risk of waiting for a lock that the
/// interrupted code holds.
const NOT_IN: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Whoever takes profiles, one at a time.
#[derive(Debug)]
pub(in crate::admin) struct Profiler(Arc<Semaphore>);

impl Default for Profiler {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Profiler {
    /// A profile, as uncompressed protobuf. The timer stops when the future is dropped.
    pub(in crate::admin) async fn take(&self, sampling: Sampling) -> Result<Vec<u8>, ProfileError> {
        let turn = Arc::clone(&self.0).try_acquire_owned().map_err(|_| ProfileError::Busy)?;
        let failed = |error: &dyn std::fmt::Display| ProfileError::Failed(error.to_string());
        let builder = ProfilerGuardBuilder::default().frequency(sampling.frequency).blocklist(&NOT_IN);
        let guard = builder.build().map_err(|error| failed(&error))?;
        tokio::time::sleep(sampling.lasts).await;
        let naming = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let report = guard.report().build();
            drop(guard); // the timer stops
            report.map(|report| encode::encode(&report))
        });
        naming.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

/// Begins or ends the sampling of memory, if that is wanted. Returns whether there is any now.
pub(in crate::admin) fn sample_heap(wanted: HeapSampling) -> Result<bool, ProfileError> {
    match memory::sampling() {
        memory::Sampling::Unsupported => return Err(ProfileError::NoJemalloc),
        memory::Sampling::Disabled => return Err(ProfileError::Disabled),
        memory::Sampling::Active | memory::Sampling::Inactive => {}
    }
    let done = match wanted {
        HeapSampling::Ask => Ok(()),
        HeapSampling::Begin => memory::begin_sampling(),
        HeapSampling::End => memory::end_sampling(),
    };
    done.map_err(|error| ProfileError::Failed(error.to_string()))?;
    Ok(memory::sampling() == memory::Sampling::Active)
}

/// A profile of the memory in use, as gzipped protobuf: of what was allocated since sampling began.
pub(in crate::admin) fn heap() -> Result<Vec<u8>, ProfileError> {
    if !sample_heap(HeapSampling::Ask)? {
        return Err(ProfileError::Inactive);
    }
    let failed = |error: io::Error| ProfileError::Failed(error.to_string());
    let printed = printed_samples().map_err(failed)?;
    let heap = Heap::of(&printed)
        .ok_or_else(|| ProfileError::Failed("jemalloc prints them in a format that is not known".to_owned()))?;
    let profile = encode::encode_heap(&heap, SystemTime::now(), places);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&profile).and_then(|()| gzip.finish()).map_err(failed)
}

/// The allocator writes files only; this one is nowhere but in memory.
fn printed_samples() -> io::Result<String> {
    let mut file = File::from(memfd_create("ztunnel-heap", MemfdFlags::CLOEXEC)?);
    let name = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    memory::write_samples(&name)?;
    let mut printed = String::new();
    file.read_to_string(&mut printed)?;
    Ok(printed)
}

/// The functions that a return address lies in.
fn places(address: u64) -> Vec<Place> {
    let mut places = Vec::new();
    // The call is before the address that it returns to.
    let call = std::ptr::without_provenance_mut(usize::try_from(address.saturating_sub(1)).unwrap_or_default());
    backtrace::resolve(call, |symbol| {
        let name = symbol.name();
        places.push(Place {
            name: name.as_ref().map_or_else(|| format!("{address:#x}"), ToString::to_string),
            system_name: name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
            filename: symbol.filename().map(|path| path.display().to_string()).unwrap_or_default(),
            line: symbol.lineno().unwrap_or_default(),
        });
    });
    places
}
