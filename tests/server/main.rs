//! The HTTP layer on an in-memory store, where the reference server cannot show it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod authorization;
mod bodies;
mod complaints;
mod composition;
mod contract;
mod dialects;
mod endpoints;
mod execution;
mod fingerprints;
mod flight;
mod grpc;
mod interruptions;
mod kit;
mod limits;
mod options;
mod overload;
mod panics;
mod policies;
mod readiness;
mod reads;
mod requests;
mod routing;
mod shutdown;
mod stacks;
mod streams;
mod transcripts;
mod wire;
