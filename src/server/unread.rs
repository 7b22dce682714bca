//! Requests that are refused before they were read to their end.
//!
//! A client that sends all of its body before it listens gets the answer, and not a reset
//! connection: the rest is read and discarded, within limits. Where that is not done, the answer
//! says that the connection ends.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use crate::http::AnyBody;

use super::dialect::Reason;

/// The limits in bytes and time for reading and discarding the rest of a refused body.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
const DRAINED_WITHIN: Duration = Duration::from_secs(5);
/// The bodies that the process discards at a time. Beyond them, connections end.
const MAX_DRAINED: usize = 1024;

static DRAINED: Semaphore = Semaphore::const_new(MAX_DRAINED);

/// A refusal, and whether the connection ends with it.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    /// True if the rest of the request is not read.
    pub(super) close: bool,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, close: false }
    }
}

impl Refused {
    /// Refuses a request whose body was not read.
    pub(super) fn unread<B: AnyBody>(reason: Reason, request: Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        Self::unread_parts(reason, &parts.headers, body)
    }

    /// Refuses a request with these headers, whose body was not read.
    pub(super) fn unread_parts<B: AnyBody>(reason: Reason, headers: &HeaderMap, body: B) -> Self {
        if body.is_end_stream() {
            return reason.into();
        }
        if headers.contains_key(EXPECT) {
            // The client waits for leave to send, and reading the body would give leave.
            return Self { reason, close: true };
        }
        Self::with_rest(reason, headers, Box::pin(body))
    }

    /// Refuses a request with these headers, whose body was read in part.
    pub(super) fn with_rest<B: AnyBody>(
        reason: Reason,
        headers: &HeaderMap,
        rest: Pin<Box<B>>,
    ) -> Self {
        if rest.is_end_stream() {
            return reason.into();
        }
        let Ok(place) = DRAINED.try_acquire() else { return Self { reason, close: true } };
        tokio::spawn(async {
            let _place = place;
            timeout(DRAINED_WITHIN, drain(rest)).await
        });
        Self { reason, close: declared_length(headers) > Some(DRAINED_BYTES as u64) }
    }
}

/// Returns the length in bytes that the request says it has.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn drain<B: AnyBody>(mut body: Pin<Box<B>>) {
    let mut drained = 0;
    while drained <= DRAINED_BYTES {
        let Some(Some(frame)) = body.frame().await.map(Result::ok) else { return };
        drained += frame.data_ref().map_or(0, Bytes::len);
        consume_budget().await;
    }
}
