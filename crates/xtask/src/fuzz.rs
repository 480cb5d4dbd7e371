//! `cargo xtask fuzz`: lets libFuzzer look for inputs that a target of `fuzz/` does not survive, for a bounded time.
//!
//! Built by the ordinary toolchain: the passes that tell libFuzzer about coverage are LLVM's own. What was found new is
//! merged into the corpus, which is kept minimal and within [`MOST_FILES`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler's part of coverage: a counter per edge with its place, and the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// Files of one corpus, as `cargo test` replays them all.
const MOST_FILES: usize = 200;
/// Longest input; covers several records or frames of the default size.
const MAX_LENGTH: &str = "-max_len=20000";
/// Seconds after which one input counts as hanging.
const TIMEOUT: &str = "-timeout=10";
/// MiB after which one input counts as eating memory.
const MEMORY: &str = "-rss_limit_mb=1024";

/// Fuzzes `target` for `seconds`, then minimises its corpus.
///
/// # Errors
/// That it does not build, or that an input was found, with the file that has it.
pub fn run(workspace: &Path, target: &str, seconds: u32) -> io::Result<()> {
    let program = build(workspace, target)?;
    let corpus = workspace.join("fuzz/corpus").join(target);
    let found = scratch(&program, target, "found")?;
    let artifacts = format!("-artifact_prefix={}/", scratch(&program, target, "artifacts")?.display());
    let mut fuzz = Command::new(&program);
    fuzz.args([&format!("-max_total_time={seconds}"), MAX_LENGTH, TIMEOUT, MEMORY, "-print_final_stats=1", &artifacts]);
    succeed(fuzz.arg(&found).arg(&corpus))?;

    let merged = scratch(&program, target, "merged")?;
    let mut merge = Command::new(&program);
    succeed(merge.args(["-set_cover_merge=1", MAX_LENGTH, TIMEOUT, MEMORY]).arg(&merged).arg(&corpus).arg(&found))?;
    replace(&corpus, &merged)
}

/// The program of a target, built in a target folder of its own, as everything in it is instrumented.
fn build(workspace: &Path, target: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).ok_or_else(|| io::Error::other("this program is not in a target folder"))?;
    let (folder, host) = (folder.join("fuzz"), format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let mut build = Command::new("cargo");
    build.current_dir(workspace).env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", &folder);
    // Naming the target keeps the flags away from build scripts.
    build.args([
        "build",
        "--locked",
        "--package",
        "fuzz",
        "--features",
        "libfuzzer",
        "--target",
        &host,
        "--bin",
        target,
    ]);
    succeed(&mut build)?;
    Ok(folder.join(host).join("debug").join(target))
}

/// An empty folder beside the program.
fn scratch(program: &Path, target: &str, what: &str) -> io::Result<PathBuf> {
    let folder = program.with_file_name(format!("{target}-{what}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Makes `corpus` what `merged` is, smallest files first, no more than [`MOST_FILES`].
fn replace(corpus: &Path, merged: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(merged)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path(), entry.file_name()));
    }
    files.sort();
    fs::remove_dir_all(corpus)?;
    fs::create_dir_all(corpus)?;
    for (_, path, name) in files.iter().take(MOST_FILES) {
        fs::copy(path, corpus.join(name))?;
    }
    println!("{}: {} files, {} kept", corpus.display(), files.len(), files.len().min(MOST_FILES));
    Ok(())
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    let program = command.get_program().display();
    Err(io::Error::other(format!("{program} failed ({status}); if an input was found, its file is named above")))
}
