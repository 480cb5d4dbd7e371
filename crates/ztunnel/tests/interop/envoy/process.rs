//! A running Envoy with a static configuration.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::apps;
use testkit::mesh::Pod;

use crate::{Outcome, credentials, eventually, program};

/// Where its configurations have the admin server.
const ADMIN_PORT: u16 = 9901;

/// An Envoy process in a pod; dropped, it is killed and reaped.
pub struct Envoy {
    child: Child,
    log: PathBuf,
}

impl Envoy {
    /// Starts Envoy in `pod` with a configuration in which `${NAME}` stands for the value of `NAME` in `values`, and for
    /// files with the credentials of `identity` (`CHAIN`, `KEY`, `ROOT`). Waits until it serves.
    pub fn start(pod: &Pod, config: &str, identity: &str, values: &[(&str, &str)]) -> Outcome<Self> {
        let folder = unused_folder()?;
        let files = credentials::files(identity, &folder)?;
        let mut text = config.to_owned();
        for (name, path) in [("CHAIN", &files.chain), ("KEY", &files.key), ("ROOT", &files.root)] {
            text = text.replace(&format!("${{{name}}}"), &path.display().to_string());
        }
        for (name, value) in values {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        let config = folder.join("envoy.yaml");
        fs::write(&config, text)?;
        let log = folder.join("envoy.log");
        let output = File::create(&log)?;
        let mut command = pod.command(program("ENVOY")?);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        command.args(["--file-flush-interval-msec", "20", "--config-path"]);
        command.arg(&config).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut envoy = Self { child: command.spawn()?, log };
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
        let serves = || apps::get(pod.netns(), admin, "/ready").is_ok_and(|answer| answer.status == 200);
        let mut ended = None;
        eventually("Envoy serves", || {
            ended = envoy.child.try_wait().ok().flatten();
            ended.is_some() || serves()
        })
        .map_err(|error| format!("{error}: {}", envoy.output()))?;
        match ended {
            Some(status) => Err(format!("Envoy ended with {status}: {}", envoy.output()).into()),
            None => Ok(envoy),
        }
    }

    /// What it has written so far, its access log included.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Already ended: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the sandbox's own `/run`, which goes with it.
fn unused_folder() -> Outcome<PathBuf> {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let folder = PathBuf::from(format!("/run/envoy/{}", STARTED.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
