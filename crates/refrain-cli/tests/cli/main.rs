//! The command `refrain`, run as an operator runs it: the real binary on a real directory.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, and its helper process says that it is ready"
)]

mod act;
mod bad;
mod keep;
mod kit;
mod look;
mod night;
mod served;
mod transcripts;
