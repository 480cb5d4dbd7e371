//! Every file of every corpus, through its target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// More files would make `cargo test` slow and tell nothing new; `cargo xtask fuzz` keeps to it.
const MOST_FILES: usize = 200;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_file_of_every_corpus_passes() {
    for (name, target) in fuzz::TARGETS {
        let files = fs::read_dir(corpus().join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        let paths: BTreeSet<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        assert!(!paths.is_empty() && paths.len() <= MOST_FILES, "{name} has {} files", paths.len());
        for path in paths {
            let data = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| target(&data)).is_err() {
                panic!("{} fails; its panic is above", path.display());
            }
        }
    }
}

#[test]
fn every_target_has_a_body_a_libfuzzer_entry_and_a_corpus() {
    let stems = |folder: &str| -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(stems("fuzz_targets"), targets);
    assert_eq!(stems("corpus"), targets);
}
