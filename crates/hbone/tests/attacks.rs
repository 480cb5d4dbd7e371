//! `docs/http2-attacks.md` names limits and tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// What is between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_limit_and_every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/http2-attacks.md")).unwrap();
    let mut sources = Vec::new();
    ["src", "tests"].iter().for_each(|folder| files(&root.join(folder), &mut sources));
    let (mut tests, mut limits) = (BTreeSet::new(), BTreeSet::new());
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().map(str::trim_start) {
            if let Some(rest) = line.strip_prefix("fn ") {
                tests.extend(rest.split_once("()").map(|(name, _)| name.to_owned()));
            }
            tests.extend(line.strip_prefix("## ").map(str::to_owned));
            if let Some(rest) = line.strip_prefix("pub const ").or_else(|| line.strip_prefix("pub ")) {
                limits.extend(rest.split_once(':').map(|(name, _)| name.to_owned()));
            }
        }
    }
    let rows = page.lines().filter(|line| line.starts_with('|') && line.contains('`'));
    let mut named = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let &[_, _, limit, _, shown_by] = &cells[..] else { panic!("not five cells: {row}") };
        for limit in quoted(limit) {
            assert!(limits.contains(limit), "there is no limit {limit}");
        }
        assert!(quoted(shown_by).next().is_some(), "no test: {row}");
        for test in quoted(shown_by) {
            assert!(tests.contains(test), "there is no test {test:?}");
            named += 1;
        }
    }
    assert!(named > 30, "only {named} tests were found on the page");
}
