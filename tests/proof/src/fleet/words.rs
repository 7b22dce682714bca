//! The lines between the parent and a node: calls, and replies to them.

use serde::{Deserialize, Serialize};

/// A request to the store, by its number.
pub(super) type Number = u64;

/// A call, one line of JSON on the node's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) number: Number,
    pub(super) ask: Ask,
}

/// The reply to a call, one line of JSON on the node's standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) number: Number,
    /// The time from the node's request to its store to the store's answer.
    pub(super) took_ms: u64,
    pub(super) answer: Answer,
}

/// A key: the history that it belongs to, and its number there.
pub(super) type Name = (u64, u32);

/// A request of a node to its store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ask {
    Begin(Begin),
    Get {
        name: Name,
    },
    /// Completes a held permit or attempt. The response is named after the run and the request.
    Complete {
        held: Number,
        response: Option<String>,
    },
    Release {
        held: Number,
    },
    Interrupt {
        held: Number,
    },
    Checkpoint {
        held: Number,
        data: String,
    },
    /// Begins the next attempt of an interrupted run.
    Retry {
        held: Number,
    },
    /// Drops a permit or an attempt without a verdict.
    Drop {
        held: Number,
    },
    /// Asks for the number of operations in flight.
    InFlight,
}

/// A request for a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) name: Name,
    pub(super) request: String,
    pub(super) fingerprint: u8,
    pub(super) is_durable: bool,
    pub(super) ttl_ms: u64,
    /// The time after which the request no longer waits for others.
    pub(super) deadline_ms: u64,
    /// The time after which the client is gone, if it goes.
    pub(super) gone_after_ms: Option<u64>,
}

/// A store's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The request runs, and the node holds its permit under the call's number.
    Run {
        attempt: u32,
        checkpoints: Vec<String>,
    },
    /// An earlier run was interrupted, and the node holds the attempt under the call's number.
    Interrupted {
        request: String,
        attempt: u32,
        checkpoints: Vec<String>,
    },
    Record(Seen),
    NoRecord,
    Conflict {
        original: String,
    },
    InFlight {
        holder: String,
    },
    Done,
    /// The client had gone before the answer came.
    Gone,
    Fenced,
    /// The database could not be asked, or did not answer.
    Unavailable(String),
    /// A limit was reached, and nothing was done.
    Limited,
    Count(usize),
    /// An answer that no fault explains.
    Wrong(String),
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) request: String,
    pub(super) response: Option<String>,
    /// By the database's clock, in milliseconds.
    pub(super) completed_ms: i64,
    pub(super) expires_ms: i64,
}

/// The first line of a node, which has its store open.
pub(super) const READY: &str = "ready";

/// The response of a run, as completed by a request: the run's own, or one that found it
/// interrupted.
pub(super) fn response(run: &str, by: &str) -> String {
    let text = format!("{run} by {by}; ");
    let repeats = [1, 3, 1, 60, 1][text.bytes().map(usize::from).sum::<usize>() % 5];
    text.repeat(repeats)
}
