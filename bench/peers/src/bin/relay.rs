//! A relay in a pod; see the library.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use peers::relay::{Protection, Role, serve};

/// Moves bytes, and at most seals them.
#[derive(Parser)]
struct Flags {
    /// Which end of a connection it is.
    #[arg(long)]
    role: RoleFlag,
    /// Seal what passes between two relays.
    #[arg(long)]
    sealed: bool,
    /// How many threads serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleFlag {
    Outbound,
    Inbound,
    Passthrough,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let role = match flags.role {
        RoleFlag::Outbound => Role::Outbound,
        RoleFlag::Inbound => Role::Inbound,
        RoleFlag::Passthrough => Role::Passthrough,
    };
    let protection = if flags.sealed { Protection::Sealed } else { Protection::None };
    let threads: Vec<_> =
        (0..flags.threads.max(1)).map(|_| std::thread::spawn(move || serve(role, protection))).collect();
    for thread in threads {
        if let Ok(Err(error)) = thread.join() {
            eprintln!("relay: {error}");
        }
    }
    ExitCode::FAILURE
}
