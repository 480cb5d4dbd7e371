//! A mesh in a box: nodes and pods as network namespaces on one machine, with the redirection rules, the node agent and
//! the control plane that a ztunnel expects around it, real ztunnel processes, and small applications in the pods.
//!
//! Everything happens inside a [`sandbox`]: a program that uses this crate first re-executes itself in fresh
//! namespaces, so that it needs no privileges on a host with user namespaces, touches nothing outside, and leaves
//! nothing behind however it ends. No external program is run: links, routes and rules are set by netlink.
//!
//! ```no_run
//! use testkit::{control_plane::Service, mesh::{Capture, Mesh, PodSpec}, ztunnel::ZtunnelSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let _inside = testkit::sandbox::enter()?;
//! let mesh = Mesh::new()?;
//! let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
//! let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
//! let server = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
//! let _app = testkit::apps::serve_http(&server, 8080)?;
//! mesh.control_plane().update(|plane| plane.services.push(Service::new("cart", "shop", [10, 96, 0, 1], &[&server]).port(80, 8080)))?;
//! let _proxies = (a.start_ztunnel(&ZtunnelSpec::new("target/debug/ztunnel"))?, b.start_ztunnel(&ZtunnelSpec::new("target/debug/ztunnel"))?);
//! println!("{}", testkit::apps::http_get(&client, "10.96.0.1:80".parse()?)?.body);
//! # Ok(())
//! # }
//! ```
//!
//! What it deliberately is not: a simulation. Packets take the kernel's own way, so time is the machine's own too.

pub mod apps;
pub mod cni;
pub mod control_plane;
pub mod gateway;
pub mod harness;
pub mod istiod;
pub mod link;
pub mod mesh;
pub mod netns;
pub mod sandbox;
pub mod tap;
pub mod zds;
pub mod ztunnel;

/// Packet rules, as programs that use this crate name them.
pub use redirect;
