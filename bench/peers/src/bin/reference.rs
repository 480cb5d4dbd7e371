//! The conventional proxy in a pod; see the library.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::Parser;
use peers::reference::{Settings, serve};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A node proxy as it is conventionally built: tokio, tokio-rustls, the h2 crate, jemalloc.
#[derive(Parser)]
struct Flags {
    /// Who the pod is, for example `spiffe://cluster.local/ns/shop/sa/front`.
    #[arg(long)]
    identity: String,
    /// Destinations outside the mesh, which are dialled in plain TCP.
    #[arg(long)]
    plain: Vec<Ipv4Addr>,
    /// Threads of the runtime.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Connections that share a tunnel at the most.
    #[arg(long, default_value_t = 100)]
    streams_per_tunnel: usize,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(flags.threads.max(1)).enable_all().build();
    let settings = Settings { plain: flags.plain, streams_per_tunnel: flags.streams_per_tunnel.max(1) };
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(serve(&flags.identity, settings)),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = outcome {
        eprintln!("reference: {error}");
    }
    ExitCode::FAILURE
}
