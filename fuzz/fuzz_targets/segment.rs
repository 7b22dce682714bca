//! Segments: whatever is in the file, a stored key is answered exactly or with an error.
//!
//! The first byte of the input chooses the door.

#![no_main]

use std::panic::{catch_unwind, set_hook};
use std::process::abort;
use std::sync::Mutex;

use libfuzzer_sys::fuzz_target;
use refrain::oracles::{recover_pages, recover_rows, recover_segment};

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

// redb panics on some damage, which the engine catches. So in place of libfuzzer's hook, which ends
// the process on any panic, only one that comes through ends it.
fuzz_target!(
    init: set_hook(Box::new(|panic| *LAST_PANIC.lock().unwrap() = panic.to_string())),
    |input: &[u8]| {
        if catch_unwind(|| recover(input)).is_err() {
            eprintln!("{}", LAST_PANIC.lock().unwrap());
            abort();
        }
    }
);

fn recover(input: &[u8]) {
    match input.split_first() {
        Some((b'w', bytes)) => recover_segment(bytes),
        Some((b'p', copies)) => recover_pages(copies),
        Some((_, patches)) => recover_rows(patches),
        None => {}
    }
}
