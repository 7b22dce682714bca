//! P16: what those who watch are told, in a process of its own: recorders and subscribers are its globals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kit;
mod list;
mod outcomes;
