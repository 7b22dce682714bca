//! P16: what those who watch are told, in a process of its own: recorders and subscribers are its globals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alerts;
mod events;
#[path = "../engine/gate.rs"]
#[allow(dead_code, reason = "the engine's tests need more of it")]
mod gate;
mod kit;
mod list;
mod outcomes;
mod states;
