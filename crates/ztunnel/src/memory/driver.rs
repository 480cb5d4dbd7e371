//! Looks at the load again and again, and has memory given back when [`ebb`](super::ebb) says so.

use super::ebb::{Ebb, LOOK};

/// Gives back what load has occupied, whenever it has gone; `load` says how many bytes it occupies now. Never ends.
pub async fn give_back_after_load(load: impl Fn() -> usize) {
    let mut ebb = Ebb::default();
    loop {
        tokio::time::sleep(LOOK).await;
        if ebb.look(load()) {
            drop(tokio::task::spawn_blocking(super::give_back));
        }
    }
}
