//! Faults of the database, under reference servers that share it: what clients are told, what is
//! recorded, and what ran.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../kit/mod.rs"]
mod kit;

#[path = "../../../../tests/calls/binary.rs"]
mod binary;
#[path = "../../../../tests/calls/client.rs"]
#[allow(dead_code, reason = "its other tests are not here")]
mod client;
#[path = "../../../../tests/calls/server.rs"]
#[allow(dead_code, reason = "its other tests are not here")]
mod node;
#[path = "../fleet/server.rs"]
#[allow(dead_code, unused_imports, reason = "its other tests are not here")]
mod server;

mod clocks;
mod crash;
mod failover;
mod limits;
mod load;
mod silence;
mod statements;
mod termination;
mod timeouts;
mod wire;
mod writes;
