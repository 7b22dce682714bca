//! A list as lines of JSON, read from the store as fast as the client takes it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::{Code, Refusal};

/// The lists that are read at a time.
const MAX_LISTS: usize = 4;
/// The bytes that are sent at a time: once so many are there, or the list ends.
const CHUNK_BYTES: usize = 64 * 1024;
/// The chunks that wait for the client.
const MAX_CHUNKS: usize = 4;
/// The time for which a client may take nothing; then its list is given up, because it keeps files.
const STALLED_WITHIN: Duration = Duration::from_secs(30);

/// A line of a list over HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<T> {
    /// An item.
    Item(T),
    /// The list ends early, for this reason.
    Error(Refusal),
    /// The list is whole, and has so many items. Without this line it was cut off.
    End(u64),
}

/// The lists that are being read.
#[derive(Clone, Debug)]
pub(super) struct Lists(Arc<Semaphore>);

impl Lists {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LISTS)))
    }

    /// Answers with a list, which `read` makes on a thread that may block.
    pub(super) fn answer<T, I>(&self, read: impl FnOnce() -> I + Send + 'static) -> Response
    where
        T: Serialize,
        I: Iterator<Item = Result<T, Refusal>>,
    {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            let message = format!("{MAX_LISTS} lists are being read; ask again later");
            return Refusal::new(Code::Busy, message).into_response();
        };
        let (sender, mut chunks) = mpsc::channel(MAX_CHUNKS);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            // A client that went away, or stalls, is told nothing.
            let _ = Writer { sender, runtime, chunk: Vec::new(), _place: place }.write(read());
        });
        let chunks = stream::poll_fn(move |cx| chunks.poll_recv(cx));
        let body = Body::from_stream(chunks.map(Ok::<_, Infallible>));
        let mut response = body.into_response();
        let lines = HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(CONTENT_TYPE, lines);
        response
    }
}

/// Writes lines to a client.
struct Writer {
    sender: Sender<Bytes>,
    runtime: Handle,
    chunk: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// Nobody takes the list any more.
struct Gone;

impl Writer {
    fn write<T: Serialize>(
        mut self,
        items: impl Iterator<Item = Result<T, Refusal>>,
    ) -> Result<(), Gone> {
        let mut count = 0;
        for item in items {
            match item {
                Ok(item) => self.line(&Line::Item(item))?,
                Err(refusal) => {
                    self.line(&Line::<T>::Error(refusal))?;
                    return self.send();
                }
            }
            count += 1;
        }
        self.line(&Line::<T>::End(count))?;
        self.send()
    }

    fn line<T: Serialize>(&mut self, line: &Line<T>) -> Result<(), Gone> {
        serde_json::to_writer(&mut self.chunk, line).map_err(|_| Gone)?;
        self.chunk.push(b'\n');
        if self.chunk.len() >= CHUNK_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Gone> {
        let chunk = std::mem::take(&mut self.chunk).into();
        let sent = self.sender.send_timeout(chunk, STALLED_WITHIN);
        self.runtime.block_on(sent).map_err(|_| Gone)
    }
}
