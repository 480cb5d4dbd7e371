//! Where settings come from: variables and files, given whole so that tests need no real ones.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::app::supervisor;

/// Reads a file for the configuration.
type ReadFile = Box<dyn Fn(&Path) -> io::Result<String>>;

/// The environment of a process.
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Variables whose text is not Unicode: nothing of ours, unless one is asked for.
    unreadable: Vec<String>,
    read: ReadFile,
    /// Logical cores of the machine.
    pub cores: usize,
    /// The arguments the process was started with, without its own name.
    pub arguments: Vec<String>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        Self::new(std::env::vars_os(), Box::new(|path| std::fs::read_to_string(path)), cores, arguments)
    }

    /// An environment of these variables, and files read with `read`.
    #[must_use]
    pub fn new(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        read: ReadFile,
        cores: usize,
        arguments: Vec<String>,
    ) -> Self {
        let (mut readable, mut unreadable) = (BTreeMap::new(), Vec::new());
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(readable.insert(name, value)),
                (Ok(name), Err(_)) => unreadable.push(name),
                (Err(_), _) => {}
            }
        }
        Self { variables: readable, unreadable, read, cores: cores.max(1), arguments }
    }

    /// Istio's version, which the image says.
    #[must_use]
    pub fn istio_version(&self) -> String {
        self.get("ISTIO_META_ISTIO_VERSION").unwrap_or("unknown").to_owned()
    }

    /// Who wants to hear how the process fares (sd_notify(3), sd_watchdog_enabled(3)).
    #[must_use]
    pub fn supervisor(&self) -> supervisor::Config {
        let meant = self.get("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = self.get("WATCHDOG_USEC").filter(|_| meant).and_then(|time| time.parse().ok());
        supervisor::Config {
            socket: self.get("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(Into::into),
            watchdog: watchdog.filter(|time| *time > 0).map(Duration::from_micros),
        }
    }

    /// The text of a variable; set to nothing counts as set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// All variables in order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether a variable is set to something that is no text.
    pub(super) fn is_unreadable(&self, name: &str) -> bool {
        self.unreadable.iter().any(|other| other == name)
    }

    /// The content of a file; `None` if there is none.
    pub(super) fn file(&self, path: &Path) -> io::Result<Option<String>> {
        match (self.read)(path) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
