//! `cargo xtask lint`: the Dockerfile, looked at by checkov, the Helm chart, by Helm itself, and the alerts, by promtool;
//! the first two are got at a fixed version as `cargo xtask interop` gets its tools, the last is that of Debian's package.
//! Whether the image can be built, and whether a cluster takes what the chart makes, is not known afterwards.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::interop::{need, succeed, tools};

const CHECKOV: &str = "checkov==3.2.334";
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.16.4";

/// What checkov asks for and this image cannot have, each with its reason.
const NOT_FOR_US: [(&str, &str); 3] = [
    ("CKV_DOCKER_2", "no health check: Kubernetes asks for readiness, and there is nothing in the image to ask with"),
    ("CKV_DOCKER_3", "root: Kubernetes gives the capabilities that entering namespaces takes to root alone"),
    ("CKV_DOCKER_7", "no tag of the base: distroless has the release of Debian in its name, and moves with its fixes"),
];

/// Lints what `deploy/` has for Kubernetes.
///
/// # Errors
/// What could not be got, or that something was found, which has been printed.
pub fn run(workspace: &Path) -> io::Result<()> {
    let tools = tools()?;
    fs::create_dir_all(&tools)?;
    dockerfile(workspace, &tools)?;
    chart(&workspace.join("deploy/helm/ztunnel"), &tools)?;
    alerts(&workspace.join("deploy/monitoring/alerts.yaml"), &tools)
}

/// The package is unpacked and not installed, which would start a Prometheus.
fn alerts(rules: &Path, tools: &Path) -> io::Result<()> {
    let unpacked = tools.join("prometheus");
    let promtool = unpacked.join("usr/bin/promtool");
    if !promtool.exists() {
        fs::create_dir_all(&unpacked)?;
        succeed(Command::new("apt-get").args(["update", "-qq"]))?;
        succeed(Command::new("apt-get").args(["download", "-qq", "prometheus"]).current_dir(&unpacked))?;
        let downloaded = fs::read_dir(&unpacked)?.filter_map(|entry| Some(entry.ok()?.path()));
        let package = downloaded.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "deb"));
        let package = package.ok_or_else(|| io::Error::other("apt-get has downloaded no package"))?;
        succeed(Command::new("dpkg").arg("--extract").arg(&package).arg(&unpacked))?;
        fs::remove_file(package)?;
    }
    succeed(Command::new(&promtool).args(["check", "rules"]).arg(rules))
}

fn chart(chart: &Path, tools: &Path) -> io::Result<()> {
    let helm = tools.join("helm");
    if !helm.exists() {
        need("go", "golang-go")?;
        succeed(Command::new("go").args(["install", HELM]).env("GOBIN", tools))?;
    }
    // The one value without a default.
    let image = ["--set", "image=example.com/ztunnel:0"];
    succeed(Command::new(&helm).args(["lint", "--strict"]).args(image).arg(chart))?;
    let mut template = Command::new(&helm);
    let made = template.args(["template", "ztunnel", "--namespace", "istio-system"]).args(image).arg(chart).output()?;
    if !made.status.success() || !String::from_utf8_lossy(&made.stdout).contains("kind: DaemonSet") {
        return Err(io::Error::other(format!(
            "the chart makes no DaemonSet: {}",
            String::from_utf8_lossy(&made.stderr)
        )));
    }
    Ok(())
}

fn dockerfile(workspace: &Path, tools: &Path) -> io::Result<()> {
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
