//! What the benchmarks compare ztunnel with, on the same wires: a conventional node proxy, and relays that cost no more
//! than the kernel (and one encryption) does.
//!
//! All of them run inside a pod whose traffic is redirected as for a ztunnel: what the pod sends arrives at port 15001,
//! what other pods send to it arrives at port 15008, and they keep the client's address towards the app. None of them
//! is a product: destinations outside the mesh are told by flags, errors end the connection that had them.

pub mod authority;
pub mod reference;
pub mod relay;
pub mod sockets;
