//! `cargo xtask package --try`: installs the Debian package on a fresh Debian root, runs what its units say, has a
//! connection redirected and carried, and uninstalls it without a trace.
//!
//! The root is made once by debootstrap, which needs to be installed, root's rights and the network; every trial is on a
//! copy, in a sandbox with a network of its own. No systemd runs there: commands and settings are read from the units and
//! carried out as they stand, and so what systemd itself makes of them is not tried.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use testkit::redirect::nft::list;
use testkit::sandbox;

use super::Packages;
use crate::patience::accept;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const RELEASE: &str = "bookworm";
/// Long enough for a loaded machine; only a failing trial waits for it.
const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Whose connections the settings have redirected.
const USER: &str = "4242:4242";
/// The service of the demonstration's mesh, and the app behind it.
const SERVICE: &str = "127.10.0.1/80";
const APP: &str = "127.0.0.1:8080";
/// What dpkg keeps for itself, whatever is installed and removed.
const OF_DPKG: [&str; 4] = ["proc", "run", "var/lib/dpkg", "var/log"];

/// Tries a package. Called again inside the sandbox that it makes.
///
/// # Errors
/// What did not hold, or could not be set up.
pub fn run(make: impl FnOnce() -> io::Result<Packages>) -> Outcome {
    let folder = super::target_folder()?.join("package");
    let (fresh, copy) = (folder.join(RELEASE), folder.join("trial"));
    if sandbox::outer_pid().is_none() {
        let packages = make()?;
        debootstrap(&fresh)?;
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        succeed(Command::new("cp").arg("-a").args([&fresh, &copy]))?;
        fs::copy(&packages.deb, copy.join("tmp/ztunnel.deb"))?;
    }
    let _inside = sandbox::enter()?;
    let tried = Trial { root: copy.clone() }.run();
    let unmounted = succeed(Command::new("umount").arg(copy.join("proc")));
    if tried.is_ok() && unmounted.is_ok() {
        fs::remove_dir_all(&copy)?; // what failed is left to be looked at
    }
    tried
}

/// A Debian of the smallest kind; whole, or not there.
fn debootstrap(root: &Path) -> Outcome {
    if root.exists() {
        return Ok(());
    }
    let unfinished = root.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    succeed(Command::new("debootstrap").args(["--variant=minbase", RELEASE]).arg(&unfinished))?;
    Ok(fs::rename(unfinished, root)?)
}

struct Trial {
    root: PathBuf,
}

impl Trial {
    fn run(&self) -> Outcome {
        succeed(Command::new("mount").args(["-t", "proc", "proc"]).arg(self.root.join("proc")))?;
        let before = self.files()?;
        succeed(self.inside("dpkg").args(["--install", "/tmp/ztunnel.deb"]))?;
        println!("[ok] installs");
        self.use_it()?;
        succeed(self.inside("dpkg").args(["--purge", "ztunnel"]))?;
        let after = self.files()?;
        let differ = |path: &&PathBuf| before.get(*path) != after.get(*path);
        let traces: Vec<_> = before.keys().chain(after.keys()).filter(differ).collect();
        if !traces.is_empty() {
            return Err(format!("files differ after the package was removed: {traces:?}").into());
        }
        if !list::tables()?.is_empty() {
            return Err("packet rules are left after the package was removed".into());
        }
        println!("[ok] uninstalls without a trace");
        Ok(())
    }

    /// What the units do, with the settings that come along.
    fn use_it(&self) -> Outcome {
        let settings = self.settings()?;
        let notices = UnixDatagram::bind(self.root.join("run/notify"))?;
        notices.set_read_timeout(Some(DEADLINE))?;
        succeed(&mut self.unit("ztunnel-redirect.service", "ExecStart", &settings)?)?;
        let mut start = self.unit("ztunnel.service", "ExecStart", &settings)?;
        let log = fs::File::create(self.root.join("tmp/log"))?;
        start.env("NOTIFY_SOCKET", "/run/notify").env("WATCHDOG_USEC", "1000000").stdout(log);
        let mut ztunnel = Running(start.spawn()?);
        hear(&notices, "READY=1")?;
        hear(&notices, "WATCHDOG=1")?;
        println!("[ok] starts, says that it serves, and feeds the watchdog");
        self.connect()?;
        succeed(Command::new("kill").arg(ztunnel.0.id().to_string()))?;
        hear(&notices, "STOPPING=1")?;
        if !ztunnel.end()?.success() {
            return Err("ztunnel did not end in order".into());
        }
        succeed(&mut self.unit("ztunnel-redirect.service", "ExecStop", &settings)?)?;
        fs::remove_file(self.root.join("tmp/log"))?;
        fs::remove_file(self.root.join("tmp/ztunnel.deb"))?;
        println!("[ok] drains and ends with status 0");
        Ok(())
    }

    /// The redirected user asks the service, and the app behind it answers through a tunnel.
    fn connect(&self) -> Outcome {
        let app = TcpListener::bind(APP)?;
        let script = format!("exec 3<>/dev/tcp/{SERVICE}; echo ask >&3; read -r -u 3 answer; echo \"$answer\"");
        let mut client = Command::new("chroot");
        client.args(["--userspec", USER]).arg(&self.root).args(["/bin/bash", "-c", &script]);
        let client = Running(client.stdout(Stdio::piped()).spawn()?);
        let mut stream = accept(&app, DEADLINE)?;
        let mut asked = [0; 4];
        stream.read_exact(&mut asked)?;
        stream.write_all(b"answer\n")?;
        drop(stream);
        let mut answer = String::new();
        let mut client = client;
        client.0.stdout.take().ok_or("no output")?.read_to_string(&mut answer)?;
        if (asked, answer.as_str()) != (*b"ask\n", "answer\n") {
            return Err(format!("the client said {asked:?} and heard {answer:?}").into());
        }
        let carried = |log: &str| {
            let line = |direction: &str| log.lines().any(|l| l.contains(direction) && l.contains("hbone_addr"));
            line("direction=\"outbound\"") && line("direction=\"inbound\"")
        };
        let start = Instant::now();
        while !carried(&fs::read_to_string(self.root.join("tmp/log"))?) {
            if start.elapsed() > DEADLINE {
                return Err("the log does not tell of a tunnel; see tmp/log of the root".into());
            }
            std::thread::sleep(PAUSE);
        }
        let shown = self.inside("/usr/bin/ztunnel").args(["redirect", "show"]).output()?;
        print!("{}", String::from_utf8_lossy(&shown.stdout));
        println!("[ok] a user's connection is redirected, and carried through a tunnel to the service's app");
        Ok(())
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Lines of the environment file (systemd.exec(5)).
    fn settings(&self) -> Outcome<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.root.join("etc/ztunnel/ztunnel.env"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// A command of a unit; a word that is a variable becomes its words (systemd.service(5)).
    fn unit(&self, unit: &str, key: &str, settings: &BTreeMap<String, String>) -> Outcome<Command> {
        let text = fs::read_to_string(self.root.join("lib/systemd/system").join(unit))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let line = line.ok_or_else(|| format!("{unit} has no {key}"))?;
        let words = line.split_whitespace().flat_map(|word| match word.strip_prefix('$') {
            Some(name) => settings.get(name).map_or("", String::as_str).split_whitespace().collect(),
            None => vec![word],
        });
        let words: Vec<&str> = words.collect();
        let mut command = self.inside(words[0]);
        command.args(&words[1..]).envs(settings);
        Ok(command)
    }

    /// Everything in the root, as far as it is not dpkg's own.
    fn files(&self) -> io::Result<BTreeMap<PathBuf, (u32, u64)>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let (path, about) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
                let inside = path.strip_prefix(&self.root).map_err(io::Error::other)?.to_owned();
                if OF_DPKG.iter().any(|own| inside == Path::new(own)) {
                    continue;
                }
                let mut hasher = DefaultHasher::new();
                if about.is_symlink() {
                    fs::read_link(&path)?.hash(&mut hasher);
                } else if about.is_file() {
                    fs::read(&path)?.hash(&mut hasher);
                } else if about.is_dir() {
                    folders.push(path);
                }
                found.insert(inside, (about.mode(), hasher.finish()));
            }
        }
        found.remove(Path::new("tmp/ztunnel.deb"));
        Ok(found)
    }
}

/// A process that does not outlive its trial.
struct Running(Child);

impl Running {
    fn end(&mut self) -> Outcome<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > DEADLINE {
                return Err("a process did not end".into());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already: then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hear(notices: &UnixDatagram, awaited: &str) -> Outcome {
    let mut text = [0; 128];
    loop {
        let length = notices.recv(&mut text).map_err(|error| format!("{awaited} was not heard: {error}"))?;
        if text[..length].starts_with(awaited.as_bytes()) {
            return Ok(());
        }
    }
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{program}: {e}; is it installed?"));
    let status = command.status().map_err(named)?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} failed ({status})"))) }
}
