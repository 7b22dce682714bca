//! A model of the keys and their states: the reference that a store is compared with.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use refrain::{Attempt, Fingerprint, Key, Operation, Outcome, Permit, RequestId, Scope, Store};

/// The time that a record is kept, unless an operation sets a shorter one.
pub const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest wait for a store's own work: its threads may share a core with many others.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The unit of time in steps.
pub const HOUR: Duration = Duration::from_secs(60 * 60);

/// A scope, and one of its keys.
pub type Name = (u8, u32);

/// A request, by its number.
pub type Request = u32;

/// The state that a process which starts now would find under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The operation is done.
    Done {
        /// The body of the request that used the key.
        body: u8,
        /// The request that did the operation.
        request: Request,
        /// True if the response was kept; `None` if that was not heard.
        kept: Option<bool>,
        /// The time at which the record expires.
        expires: Duration,
    },
    /// Nobody knows how the operation ended.
    Interrupted {
        /// The body of the request that used the key.
        body: u8,
        /// The request that ran the operation.
        request: Request,
        /// The number of the run.
        attempt: u32,
        /// The number of recovery points.
        checkpoints: usize,
        /// The time that the record is to be kept.
        ttl: Duration,
        /// The time at which this state expires.
        expires: Duration,
    },
}

impl Known {
    /// The time at which this state expires.
    pub fn expires(&self) -> Duration {
        match self {
            Self::Done { expires, .. } | Self::Interrupted { expires, .. } => *expires,
        }
    }

    /// The body of the request that used the key.
    pub fn body(&self) -> u8 {
        match self {
            Self::Done { body, .. } | Self::Interrupted { body, .. } => *body,
        }
    }

    /// The same state, with what an answer has shown of it.
    pub fn with(mut self, answer: &Answer) -> Self {
        if let (Self::Done { kept, .. }, Answer::Done { kept: seen }) = (&mut self, answer) {
            *kept = Some(*seen);
        }
        self
    }

    /// The request that used the key.
    pub fn request(&self) -> Request {
        match self {
            Self::Done { request, .. } | Self::Interrupted { request, .. } => *request,
        }
    }
}

/// The states of all keys. A key without a state was never used, or is free again.
#[derive(Debug, Clone, Default)]
pub struct Model(HashMap<Name, Known>);

impl Model {
    /// The state of a key at this time.
    pub fn at(&self, name: Name, now: Duration) -> Option<&Known> {
        self.0.get(&name).filter(|known| known.expires() > now)
    }

    /// Gives a key this state.
    pub fn set(&mut self, name: Name, known: Option<Known>) {
        match known {
            Some(known) => drop(self.0.insert(name, known)),
            None => drop(self.0.remove(&name)),
        }
    }

    /// All states, expired or not.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &Known)> {
        self.0.iter().map(|(name, known)| (*name, known))
    }
}

/// The request id of a request.
pub fn request_id(request: Request) -> RequestId {
    format!("req-{request}").parse().expect("letters, digits and a dash")
}

/// The scope and key of a name.
pub fn address(name: Name) -> (Scope, Key) {
    let key = format!("key-{}", name.1).parse().expect("letters, digits and a dash");
    (Scope::new([name.0]), key)
}

/// The operation of a request.
pub fn operation(name: Name, body: u8, request: Request) -> Operation {
    let (scope, key) = address(name);
    Operation::new(scope, key, Fingerprint::of([[body]])).request_id(request_id(request))
}

/// The response to a request: of one page or less, of several rows of a segment, or empty.
pub fn response(body: u8, request: Request) -> Response<Bytes> {
    let text = format!("{body} by {request}; ");
    let repeats = [1, 0, 30, 300, 1500][request as usize % 5];
    let mut response = Response::new(text.repeat(repeats).into());
    *response.status_mut() = [StatusCode::OK, StatusCode::CREATED][request as usize % 2];
    response.headers_mut().insert("x-request", request.into());
    response
}

/// The requests whose responses are among these bytes, unless they are empty.
pub fn requests_in(bytes: &[u8]) -> impl Iterator<Item = Request> {
    let digits = |rest: &[u8]| {
        let (number, _) = rest.split_at_checked(rest.iter().position(|byte| *byte == b';')?)?;
        std::str::from_utf8(number).ok()?.parse().ok()
    };
    let by = bytes.windows(4).enumerate().filter(|(_, window)| *window == b" by ");
    by.filter_map(move |(at, _)| digits(&bytes[at + 4..]))
}

fn is_same(stored: &Response<Bytes>, whole: &Response<Bytes>) -> bool {
    stored.status() == whole.status()
        && stored.headers() == whole.headers()
        && stored.body() == whole.body()
}

/// The content of a recovery point.
pub fn checkpoint(name: Name, number: usize) -> Bytes {
    format!("{name:?} has come to {number}").into()
}

/// A store's answer about a key.
#[derive(Debug)]
pub enum Answer {
    /// The key is free: this request got it.
    Free(Permit),
    /// The operation is done, with a response to replay or without.
    Done {
        /// True if there is a response.
        kept: bool,
    },
    /// The key was used for another request body.
    Conflict,
    /// An earlier run was interrupted.
    Interrupted(Attempt),
}

/// Asks for a key on behalf of a request with the body that the key was used for, and compares the
/// answer with the known state.
///
/// # Errors
///
/// An error of the store.
pub fn ask(
    store: &Store,
    name: Name,
    known: Option<&Known>,
) -> refrain::Result<Result<Answer, String>> {
    let operation = operation(name, known.map_or(0, Known::body), 0);
    let outcome = store.begin(&operation).wait_timeout(PATIENCE)?;
    Ok(judge(name, known, outcome, true))
}

/// Compares an outcome with the known state. `same` is true if the request's body is the one that
/// the key was used for.
pub fn judge(
    name: Name,
    known: Option<&Known>,
    outcome: Outcome,
    same: bool,
) -> Result<Answer, String> {
    let wrong = |said: &dyn std::fmt::Debug| Err(format!("{name:?} is {known:?}, not {said:?}"));
    match (known, outcome) {
        (None, Outcome::Execute(permit)) => {
            if permit.attempt() == 1 && permit.checkpoints().is_empty() {
                Ok(Answer::Free(permit))
            } else {
                wrong(&permit)
            }
        }
        (Some(Known::Done { body, request, kept, .. }), Outcome::Replay(record)) if same => {
            let (stored, whole) = (record.response(), response(*body, *request));
            let exact = stored.is_none_or(|stored| is_same(stored, &whole));
            let seen = stored.is_some();
            let as_kept = kept.is_none_or(|kept| kept == seen);
            if exact && as_kept && *record.request_id() == request_id(*request) {
                Ok(Answer::Done { kept: seen })
            } else {
                wrong(&(record.request_id(), stored))
            }
        }
        (Some(known), Outcome::Conflict { original, .. })
            if !same && original == request_id(known.request()) =>
        {
            Ok(Answer::Conflict)
        }
        (
            Some(Known::Interrupted { request, attempt, checkpoints, .. }),
            Outcome::Interrupted(found),
        ) if same => {
            let points: Vec<_> = (0..*checkpoints).map(|n| checkpoint(name, n)).collect();
            let exact = *found.request_id() == request_id(*request)
                && found.number() == *attempt
                && found.checkpoints() == points;
            if exact { Ok(Answer::Interrupted(found)) } else { wrong(&found) }
        }
        (_, other) => wrong(&other),
    }
}
