//! Programs of a benchmark: started in a pod, killed when dropped, and what the kernel has counted for them.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;
use testkit::mesh::Pod;
use testkit::ztunnel::Ztunnel;

use super::Outcome;

/// Clock ticks per second in `/proc`: the same on every Linux that Rust runs on.
pub(super) const TICKS: f64 = 100.0;
/// Between two looks at a program that shall end.
const PAUSE: Duration = Duration::from_millis(20);

/// A program that runs until it is dropped.
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Starts `program` in a pod; what it says goes to this program's error output.
    pub(super) fn start(pod: &Pod, program: &Path, arguments: &[String]) -> Outcome<Self> {
        let mut command = pod.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and returns what it wrote.
///
/// It is killed after `patience`: a transfer that hangs must not hang the benchmark.
pub(super) fn output(mut command: Command, patience: Duration) -> Outcome<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().ok_or("no pipe")?;
    let reader = std::thread::spawn(move || -> io::Result<String> {
        let mut text = String::new();
        pipe.read_to_string(&mut text)?;
        Ok(text)
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Err(format!("{name} did not end within {patience:?}").into());
        }
        std::thread::sleep(PAUSE);
    };
    let text = reader.join().map_err(|_| "reading the output panicked")??;
    if status.success() { Ok(text) } else { Err(format!("{name} failed ({status}): {text}").into()) }
}

/// Seconds of CPU that all threads of a process have used, in the kernel and out of it.
pub(super) fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| format!("process {pid}: {error}"))?;
    // The name, in parentheses, may contain anything; what follows are fields 3 and on of proc(5).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(14).zip(ticks(15)).ok_or("/proc/<pid>/stat has no times")?;
    Ok((user + system) / TICKS)
}

/// As [`cpu_seconds`], to the nanosecond: for what costs less than a tick.
pub(super) fn precise_cpu_seconds(pid: u32) -> Outcome<f64> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()));
    let time = clock.and_then(ClockId::now).map_err(|errno| format!("process {pid}: {errno}"))?;
    Ok(Duration::from(time).as_secs_f64())
}

/// Seconds of CPU of the ztunnels at both ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends([f64; 2]);

impl Ends {
    /// What the near and the far one have used so far.
    pub(super) fn now(near: &Ztunnel, far: &Ztunnel) -> Outcome<Self> {
        Ok(Self([precise_cpu_seconds(near.pid())?, precise_cpu_seconds(far.pid())?]))
    }

    /// Microseconds of each that every one of so many pieces cost since `before`.
    pub(super) fn each(self, before: Ends, count: f64) -> [f64; 2] {
        [0, 1].map(|end| (self.0[end] - before.0[end]) / count.max(1.0) * 1e6)
    }
}

/// CPU time of the whole machine and of this sandbox, to see what others do meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// All ticks of all cores, idle ones included.
    all: f64,
    /// Those in which a core worked, or was kept from it by the hypervisor.
    busy: f64,
    /// Those that processes of this sandbox have used.
    own: f64,
}

impl Machine {
    pub(super) fn now() -> Outcome<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in the first two already.
        let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
        let all: f64 = ticks.iter().sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        let mut own = 0.0;
        for entry in fs::read_dir("/proc")?.flatten() {
            // A process that has just ended is in its parent's times of children.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            own += fields.skip(11).take(4).filter_map(|text| text.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(Self { all, busy: all - idle, own })
    }

    /// Part of the machine that was not at this sandbox's disposal since `before`: other processes, kernel threads, other
    /// guests of the host.
    pub(super) fn elsewhere(&self, before: &Machine) -> f64 {
        let (all, busy, own) = (self.all - before.all, self.busy - before.busy, self.own - before.own);
        ((busy - own) / all.max(1.0)).clamp(0.0, 1.0)
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Outcome<f64> {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// The most resident memory that a process has had, in KiB.
pub(crate) fn peak_kib(pid: u32) -> Outcome<f64> {
    kib(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Has the kernel count [`peak_kib`] anew.
pub(super) fn reset_peak(pid: u32) -> Outcome {
    let file = format!("/proc/{pid}/clear_refs");
    Ok(fs::write(&file, "5").map_err(|error| format!("{file}: {error}"))?)
}

fn kib(file: &str, key: &str) -> Outcome<f64> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)).ok_or_else(|| format!("{file} has no {key}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_a_thread_that_has_ended_counts() {
        let own = std::process::id();
        let before = precise_cpu_seconds(own).unwrap();
        let busy = || while precise_cpu_seconds(own).unwrap() < before + 0.01 {};
        std::thread::scope(|scope| scope.spawn(busy).join()).unwrap();
        assert!(precise_cpu_seconds(own).unwrap() >= before + 0.01);
    }

    #[test]
    fn each_end_has_its_share_of_every_piece() {
        assert_eq!(Ends([1.0, 4.0]).each(Ends([0.5, 2.0]), 1e6), [0.5, 2.0]);
    }
}
