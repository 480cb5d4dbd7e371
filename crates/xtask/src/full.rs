//! `cargo xtask full`: what holds and takes too long to be shown with every change.

use std::io;
use std::path::Path;
use std::process::Command;

/// Schedules of two tunnels on a virtual link, and of two HTTP/2 machines.
const SCHEDULES: &str = "10000";

/// Runs everything that is too long for `.ci/run`.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(workspace: &Path) -> io::Result<()> {
    for (package, test) in [("fuzz", "schedules"), ("hbone", "http2")] {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace).env("SCHEDULES", SCHEDULES);
        cargo.args(["test", "--locked", "--package", package, "--test", test, "--", "--nocapture", "schedules"]);
        let status = cargo.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("the schedules of {package} failed ({status})")));
        }
    }
    Ok(())
}
