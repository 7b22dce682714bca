//! A network that loses answers, or keeps them: each call comes to its end all the same, and says what
//! happened.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../kit/mod.rs"]
mod kit;

mod answers;
mod judges;
mod late;
mod waiting;
