//! Bodies: passed through, held whole, or begun and continued.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::memory::Share;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of requests that the inner service gets, and of all responses.
#[derive(Debug)]
pub struct Body(UnsyncBoxBody<Bytes, BodyError>);

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body broke off; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("cannot read body")]
pub struct BodyError(#[source] BoxError);

impl BodyError {
    pub(super) fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

pub(super) fn pass<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Body(body.map_err(BodyError::new).boxed_unsync())
}

/// A body that is held whole, with its trailers.
#[derive(Debug, Default)]
pub(super) struct Whole {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// What it takes of the layer's memory until it is dropped.
    memory: Option<Share>,
}

impl Whole {
    pub(super) fn new(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers, memory: None }
    }

    pub(super) fn holding(mut self, memory: Share) -> Self {
        self.memory = Some(memory);
        self
    }

    pub(super) fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    pub(super) fn boxed(self) -> Body {
        pass(self)
    }
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    /// Not exact with trailers: HTTP/1.1 sends none after a body whose length it has announced.
    fn size_hint(&self) -> SizeHint {
        let length = self.data.as_ref().map_or(0, Bytes::len) as u64;
        if self.trailers.is_none() {
            return SizeHint::with_exact(length);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        hint
    }
}

/// A body whose beginning was read already.
pub(super) struct Begun<B> {
    pub(super) read: VecDeque<Frame<Bytes>>,
    pub(super) rest: Pin<Box<B>>,
}

impl<B: HttpBody<Data = Bytes>> HttpBody for Begun<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize =
            self.read.iter().filter_map(|frame| frame.data_ref()).map(Bytes::len).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read as u64);
        }
        hint
    }
}
