//! Prints `docs/configuration.md` from the table of settings; `cargo xtask generate` runs it.

fn main() {
    print!("{}", ztunnel::config::manual());
}
