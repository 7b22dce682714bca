//! The engine through its public face, on real directories.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backup;
mod claims;
mod damage;
mod expiry;
mod formats;
mod gate;
mod kit;
mod limits;
mod opening;
mod overload;
mod purge;
mod records;
mod restart;
mod size;
