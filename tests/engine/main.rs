//! The engine through its public face, on real directories.

mod claims;
mod damage;
mod expiry;
mod flight;
mod kit;
mod limits;
mod opening;
mod restart;
