//! Envoy at one end of a tunnel, ztunnel at the other.

mod client;
mod path;
mod process;
mod server;

use testkit::harness::Test;

pub fn tests() -> Vec<Test> {
    let mut tests = client::tests();
    tests.extend(server::tests());
    tests
}
