//! Test programs (`harness = false`) whose tests run inside a [`sandbox`].
//!
//! `--list` needs no sandbox. Where none can be had, every test fails by name and says what is missing: a machine
//! that cannot run the tests must not look like one that passed them.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::sandbox::{self, SandboxError};

/// What a test returns: any error fails it, as a panic does.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A test under a name that reads as a sentence.
pub struct Test {
    name: String,
    run: Box<dyn FnOnce() -> Outcome + Send>,
    length: Length,
}

/// Whether a test is run with every change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Usual,
    /// Only where `--ignored` or `--include-ignored` is given.
    Long,
}

/// A test called `name`.
pub fn test(name: &str, run: impl FnOnce() -> Outcome + Send + 'static) -> Test {
    Test { name: name.to_owned(), run: Box::new(run), length: Length::Usual }
}

/// A test that takes minutes: run where `--ignored` or `--include-ignored` is given.
pub fn long_test(name: &str, run: impl FnOnce() -> Outcome + Send + 'static) -> Test {
    Test { length: Length::Long, ..test(name, run) }
}

/// Takes the program into a sandbox and runs the tests there; to be the whole of a test program's `main`.
pub fn main(tests: Vec<Test>) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(tests)).exit_code();
    }
    match sandbox::enter() {
        Ok(_inside) => libtest_mimic::run(&arguments, trials(tests)).exit_code(),
        Err(error) => libtest_mimic::run(&arguments, refusals(tests, &error)).exit_code(),
    }
}

fn trials(tests: Vec<Test>) -> Vec<Trial> {
    let trial = |test: Test| {
        let trial = Trial::test(test.name, move || (test.run)().map_err(|error| failed(error.as_ref())));
        trial.with_ignored_flag(test.length == Length::Long)
    };
    tests.into_iter().map(trial).collect()
}

fn refusals(tests: Vec<Test>, error: &SandboxError) -> Vec<Trial> {
    let explanation = error.to_string();
    let refusal = |test: Test| {
        let explanation = explanation.clone();
        let refusal = Trial::test(test.name, move || Err(Failed::from(explanation)));
        refusal.with_ignored_flag(test.length == Length::Long)
    };
    tests.into_iter().map(refusal).collect()
}

/// The error and everything it came from, one a line.
fn failed(error: &dyn std::error::Error) -> Failed {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!("\n  because: {cause}"));
        next = cause.source();
    }
    Failed::from(text)
}
