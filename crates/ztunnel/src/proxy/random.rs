//! The randomness of the data plane: which endpoint, and connection ids.

use mesh::{Draw, TraceId, Traceparent};
use rand::Rng;

/// Draws from the thread's generator.
#[derive(Debug, Default)]
pub(super) struct Random;

impl Draw for Random {
    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { rand::rng().random_range(0..bound) }
    }
}

/// A new id for a connection (spec data-plane 6.3).
pub(super) fn traceparent() -> Traceparent {
    let mut rng = rand::rng();
    // Zero means "no id" (W3C Trace Context §3.2.2.3).
    Traceparent { trace: TraceId(rng.random::<u128>().max(1)), parent: rng.random::<u64>().max(1) }
}

/// The same for a connection that comes in, before which no hop is known.
pub(super) fn first_known() -> Traceparent {
    Traceparent { parent: 0, ..traceparent() }
}
