//! Archives that depend on nothing but what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// Permissions of programs and scripts.
pub(super) const PROGRAM: u32 = 0o755;
/// Permissions of other files.
pub(super) const PLAIN: u32 = 0o644;

/// A file to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Where it goes, without a leading slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

impl File {
    pub(super) fn read(path: &str, from: &Path, mode: u32) -> io::Result<File> {
        let content = fs::read(from).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", from.display())))?;
        Ok(File { path: path.to_owned(), mode, content })
    }
}

/// A compressed tar archive of files and the folders that they are in, below `prefix`.
pub(super) fn pack(prefix: &str, files: &[File], time: u64) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for file in files {
        let path = format!("{prefix}{}", file.path);
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if folders.insert(folder.to_owned()) {
                tar.append_data(&mut header(EntryType::Directory, PROGRAM, 0, time), folder, io::empty())?;
            }
        }
        let mut header = header(EntryType::Regular, file.mode, file.content.len() as u64, time);
        tar.append_data(&mut header, &path, file.content.as_slice())?;
    }
    compress(&tar.into_inner()?)
}

fn header(kind: EntryType, mode: u32, size: u64, time: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Compressed without name or time.
pub(super) fn compress(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(content)?;
    packed.finish()
}
