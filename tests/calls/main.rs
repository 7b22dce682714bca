//! The reference server as a process, over real sockets, killed for real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod binary;
mod client;
mod crash;
mod failures;
mod flight;
mod grammar;
mod ids;
mod limits;
mod manners;
mod replay;
mod server;
mod stopping;
