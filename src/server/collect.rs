//! Request bodies, collected within limits of size, time and memory before anything is claimed.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::body::{BoxError, Whole};

/// How much of a refused body is read and thrown away, and for how long: a client that sends all of
/// its body before it listens then gets the answer, and not a connection that was reset.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// What request bodies may take.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) max_bytes: usize,
    pub(super) within: Duration,
    /// A permit for each byte that the layer may hold, in all requests together.
    pub(super) memory: Arc<Semaphore>,
}

/// Why a body was not collected.
#[derive(Debug)]
pub(super) enum Uncollected {
    TooLarge,
    TooSlow,
    OutOfMemory,
    Broken,
}

impl Collector {
    /// Collects the body whole. One that is refused is read on for a while in the background.
    pub(super) async fn collect<B>(
        &self,
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
            let reading = timeout(self.within, self.read(body.as_mut()));
            reading.await.unwrap_or(Err(Uncollected::TooSlow))
        };
        if collected.is_err() {
            tokio::spawn(timeout(DRAINED_WITHIN, drain(body)));
        }
        collected
    }

    async fn read<B>(&self, mut body: Pin<&mut B>) -> Result<Whole, Uncollected>
    where
        B: HttpBody<Data = Bytes>,
    {
        let mut parts = Vec::new();
        let mut length = 0;
        let mut trailers: Option<HeaderMap> = None;
        let mut memory = self.reserve(0)?;
        while let Some(frame) = body.frame().await {
            match frame.map_err(|_| Uncollected::Broken)?.into_data() {
                Ok(data) => {
                    length += data.len();
                    if length > self.max_bytes {
                        return Err(Uncollected::TooLarge);
                    }
                    memory.merge(self.reserve(data.len())?);
                    parts.push(data);
                }
                Err(frame) => {
                    trailers
                        .get_or_insert_default()
                        .extend(frame.into_trailers().unwrap_or_default());
                }
            }
        }
        Ok(Whole::new(join(parts), trailers).holding(memory))
    }

    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Uncollected> {
        let permits = u32::try_from(bytes).map_err(|_| Uncollected::OutOfMemory)?;
        let memory = Arc::clone(&self.memory);
        memory.try_acquire_many_owned(permits).map_err(|_| Uncollected::OutOfMemory)
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The parts in one piece, without a copy where there is but one.
pub(super) fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.swap_remove(0);
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

async fn drain<B: HttpBody<Data = Bytes>>(body: Pin<Box<B>>) {
    let mut body = pin!(body);
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > DRAINED_BYTES {
            return;
        }
    }
}
