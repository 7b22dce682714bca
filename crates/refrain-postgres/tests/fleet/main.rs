//! Reference servers on one database: a key's requests go to another of them each time, and servers
//! are killed, stopped and cut off while their handlers run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../kit/mod.rs"]
mod kit;

// The tests of one server, of which everything holds for two that are asked in turn, but for what
// each keeps in its memory.
#[path = "../../../../tests/calls/binary.rs"]
mod binary;
#[path = "../../../../tests/calls/client.rs"]
#[allow(dead_code, reason = "its other tests are not here")]
mod client;
#[path = "../../../../tests/calls/crash.rs"]
mod crash;
#[path = "../../../../tests/calls/failures.rs"]
mod failures;
#[path = "../../../../tests/calls/flight.rs"]
mod flight;
#[path = "../../../../tests/calls/ids.rs"]
mod ids;
#[path = "../../../../tests/calls/server.rs"]
#[allow(dead_code, reason = "its other tests are not here")]
mod node;
#[path = "../../../../tests/calls/replay.rs"]
mod replay;

mod faults;
mod server;
mod sessions;
mod turns;
