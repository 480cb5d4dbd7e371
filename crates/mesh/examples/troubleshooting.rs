//! Prints `docs/troubleshooting.md` from the table of causes; `cargo xtask generate` runs it.

fn main() {
    print!("{}", mesh::cause::manual());
}
