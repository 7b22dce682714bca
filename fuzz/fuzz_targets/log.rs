//! Recovery: damage of the newest log is noticed, and nothing acknowledged is lost without a word.
//!
//! The first byte of the input chooses the door.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain::oracles::{recover_batches, recover_entries, recover_log};

fuzz_target!(|input: &[u8]| match input.split_first() {
    Some((b'l', bytes)) => recover_log(bytes),
    Some((b'e', entries)) => recover_entries(entries),
    Some((_, patches)) => recover_batches(patches),
    None => {}
});
