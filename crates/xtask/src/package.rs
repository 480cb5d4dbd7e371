//! `cargo xtask package`: a tarball and a Debian package of the release binary, with units, settings and manual.
//!
//! The same inputs give the same bytes: files come in order, belong to root, and bear the time of the commit (or
//! `SOURCE_DATE_EPOCH`). [`trial`] installs the package on a fresh Debian root, uses it, and looks for traces afterwards.

mod archive;
mod deb;
mod trial;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use archive::File;
pub use trial::run as trial;

const NAME: &str = "ztunnel";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was made.
#[derive(Debug, Clone)]
pub struct Packages {
    /// The Debian package.
    pub deb: PathBuf,
    /// The tarball, whose files lie below one folder.
    pub tarball: PathBuf,
}

/// Packs `binary`, or else what a release build gives, into files in `target/package` beside where this program runs.
///
/// # Errors
/// The build fails, or a file cannot be read or written.
pub fn run(workspace: &Path, binary: Option<&Path>) -> io::Result<Packages> {
    let target = target_folder()?;
    let built = target.join("release").join(NAME);
    let binary = match binary {
        Some(binary) => binary,
        None => {
            let mut build = Command::new("cargo");
            build.current_dir(workspace).args(["build", "--release", "--locked", "--package", NAME, "--bin", NAME]);
            if !build.status()?.success() {
                return Err(io::Error::other("the release build failed"));
            }
            &built
        }
    };
    let folder = target.join("package");
    fs::create_dir_all(&folder)?;
    let (files, time) = (contents(workspace, binary)?, time(workspace)?);
    let deb = folder.join(format!("{NAME}_{VERSION}_{}.deb", deb::architecture()));
    let tarball = folder.join(format!("{NAME}-{VERSION}-linux-{}.tar.gz", std::env::consts::ARCH));
    fs::write(&deb, deb::pack(&files, time)?)?;
    fs::write(&tarball, archive::pack(&format!("{NAME}-{VERSION}/"), &files, time)?)?;
    println!("{}\n{}", deb.display(), tarball.display());
    Ok(Packages { deb, tarball })
}

/// Where cargo builds: this program is in a folder of it.
fn target_folder() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).map(Path::to_owned);
    target.ok_or_else(|| io::Error::other("this program is not in a target folder"))
}

/// Files as they are installed, in order of their paths.
fn contents(workspace: &Path, binary: &Path) -> io::Result<Vec<File>> {
    let of = |path: &str, from: &str| File::read(path, &workspace.join(from), archive::PLAIN);
    let mut files = vec![
        File::read("usr/bin/ztunnel", binary, archive::PROGRAM)?,
        of("etc/ztunnel/ztunnel.env", "deploy/linux/ztunnel.env")?,
        of("etc/ztunnel/mesh.yaml", "examples/localhost.yaml")?,
        of("lib/systemd/system/ztunnel.service", "deploy/linux/ztunnel.service")?,
        of("lib/systemd/system/ztunnel-redirect.service", "deploy/linux/ztunnel-redirect.service")?,
        of("usr/share/doc/ztunnel/copyright", "LICENSE")?,
    ];
    for page in ["configuration.md", "deploy.md", "troubleshooting.md", "compatibility.md"] {
        files.push(of(&format!("usr/share/doc/ztunnel/{page}"), &format!("docs/{page}"))?);
    }
    let manual = fs::read(workspace.join("deploy/linux/ztunnel.8"))?;
    let manual = archive::compress(&manual)?;
    files.push(File { path: "usr/share/man/man8/ztunnel.8.gz".to_owned(), mode: archive::PLAIN, content: manual });
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The time that all files bear, in seconds since 1970.
fn time(workspace: &Path) -> io::Result<u64> {
    if let Some(epoch) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let epoch = epoch.to_str().and_then(|epoch| epoch.parse().ok());
        return epoch.ok_or_else(|| io::Error::other("SOURCE_DATE_EPOCH is not a number of seconds"));
    }
    let output = Command::new("git").current_dir(workspace).args(["log", "-1", "--format=%ct"]).output()?;
    let time = String::from_utf8_lossy(&output.stdout).trim().parse();
    time.map_err(|_| io::Error::other("this is no git checkout: set SOURCE_DATE_EPOCH"))
}
