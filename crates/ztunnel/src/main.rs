//! Node proxy of the ambient mesh.

fn main() {}
