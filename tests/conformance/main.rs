//! The facts about a store's face, held against each backend of this crate and against a
//! stranger's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refrain::Store;
use refrain::backend::Limits;
use refrain::clock::SimulatedClock;

use facts::{House, Survives};
use toy::Toy;

mod embedded;
mod facts;
mod nodes;
mod seam;
mod toy;

mod on_disk {
    crate::facts::suite! { crate::embedded::OnDisk,
        survives: yes,
        bounded: yes,
        shared: "a directory is open in one process at a time",
    }
}

mod in_memory {
    crate::facts::suite! { crate::embedded::InMemory,
        survives: "memory ends with the process",
        bounded: yes,
        shared: "memory belongs to one process",
    }
}

mod on_a_toy {
    crate::facts::suite! { crate::OnToy,
        survives: yes,
        bounded: "a toy takes as many claims as come",
        shared: "a toy does not look for other nodes; see on_toy_nodes",
    }
}

mod on_toy_nodes {
    crate::facts::suite! { crate::nodes::OnNodes,
        survives: "see on_a_toy",
        bounded: "see on_a_toy",
        shared: yes,
    }
}

/// The rows of a toy, which are there after the store that was open over them.
struct OnToy {
    clock: SimulatedClock,
    state: Mutex<Arc<Mutex<toy::State>>>,
}

impl OnToy {
    /// A toy over the rows, which the latest one may have closed.
    fn toy(&self) -> Toy {
        let state = Arc::clone(&self.state.lock().unwrap());
        state.lock().unwrap().refusal = None;
        Toy { clock: self.clock.clone(), state }
    }
}

impl House for OnToy {
    fn new() -> Self {
        Self { clock: SimulatedClock::new(), state: Mutex::default() }
    }

    fn open_within(&self, limits: Limits) -> Store {
        Store::new(self.toy(), limits)
    }

    fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }
}

impl Survives for OnToy {
    fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        let copy = state.lock().unwrap().clone();
        *state = Arc::new(Mutex::new(copy));
    }
}
