//! Files that others replace while we run: tokens, roots, revocation lists, local state.
//!
//! A change is noticed by looking ([`LOOK`]), which sees a file that is written, one that is replaced, and the symbolic
//! links that Kubernetes swaps, on every file system. What is in a file is its reader's affair; nothing here caches it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often files are looked at: a policy should hold within a second of being written.
pub const LOOK: Duration = Duration::from_millis(500);

/// Tells one content of a file or folder from another without reading it; a file that is not there has one, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stamp(Vec<(u64, u64, i64, i64, u64)>);

impl Stamp {
    /// What a file looks like now.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self::of_all([path])
    }

    /// What several files look like now, together.
    #[must_use]
    pub fn of_all<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamp = |m: Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len());
        let look = |path: &Path| fs::metadata(path).map(stamp).unwrap_or_default();
        Self(paths.into_iter().map(look).collect())
    }
}

/// The text of a file of at most `max` bytes.
///
/// # Errors
/// What the system says, or that the file is larger.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    let bytes = read(path, max)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The content of a file of at most `max` bytes.
///
/// # Errors
/// As for [`read_text`].
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > max {
        let text = format!("{size} bytes are more than {max}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_or_vanishes_looks_different_and_otherwise_the_same() {
        let folder = std::env::temp_dir().join(format!("ztunnel-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("one");
        fs::write(&path, "a").unwrap();
        let first = Stamp::of(&path);
        assert_eq!(Stamp::of(&path), first);
        fs::write(folder.join("new"), "b").unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        let second = Stamp::of(&path);
        assert_ne!(second, first);
        fs::remove_file(&path).unwrap();
        assert!(![first, second].contains(&Stamp::of(&path)));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused_by_what_is_wrong() {
        let path = std::env::temp_dir().join(format!("ztunnel-files-large-{}", std::process::id()));
        fs::write(&path, [0xff; 10]).unwrap();
        assert_eq!(read_text(&path, 9).unwrap_err().to_string(), "10 bytes are more than 9");
        assert_eq!(read_text(&path, 10).unwrap_err().to_string(), "it is not UTF-8 text");
        fs::remove_file(path).unwrap();
    }
}
