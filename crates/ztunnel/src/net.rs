//! Sockets as a mesh needs them: in the namespaces of pods, marked, transparent, and told apart by how they end.

pub mod conntrack;
pub mod datagram;
pub mod dial;
pub mod listen;
pub mod netns;
pub mod options;
pub mod original_dst;
pub mod pipe;
pub mod redirection;
