//! A PostgreSQL server for a test program, and what stands between it and a store.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub(crate) mod bouncer;
pub(crate) mod proxy;
pub(crate) mod room;
pub(crate) mod server;
