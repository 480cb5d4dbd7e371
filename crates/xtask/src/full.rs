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
    crate::interop::need("chromium", "chromium")?;
    let schedules = ["--nocapture", "schedules"].as_slice();
    for (package, test, arguments) in
        [("fuzz", "schedules", schedules), ("hbone", "http2", schedules), ("ztunnel", "mesh", &["--ignored"])]
    {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace).env("SCHEDULES", SCHEDULES);
        cargo.args(["test", "--locked", "--package", package, "--test", test, "--"]).args(arguments);
        let status = cargo.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("test {test} of {package} failed ({status})")));
        }
    }
    // Each in a process of its own, which enters a sandbox.
    for arguments in [&["soak"][..], &["package", "--try"]] {
        let status = Command::new(std::env::current_exe()?).current_dir(workspace).args(arguments).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{arguments:?} failed ({status})")));
        }
    }
    crate::providers::run(workspace, &[])
}
