//! Request bodies, collected within limits of size, time and memory.
//!
//! Invariants:
//! - Nothing is claimed before the body is complete, so a slow client holds no key.
//! - A body counts against the memory budget until the handler has dropped it.
//! - After a refusal at most 16 MiB, for at most 5 s, are read and discarded.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http_body_util::BodyExt;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use crate::Scope;
use crate::http::{AnyBody, BodyReader, Whole};

use super::budget::{Budget, OverBudget, Share};

/// The limits in bytes and time for reading and discarding the rest of a refused body. A client
/// that sends all of its body before it listens then gets the answer, and not a reset connection.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// Collects request bodies within its limits.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) max_bytes: usize,
    pub(super) within: Duration,
    pub(super) budget: Arc<Budget>,
}

/// The reason why a body was not collected.
#[derive(Debug)]
pub(super) enum Uncollected {
    TooLarge,
    TooSlow,
    OverBudget(OverBudget),
    Broken,
}

impl From<OverBudget> for Uncollected {
    fn from(which: OverBudget) -> Self {
        Self::OverBudget(which)
    }
}

impl Collector {
    /// Collects the whole body. The rest of a refused body is discarded in the background.
    ///
    /// # Errors
    ///
    /// [`Uncollected`] names the limit that was exceeded.
    pub(super) async fn collect<B: AnyBody>(
        &self,
        scope: Scope,
        headers: &HeaderMap,
        body: B,
    ) -> Result<(Whole, Share), Uncollected> {
        let mut reader = BodyReader::new(body);
        let declared_too_large = declared_length(headers) > Some(self.max_bytes as u64);
        if declared_too_large && headers.contains_key(EXPECT) {
            // The client waits for leave to send, and reading the body would give leave.
            return Err(Uncollected::TooLarge);
        }
        let collected = if declared_too_large {
            Err(Uncollected::TooLarge)
        } else {
            let reading = timeout(self.within, self.read(scope, &mut reader));
            reading.await.unwrap_or(Err(Uncollected::TooSlow))
        };
        match collected {
            Ok(share) => Ok((reader.into_whole(), share)),
            Err(why) => {
                tokio::spawn(timeout(DRAINED_WITHIN, drain(reader.into_rest())));
                Err(why)
            }
        }
    }

    async fn read<B: AnyBody>(
        &self,
        scope: Scope,
        reader: &mut BodyReader<B>,
    ) -> Result<Share, Uncollected> {
        let mut share = Share::new(Arc::clone(&self.budget), scope);
        while reader.advance().await.map_err(|_| Uncollected::Broken)? {
            if reader.len() > self.max_bytes {
                return Err(Uncollected::TooLarge);
            }
            share.grow_to(reader.memory())?;
        }
        Ok(share)
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
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
