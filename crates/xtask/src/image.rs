//! `cargo xtask image`: the Dockerfile, looked at by checkov, which is got at a fixed version as `cargo xtask interop`
//! gets its tools. Whether the image can be built is not known afterwards.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::interop::{need, succeed, tools};

const CHECKOV: &str = "checkov==3.2.334";

/// What checkov asks for and this image cannot have, each with its reason.
const NOT_FOR_US: [(&str, &str); 3] = [
    ("CKV_DOCKER_2", "no health check: Kubernetes asks for readiness, and there is nothing in the image to ask with"),
    ("CKV_DOCKER_3", "root: Kubernetes gives the capabilities that entering namespaces takes to root alone"),
    ("CKV_DOCKER_7", "no tag of the base: distroless has the release of Debian in its name, and moves with its fixes"),
];

/// Lints the Dockerfile.
///
/// # Errors
/// What could not be got, or that something was found, which has been printed.
pub fn run(workspace: &Path) -> io::Result<()> {
    let tools = tools()?;
    fs::create_dir_all(&tools)?;
    let checkov = tools.join("checkov");
    if !checkov.exists() {
        need("pip", "python3-pip")?;
        succeed(Command::new("pip").args(["install", "--quiet", "--target"]).arg(&checkov).arg(CHECKOV))?;
    }
    let skipped: Vec<&str> = NOT_FOR_US.iter().map(|(check, _)| *check).collect();
    let mut judge = Command::new("python3");
    judge.args(["-m", "checkov.main", "--compact", "--quiet", "--skip-download", "--framework", "dockerfile"]);
    judge.args(["--skip-check", &skipped.join(","), "--file"]).arg(workspace.join("deploy/Dockerfile"));
    succeed(judge.env("PYTHONPATH", &checkov))
}
