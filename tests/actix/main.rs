//! The layer as a middleware of actix-web: in-process, and over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bodies;
mod clients;
mod contract;
mod handlers;
mod kit;
mod stacks;
