//! The messages of which a large mesh sends very many, read where they lie.
//!
//! Generated messages own every text in them, which for a workload are two dozen allocations that live for a
//! microsecond. Here texts are parts of the buffer, and only what hardly any workload has is read by the generated code.
//! Invariant: a message means here what it means there, and is refused here if it is refused there (and if
//! a map is of another type, at which the generated code does not look).

mod fields;
mod resource;
mod workload;

pub use fields::Malformed;
pub use resource::Resource;
pub use workload::{Address, Membership, Ports, Workload};
