//! Prints `docs/access-log.md` from the table of fields; `cargo xtask generate` runs it.

fn main() {
    print!("{}", ztunnel::telemetry::access_log::manual::manual());
}
