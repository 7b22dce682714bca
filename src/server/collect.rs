//! Request bodies, collected within limits of size, time and memory before anything is claimed.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use crate::key::Scope;

use super::body::{BoxError, Whole};
use super::memory::{Memory, OutOfMemory, Share};

/// How much of a refused body is read and thrown away, and for how long: a client that sends all of
/// its body before it listens then gets the answer, and not a connection that was reset.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// What request bodies may take.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) max_bytes: usize,
    pub(super) within: Duration,
    pub(super) memory: Arc<Memory>,
}

/// Why a body was not collected.
#[derive(Debug)]
pub(super) enum Uncollected {
    TooLarge,
    TooSlow,
    OutOfMemory(OutOfMemory),
    Broken,
}

impl From<OutOfMemory> for Uncollected {
    fn from(which: OutOfMemory) -> Self {
        Self::OutOfMemory(which)
    }
}

impl Collector {
    /// Collects the body whole. One that is refused is read on for a while in the background.
    pub(super) async fn collect<B>(
        &self,
        scope: Scope,
        headers: &HeaderMap,
        body: B,
    ) -> Result<Whole, Uncollected>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Box::pin(body);
        let declared_too_large = declared_length(headers) > Some(self.max_bytes as u64);
        if declared_too_large && headers.contains_key(EXPECT) {
            // The client asked before it sends, and reading would tell it to go on.
            return Err(Uncollected::TooLarge);
        }
        let collected = if declared_too_large {
            Err(Uncollected::TooLarge)
        } else {
            let reading = timeout(self.within, self.read(scope, body.as_mut()));
            reading.await.unwrap_or(Err(Uncollected::TooSlow))
        };
        if collected.is_err() {
            tokio::spawn(timeout(DRAINED_WITHIN, drain(body)));
        }
        collected
    }

    async fn read<B>(&self, scope: Scope, mut body: Pin<&mut B>) -> Result<Whole, Uncollected>
    where
        B: HttpBody<Data = Bytes>,
    {
        let mut share = Share::new(Arc::clone(&self.memory), scope);
        let mut collected = Collected::default();
        let mut trailers: Option<HeaderMap> = None;
        loop {
            let Some(frame) = body.frame().await.transpose().map_err(|_| Uncollected::Broken)?
            else {
                break;
            };
            match frame.into_data() {
                Ok(data) => {
                    if collected.len() + data.len() > self.max_bytes {
                        return Err(Uncollected::TooLarge);
                    }
                    collected.push(data);
                    share.grow_to(collected.memory())?;
                }
                Err(frame) => {
                    let more = frame.into_trailers().unwrap_or_default();
                    trailers.get_or_insert_default().extend(more);
                }
            }
            // A body that is always ready must not outrun the limit of time.
            consume_budget().await;
        }
        Ok(Whole::new(collected.into_bytes(), trailers).holding(share))
    }
}

/// Data in one piece: the only one, without a copy, or a buffer of all.
#[derive(Default)]
struct Collected {
    only: Bytes,
    all: BytesMut,
}

impl Collected {
    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.only = data;
        } else {
            self.all.extend_from_slice(&std::mem::take(&mut self.only));
            self.all.extend_from_slice(&data);
        }
    }

    fn len(&self) -> usize {
        self.only.len() + self.all.len()
    }

    fn memory(&self) -> usize {
        self.only.len() + self.all.capacity()
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.only } else { self.all.freeze() }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn drain<B: HttpBody<Data = Bytes>>(body: Pin<Box<B>>) {
    let mut body = pin!(body);
    let mut drained = 0;
    while drained <= DRAINED_BYTES {
        let Some(Some(frame)) = body.frame().await.map(Result::ok) else { return };
        drained += frame.data_ref().map_or(0, Bytes::len);
        consume_budget().await;
    }
}
