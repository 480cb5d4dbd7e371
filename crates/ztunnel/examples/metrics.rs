//! Prints `docs/metrics.md` from the table of metrics; `cargo xtask generate` runs it.

fn main() {
    print!("{}", ztunnel::telemetry::metrics::manual::manual());
}
