//! Envoy at one end of a tunnel and ztunnel at the other, or Envoy between two.

mod client;
mod gateway;
mod path;
mod process;
mod server;
mod waypoint;

use testkit::harness::Test;

pub fn tests() -> Vec<Test> {
    let mut tests = client::tests();
    tests.extend(server::tests());
    tests.extend(gateway::tests());
    tests.extend(waypoint::tests());
    tests
}
