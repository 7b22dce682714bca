//! A body that is read into memory, and streamed on if it proves too long, too slow or broken.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::coop::consume_budget;

use super::body::{AnyBody, BoxError, Whole};

/// A body, and the part of it that was read.
///
/// Reading is cancel safe: a reader whose future was dropped has lost nothing, so its caller can
/// set a time limit and then stream the body.
pub(crate) struct BodyReader<B> {
    /// The only piece of data so far, without a copy,
    only: Bytes,
    /// or all pieces.
    all: BytesMut,
    /// The piece that came last, until it is kept.
    latest: Bytes,
    trailers: Option<HeaderMap>,
    rest: Pin<Box<B>>,
    /// The most bytes that are kept: those that the body says it has, and no more than its limit.
    most: usize,
    /// The error that the body ended in.
    error: Option<BoxError>,
}

/// The reason why a body was not read to its end.
#[cfg(feature = "client")]
#[derive(Debug)]
pub(crate) enum Unread {
    TooLong,
    Broken(BoxError),
}

impl<B: AnyBody> BodyReader<B> {
    /// Returns the reader of a body that is to have at most `max` bytes.
    pub(crate) fn new(body: B, max: usize) -> Self {
        let announced = body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
        Self {
            only: Bytes::new(),
            all: BytesMut::new(),
            latest: Bytes::new(),
            trailers: None,
            most: announced.map_or(max, |announced| announced.min(max)),
            rest: Box::pin(body),
            error: None,
        }
    }

    /// Reads to the end of the body, if it has at most `max` bytes.
    ///
    /// # Errors
    ///
    /// [`Unread`], after which the reader can still stream the body.
    #[cfg(feature = "client")]
    pub(crate) async fn finish(&mut self, max: usize) -> Result<(), Unread> {
        while self.fetch().await.map_err(Unread::Broken)? {
            if self.len() > max {
                return Err(Unread::TooLong);
            }
            self.keep();
        }
        Ok(())
    }

    /// Reads the next frame, and returns `false` at the end of the body. Its data counts in
    /// [`len`](Self::len) at once, and takes further memory once it is [kept](Self::keep).
    ///
    /// # Errors
    ///
    /// The error of the body.
    pub(crate) async fn fetch(&mut self) -> Result<bool, BoxError> {
        self.keep();
        let Some(frame) = self.rest.frame().await.transpose().map_err(Into::into)? else {
            return Ok(false);
        };
        match frame.into_data() {
            Ok(data) => self.latest = data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.trailers.get_or_insert_default().extend(trailers);
            }
        }
        // A body that is always ready must not outrun a time limit.
        consume_budget().await;
        Ok(true)
    }

    /// Returns true if the body has said that nothing more follows.
    #[cfg(feature = "server")]
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_end_stream()
    }

    /// Returns the body, read to its end.
    pub(crate) fn into_whole(mut self) -> Whole {
        self.keep();
        let data = if self.all.is_empty() { self.only } else { self.all.freeze() };
        Whole { data, trailers: self.trailers }
    }

    /// Returns the reader, which streams what was read and then this error.
    #[cfg(feature = "server")]
    pub(crate) fn broken(mut self, error: BoxError) -> Self {
        self.error = Some(error);
        self
    }

    /// Drops the data that was read.
    #[cfg(feature = "server")]
    pub(crate) fn into_rest(self) -> Pin<Box<B>> {
        self.rest
    }
}

impl<B> BodyReader<B> {
    /// Returns the number of data bytes that were read so far.
    pub(crate) fn len(&self) -> usize {
        self.only.len() + self.all.len() + self.latest.len()
    }

    /// Returns the most bytes that are kept.
    #[cfg(feature = "server")]
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Returns the bytes of memory that the data takes once all of it is kept, spare capacity
    /// included.
    #[cfg(feature = "server")]
    pub(crate) fn memory(&self) -> usize {
        if self.is_only() { self.len() } else { self.all.capacity().max(self.capacity_for_all()) }
    }

    /// Returns the data that was read and kept.
    #[cfg(feature = "server")]
    pub(crate) fn data(&self) -> &[u8] {
        if self.all.is_empty() { &self.only } else { &self.all }
    }

    /// Adds the latest piece to the others.
    pub(crate) fn keep(&mut self) {
        let latest = std::mem::take(&mut self.latest);
        if latest.is_empty() {
            return;
        }
        if self.only.is_empty() && self.all.is_empty() {
            self.only = latest;
            return;
        }
        self.latest = latest;
        let capacity = self.capacity_for_all();
        if self.all.capacity() < capacity {
            // `reserve` would double it, whatever the body says.
            let mut grown = BytesMut::with_capacity(capacity);
            grown.extend_from_slice(&self.all);
            self.all = grown;
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.only));
        self.all.extend_from_slice(&std::mem::take(&mut self.latest));
    }

    /// Returns true if there is no more than one piece, which takes no memory but its own.
    #[cfg(feature = "server")]
    fn is_only(&self) -> bool {
        self.all.is_empty() && (self.only.is_empty() || self.latest.is_empty())
    }

    /// Returns the capacity in bytes for all pieces: with room to grow, but not beyond the most that
    /// the body can have.
    fn capacity_for_all(&self) -> usize {
        let length = self.len();
        if length <= self.all.capacity() {
            return self.all.capacity();
        }
        length.saturating_mul(2).min(self.most).max(length)
    }
}

impl<B: AnyBody> HttpBody for BodyReader<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let read = match (self.all.is_empty(), self.only.is_empty()) {
            (false, _) => self.all.split().freeze(),
            (true, false) => std::mem::take(&mut self.only),
            (true, true) => std::mem::take(&mut self.latest),
        };
        if !read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        self.rest.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
            && self.trailers.is_none()
            && self.error.is_none()
            && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        if self.error.is_some() {
            // The length of a body that breaks off must not be announced.
            hint.set_lower(read);
            return hint;
        }
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}
