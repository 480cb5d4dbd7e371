//! `docs/verified-behaviours.md` names tests that exist.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/verified-behaviours.md");
/// Fewer would mean that the page is not read as it is written.
const AT_LEAST: usize = 150;

/// The file and the name of each test that a row names.
fn tests(row: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = row.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once("::")).filter(|(file, _)| file.ends_with(".rs") || file.ends_with(".txt"))
}

/// Whether a file has a test of that name: a function with the attribute; a sentence, of a program whose tests are
/// values; a heading, of a file of dialogues.
fn has_test(source: &str, name: &str) -> bool {
    let function = |(at, _): (usize, &str)| {
        let before = source[..at].trim_end().trim_end_matches("async").trim_end();
        before.ends_with(']') && before.rfind("#[").is_some_and(|from| before[from..].contains("test"))
    };
    source.match_indices(&format!("fn {name}()")).any(function)
        || source.contains(&format!("\"{name}\""))
        || source.contains(&format!("\n## {name}\n"))
}

#[test]
fn every_test_that_the_page_of_behaviours_names_exists() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = HashMap::new();
    let mut named = 0;
    for row in PAGE.lines().filter(|line| line.starts_with("| ")) {
        for (file, name) in tests(row) {
            let source = sources.entry(file).or_insert_with(|| {
                fs::read_to_string(crates.join(file)).unwrap_or_else(|error| panic!("crates/{file}: {error}"))
            });
            assert!(has_test(source, name), "crates/{file} has no test {name:?}");
            named += 1;
        }
    }
    assert!(named >= AT_LEAST, "only {named} tests were found on the page");
}

#[test]
fn every_row_of_the_page_names_a_test_or_says_why_there_is_none() {
    for section in PAGE.split("\n## ").skip(1) {
        let reasons = section.starts_with("What no test shows");
        for row in section.lines().filter(|line| line.starts_with("| ") && *line != "| behaviour | why |") {
            assert!(reasons || tests(row).next().is_some() || row == "| behaviour | shown by |", "{row}");
        }
    }
}

#[test]
fn a_function_is_a_test_only_by_its_attribute() {
    let source = "#[test]\nfn real() {}\n\nfn other() {}\n#[tokio::test(start_paused = true)]\nasync fn later() {}\ntest(\"a sentence\", || {})";
    assert!(has_test(source, "real") && has_test(source, "later") && has_test(source, "a sentence"));
    assert!(!has_test(source, "other") && !has_test(source, "rea") && !has_test(source, "nothing"));
}
