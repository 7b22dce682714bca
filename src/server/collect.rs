//! Bodies, collected within limits of size, time and memory: those of requests, and those of
//! answers that are to be kept.
//!
//! Invariants:
//! - Nothing is claimed before the body of a request is complete, so a slow client holds no key.
//! - The body of a request counts against the memory budget until the handler has dropped it.
//! - The body of an answer counts while it is collected. It waits for memory, and is streamed where
//!   there is none in time.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;
use http::response::Parts;
use http_body_util::LengthLimitError;

use crate::Scope;
use crate::http::{AnyBody, BodyReader, BoxError, Whole, causes, is_grpc};

use super::budget::{Budget, OverBudget, Share};
use super::deadline::Deadline;
use super::dialect::Reason;
use super::unread::{Refused, declared_length};

/// A request's body must bring `MIN_BYTES` or its end in each of so many parts of its time limit.
const WINDOWS: u32 = 3;
/// The longest window, however long the time limit is.
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// The bytes that a slow body must bring in each window.
const MIN_BYTES: usize = 4 * 1024;
/// The time within which gRPC's status must follow a message that is to be the only one.
const STATUS_WITHIN: Duration = Duration::from_millis(100);
/// The bytes before a gRPC message: a flag, and the message's length.
const GRPC_PREFIX: usize = 5;

/// Collects the bodies of requests within its limits.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) max_bytes: usize,
    pub(super) within: Duration,
    pub(super) budget: Arc<Budget>,
}

impl Collector {
    /// Collects the whole body. The rest of a refused body is discarded in the background.
    ///
    /// # Errors
    ///
    /// The reason names the limit that was exceeded.
    pub(super) async fn collect<B: AnyBody>(
        &self,
        scope: Scope,
        headers: &HeaderMap,
        body: B,
    ) -> Result<(Whole, Share), Refused> {
        if declared_length(headers) > Some(self.max_bytes as u64) {
            return Err(Refused::unread_parts(self.too_large(), headers, body));
        }
        let mut reader = BodyReader::new(body, self.max_bytes);
        let mut deadline = Deadline::after(self.within);
        let read = deadline.race(self.read(scope, &mut reader)).await;
        match read.unwrap_or(Err(Reason::BodyTooSlow)) {
            Ok(share) => Ok((reader.into_whole(), share)),
            Err(reason) => Err(Refused::with_rest(reason, headers, reader.into_rest())),
        }
    }

    async fn read<B: AnyBody>(
        &self,
        scope: Scope,
        reader: &mut BodyReader<B>,
    ) -> Result<Share, Reason> {
        let mut share = Share::new(Arc::clone(&self.budget), scope);
        let window = (self.within / WINDOWS).min(LONGEST_WINDOW);
        let (mut due, mut seen) = (Deadline::after(window), 0);
        loop {
            match due.race(reader.fetch()).await {
                Some(Ok(false)) => return Ok(share),
                Some(Ok(true)) if reader.len() > self.max_bytes => return Err(self.too_large()),
                Some(Ok(true)) => {
                    share.grow_to(reader.memory())?;
                    if reader.is_at_end() {
                        return Ok(share);
                    }
                }
                Some(Err(error)) => return Err(unreadable(&error)),
                None if reader.len() < seen + MIN_BYTES => return Err(Reason::BodyTooSlow),
                None => {
                    seen = reader.len();
                    due.put_off(window);
                }
            }
        }
    }

    fn too_large(&self) -> Reason {
        Reason::BodyTooLarge { max: Some(self.max_bytes) }
    }
}

impl From<OverBudget> for Reason {
    fn from(which: OverBudget) -> Self {
        match which {
            OverBudget::All => Self::Unavailable,
            OverBudget::Scope => Self::TooManyRequests,
        }
    }
}

/// Returns the reason why a body broke off: a limit of an outer layer, or the connection.
fn unreadable(error: &BoxError) -> Reason {
    match causes(&**error).any(|error| error.is::<LengthLimitError>()) {
        true => Reason::BodyTooLarge { max: None },
        false => Reason::BodyUnreadable,
    }
}

/// Collects the bodies of answers within its limits.
#[derive(Clone, Debug)]
pub(super) struct AnswerCollector {
    pub(super) max_bytes: usize,
    pub(super) within: Duration,
    pub(super) budget: Arc<Budget>,
}

/// The reason why an answer is not kept.
enum Unkept {
    /// It is too long or too slow, or a stream.
    Streamed,
    Broken(BoxError),
}

impl AnswerCollector {
    /// Collects the whole body.
    ///
    /// # Errors
    ///
    /// A body that streams what was read and then the rest: it is too long, too slow, broken, not of
    /// the length that was announced, or a stream, or there is no memory for it.
    pub(super) async fn collect<B: AnyBody>(
        &self,
        scope: Scope,
        head: &Parts,
        body: B,
    ) -> Result<Whole, BodyReader<B>> {
        let announced = announced_length(head, &body);
        let is_too_long = body.size_hint().lower() > self.max_bytes as u64;
        let mut reader = BodyReader::new(body, self.max_bytes.min(self.budget.scope_max()));
        if is_too_long {
            return Err(reader);
        }
        let mut deadline = Deadline::after(self.within);
        let read = deadline.race(self.read(scope, &head.headers, &mut reader)).await;
        let (read, length) = (read.unwrap_or(Err(Unkept::Streamed)), reader.len() as u64);
        let is_other = |announced| length > announced || (read.is_ok() && length < announced);
        if announced.is_some_and(is_other) {
            return Err(reader.broken("the body is not of the length that it says".into()));
        }
        match read {
            Ok(()) => Ok(reader.into_whole()),
            Err(Unkept::Streamed) => Err(reader),
            Err(Unkept::Broken(error)) => Err(reader.broken(error)),
        }
    }

    async fn read<B: AnyBody>(
        &self,
        scope: Scope,
        headers: &HeaderMap,
        reader: &mut BodyReader<B>,
    ) -> Result<(), Unkept> {
        let mut share = Share::new(Arc::clone(&self.budget), scope);
        let is_grpc = is_grpc(headers);
        while reader.fetch().await.map_err(Unkept::Broken)? {
            if reader.len() > self.max_bytes {
                return Err(Unkept::Streamed);
            }
            // What comes in one piece was made by the handler, and takes no memory here.
            if !reader.is_at_end() {
                // All at once: those that hold some and wait for more would wait for each other.
                let room = share.grow_when_free(reader.most()).await;
                room.map_err(|_| Unkept::Streamed)?;
                if reader.len() > reader.most() {
                    return Err(Unkept::Streamed);
                }
            }
            reader.keep();
            match messages(reader.data()) {
                Messages::One if is_grpc => return end_within(STATUS_WITHIN, reader).await,
                Messages::More if is_grpc => return Err(Unkept::Streamed),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the length in bytes that an answer says its body has. Collected, the body would be sent
/// and replayed with its own length, which a server trusts: a wrong one would run into the next
/// answer on the connection.
fn announced_length(head: &Parts, body: &impl AnyBody) -> Option<u64> {
    if head.status == StatusCode::NOT_MODIFIED {
        // It has the length of what was not sent.
        return None;
    }
    let hint = body.size_hint().exact();
    declared_length(&head.headers).or(hint)
}

/// Reads the end of a body that has come to its last byte of data.
async fn end_within<B: AnyBody>(limit: Duration, reader: &mut BodyReader<B>) -> Result<(), Unkept> {
    let read = reader.len();
    let end = async {
        while reader.fetch().await.map_err(Unkept::Broken)? {
            if reader.len() > read {
                return Err(Unkept::Streamed);
            }
        }
        Ok(())
    };
    Deadline::after(limit).race(end).await.unwrap_or(Err(Unkept::Streamed))
}

/// The number of gRPC messages that were read, so far as it tells a stream from a single answer.
enum Messages {
    None,
    One,
    /// A second one has begun.
    More,
}

fn messages(data: &[u8]) -> Messages {
    let Some((prefix, rest)) = data.split_first_chunk::<GRPC_PREFIX>() else {
        return Messages::None;
    };
    let [_, length @ ..] = *prefix;
    match rest.len().cmp(&(u32::from_be_bytes(length) as usize)) {
        std::cmp::Ordering::Less => Messages::None,
        std::cmp::Ordering::Equal => Messages::One,
        std::cmp::Ordering::Greater => Messages::More,
    }
}
