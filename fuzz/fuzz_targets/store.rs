//! Histories: whatever is asked, in whatever order, a store says what the model says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain_proof::{histories, step};

/// A history of more steps finds nothing that shorter ones do not.
const MAX_STEPS: usize = 100;

fuzz_target!(|input: &[u8]| {
    let mut steps = step::decode(input);
    steps.truncate(MAX_STEPS);
    if let Err(what) = histories::live(&steps) {
        panic!("{what}");
    }
});
