//! The client layer: alone, against the reference server through a network that fails, and with
//! both ends killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "they are another test's, and have more than is needed here"
)]
#[path = "../calls/binary.rs"]
mod binary;
mod calls;
#[allow(dead_code, reason = "it is another test's")]
#[path = "../calls/client.rs"]
mod client;
mod examples;
mod faults;
mod jobs;
mod journal;
mod keys;
mod kit;
mod proxy;
mod redirects;
mod reqwest;
mod retries;
#[allow(dead_code, reason = "it is another test's")]
#[path = "../calls/server.rs"]
mod server;
mod sharing;
