//! The sandbox as its users meet it: a program that finds itself inside, and nothing left once it is gone.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use testkit::harness::{self, Outcome, test};
use testkit::sandbox;

/// Makes this program play a part instead of running tests.
const PART: &str = "TESTKIT_TEST_PART";
/// Long enough for a loaded machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match std::env::var(PART).as_deref() {
        Ok("family") => family(),
        Ok("member") => loop {
            std::thread::park();
        },
        Ok("exit 7") => sandbox::enter().map_or(ExitCode::FAILURE, |_| ExitCode::from(7)),
        _ => harness::main(vec![
            test("the program inside is root, alone with its init, and has an empty /run", alone),
            test("a killed launcher leaves no process behind", killed_launcher),
            test("a terminated launcher ends the program inside and tells by which signal", terminated_launcher),
            test("the exit status of the program inside is the launcher's", exit_status),
        ]),
    }
}

/// A program in a sandbox with a child of its own, both of which would stay for ever.
fn family() -> ExitCode {
    let Ok(_inside) = sandbox::enter() else { return ExitCode::FAILURE };
    let child = Command::new("/proc/self/exe").env(PART, "member").spawn();
    println!("family of {} is complete: {}", std::process::id(), child.is_ok());
    loop {
        std::thread::park();
    }
}

fn alone() -> Outcome {
    assert!(nix::unistd::geteuid().is_root());
    let processes = fs::read_dir("/proc")?.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let mut pids: Vec<String> = processes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    pids.sort();
    assert!(pids.contains(&"1".to_owned()), "{pids:?}");
    assert!(!std::path::Path::new("/run/lock").exists());
    assert!(sandbox::outer_pid().is_some_and(|pid| pid > 1));
    Ok(())
}

fn start_family() -> Result<(Child, BufReader<ChildStdout>), Box<dyn Error>> {
    let mut command = Command::new("/proc/self/exe");
    let mut launcher = sandbox::forget_sandbox(&mut command).env(PART, "family").stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(launcher.stdout.take().ok_or("no stdout")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    assert!(line.ends_with("is complete: true\n"), "{line:?}");
    Ok((launcher, output))
}

/// Every member of the family holds the pipe that is its standard output; it ends when the last of them has.
fn wait_for_the_end_of_all(mut output: BufReader<ChildStdout>) -> Outcome {
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(output.read_to_end(&mut Vec::new())));
    end.recv_timeout(DEADLINE).map_err(|_| "somebody still holds the pipe")??;
    Ok(())
}

fn killed_launcher() -> Outcome {
    let (mut launcher, output) = start_family()?;
    launcher.kill()?;
    launcher.wait()?;
    wait_for_the_end_of_all(output)
}

fn terminated_launcher() -> Outcome {
    let (mut launcher, output) = start_family()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(launcher.id().cast_signed()), nix::sys::signal::SIGTERM)?;
    let status = launcher.wait()?;
    assert_eq!((status.code(), status.signal()), (Some(128 + 15), None));
    wait_for_the_end_of_all(output)
}

fn exit_status() -> Outcome {
    let mut command = Command::new("/proc/self/exe");
    assert_eq!(sandbox::forget_sandbox(&mut command).env(PART, "exit 7").status()?.code(), Some(7));
    Ok(())
}
