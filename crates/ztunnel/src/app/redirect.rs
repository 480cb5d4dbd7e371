//! `ztunnel redirect`: the packet rules that lead traffic to a ztunnel, for machines on which no node agent does that.
//!
//! What is asked for is read whole before anything is touched. Rules are programmed by the `redirect` crate, in the
//! namespace of this process or in one that is named; whether a ztunnel runs there is not looked at.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redirect::DnsCapture;
use redirect::host::{Host, MOST_PORTS, Whose};
use redirect::own::{self, Installed, Removed, Target};
use serde_json::json;

use super::{Failure, failure};
use crate::net::netns::Netns;

/// How it is used.
pub const USAGE: &str = "\
usage: ztunnel redirect install host|user NAME|cgroup PATH|pod NETNS [--dns] [--inbound PORT,PORT..]
       ztunnel redirect remove [NETNS]
       ztunnel redirect show [NETNS] [--json]
host: what leaves this host; user: what a user opens, also within this host; cgroup: what the programs of a control group
send away; pod: all traffic of a network namespace, as in an enrolled pod; NETNS: a file such as /run/netns/NAME or
/proc/PID/ns/net. --dns: name queries, too. --inbound: plaintext for these ports of this host, too";

/// Where the control groups of version 2 are.
const CGROUPS: &str = "/sys/fs/cgroup";
const USERS: &str = "/etc/passwd";

/// What was asked for, as words only.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Install { target: Wanted<'a>, dns: DnsCapture, inbound: Vec<u16> },
    Remove { netns: Option<&'a str> },
    Show { netns: Option<&'a str>, form: Form },
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Host,
    User(&'a str),
    Cgroup(&'a str),
    Pod(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Json,
}

/// Does what the arguments behind `redirect` say; returns what is to be printed.
///
/// # Errors
/// [`Failure`]: one line that says what to do, or how the command is used.
pub fn run(arguments: &[String]) -> Result<String, Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match read(&arguments).ok_or_else(|| Failure(USAGE.to_owned()))? {
        Request::Install { target, dns, inbound } => {
            let netns = if let Wanted::Pod(netns) = target { Some(netns) } else { None };
            let target = find(&target, dns, inbound)?;
            let comment = format!("ztunnel redirect {}", arguments.join(" "));
            within(netns, || own::install(&target, &comment))?.map_err(failure)?;
            Ok("installed; `ztunnel redirect show` tells what it does\n".to_owned())
        }
        Request::Remove { netns } => match within(netns, own::remove)?.map_err(failure)? {
            Removed::All => Ok("removed\n".to_owned()),
            Removed::Nothing => Ok("nothing was installed here\n".to_owned()),
        },
        Request::Show { netns, form } => {
            let installed = within(netns, own::installed)?.map_err(failure)?;
            Ok(match form {
                Form::Lines => lines(installed.as_ref()),
                Form::Json => as_json(installed.as_ref()),
            })
        }
    }
}

/// Reads the words; `None` if they mean nothing.
fn read<'a>(arguments: &[&'a str]) -> Option<Request<'a>> {
    match arguments {
        ["install", "host", options @ ..] => install(Wanted::Host, options),
        ["install", "user", name, options @ ..] => install(Wanted::User(name), options),
        ["install", "cgroup", path, options @ ..] => install(Wanted::Cgroup(path), options),
        ["install", "pod", netns, options @ ..] => install(Wanted::Pod(netns), options),
        ["remove"] => Some(Request::Remove { netns: None }),
        ["remove", netns] => Some(Request::Remove { netns: Some(netns) }),
        ["show"] => Some(Request::Show { netns: None, form: Form::Lines }),
        ["show", "--json"] => Some(Request::Show { netns: None, form: Form::Json }),
        ["show", netns] => Some(Request::Show { netns: Some(netns), form: Form::Lines }),
        ["show", netns, "--json"] | ["show", "--json", netns] => {
            Some(Request::Show { netns: Some(netns), form: Form::Json })
        }
        _ => None,
    }
}

fn install<'a>(target: Wanted<'a>, mut options: &[&'a str]) -> Option<Request<'a>> {
    let (mut dns, mut inbound) = (DnsCapture::Off, Vec::new());
    loop {
        options = match options {
            [] => break,
            ["--dns", rest @ ..] => {
                dns = DnsCapture::On;
                rest
            }
            // A pod's plaintext is captured whole.
            ["--inbound", ports, rest @ ..] if !matches!(target, Wanted::Pod(_)) => {
                let ports: Result<Vec<u16>, _> = ports.split(',').map(str::parse).collect();
                inbound.extend(ports.ok()?);
                rest
            }
            _ => return None,
        };
    }
    (inbound.len() <= MOST_PORTS).then_some(Request::Install { target, dns, inbound })
}

/// What the words name.
fn find(wanted: &Wanted<'_>, dns: DnsCapture, inbound: Vec<u16>) -> Result<Target, Failure> {
    let whose = match wanted {
        Wanted::Pod(_) => return Ok(Target::Pod(dns)),
        Wanted::Host => Whose::All,
        Wanted::User(name) => Whose::User(user(name)?),
        Wanted::Cgroup(path) => cgroup(path)?,
    };
    Ok(Target::Host(Host { whose, dns, inbound }))
}

fn user(name: &str) -> Result<u32, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let users = fs::read_to_string(USERS).map_err(|e| Failure(format!("{USERS}: {e}; give the user's number")))?;
    number_of(name, &users).ok_or_else(|| Failure(format!("{USERS} has no user {name}; give the user's number")))
}

/// The third field of the line of that name (passwd(5)).
fn number_of(name: &str, users: &str) -> Option<u32> {
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields[0] == name)?.get(2)?.parse().ok()
}

fn cgroup(path: &str) -> Result<Whose, Failure> {
    let below = path.strip_prefix(CGROUPS).unwrap_or(path).trim_matches('/');
    let folder: PathBuf = Path::new(CGROUPS).join(below);
    let fail = |error: &dyn std::fmt::Display| {
        Failure(format!(
            "{}: {error}; name a control group of version 2, such as system.slice/NAME.service",
            folder.display()
        ))
    };
    let level = below.split('/').filter(|part| !part.is_empty()).count();
    let (1.., Ok(level)) = (level, u32::try_from(level)) else {
        return Err(fail(&"this is the root, which is the whole host"));
    };
    fs::metadata(folder.join("cgroup.procs")).map_err(|e| fail(&e))?;
    let id = fs::metadata(&folder).map_err(|e| fail(&e))?.ino();
    Ok(Whose::Cgroup { id, level })
}

fn within<T>(netns: Option<&str>, act: impl FnOnce() -> T) -> Result<T, Failure> {
    let Some(path) = netns else { return Ok(act()) };
    let entered = File::open(path).and_then(|file| Netns::new(file.into())).and_then(|netns| netns.run(act));
    entered.map_err(|error| {
        Failure(format!(
            "{path}: {error}; name a network namespace, such as /proc/PID/ns/net; entering it takes CAP_SYS_ADMIN"
        ))
    })
}

fn lines(installed: Option<&Installed>) -> String {
    let Some(installed) = installed else { return "nothing is installed here\n".to_owned() };
    let mut text = format!("by `{}`\n", installed.comment);
    for rule in &installed.rules {
        let (packets, bytes) = rule.counted.unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<15} {:<18} {packets:>10} packets {bytes:>12} bytes  {}",
            rule.table, rule.chain, rule.comment
        );
    }
    text
}

fn as_json(installed: Option<&Installed>) -> String {
    let rules = installed.map(|installed| {
        let rules = installed.rules.iter().map(|rule| {
            let (packets, bytes) = rule.counted.unwrap_or_default();
            json!({"table": rule.table, "chain": rule.chain, "purpose": rule.comment, "packets": packets, "bytes": bytes})
        });
        rules.collect::<Vec<_>>()
    });
    let command = installed.map(|installed| &installed.comment);
    format!("{:#}\n", json!({"installed": rules.is_some(), "command": command, "rules": rules.unwrap_or_default()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<&str> {
        line.split(' ').collect()
    }

    #[test]
    fn options_may_follow_any_target_but_a_pod_has_no_ports_to_choose() {
        let host = Request::Install { target: Wanted::Host, dns: DnsCapture::On, inbound: vec![80, 443] };
        assert_eq!(read(&words("install host --inbound 80,443 --dns")), Some(host));
        let user = Request::Install { target: Wanted::User("demo"), dns: DnsCapture::Off, inbound: Vec::new() };
        assert_eq!(read(&words("install user demo")), Some(user));
        for wrong in [
            "install pod /x --inbound 80",
            "install user",
            "install host --inbound",
            "install host --inbound 80,",
            "install host --inbound 70000",
            "install host all",
            "remove a b",
            "",
        ] {
            assert_eq!(read(&words(wrong)), None, "{wrong}");
        }
        let many = vec!["1"; MOST_PORTS + 1].join(",");
        assert_eq!(read(&["install", "host", "--inbound", &many]), None);
    }

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\ndemonstrator:x:7:7::/:/bin/sh\ndemo:x:1000:1000::/:/bin/sh\n:\n";
        assert_eq!(number_of("demo", users), Some(1000));
        assert_eq!(number_of("nobody", users), None);
        assert_eq!(user("1234").unwrap(), 1234);
    }

    #[test]
    fn the_root_and_what_is_no_control_group_are_refused_with_an_example() {
        for path in ["/", "/sys/fs/cgroup/", "no/such/group"] {
            let error = cgroup(path).unwrap_err().to_string();
            assert!(error.contains("such as system.slice/") && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn nothing_installed_is_told_in_both_forms() {
        assert_eq!(lines(None), "nothing is installed here\n");
        let told: serde_json::Value = serde_json::from_str(&as_json(None)).unwrap();
        assert_eq!(told, json!({"installed": false, "command": null, "rules": []}));
    }
}
