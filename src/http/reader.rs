//! A body that is read into memory, and streamed on if it proves too long, too slow or broken.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::coop::consume_budget;

use super::body::{AnyBody, Body, BoxError, Whole};

/// A body, and the part of it that was read.
///
/// Reading is cancel safe: a reader whose future was dropped has lost nothing, so its caller can
/// set a time limit and then stream the body.
pub(crate) struct BodyReader<B> {
    /// The only piece of data so far, without a copy,
    only: Bytes,
    /// or all pieces.
    all: BytesMut,
    trailers: Option<HeaderMap>,
    rest: Pin<Box<B>>,
    /// The error that the body ended in.
    error: Option<BoxError>,
}

/// The reason why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum Unread {
    TooLong,
    Broken(BoxError),
}

impl<B: AnyBody> BodyReader<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            only: Bytes::new(),
            all: BytesMut::new(),
            trailers: None,
            rest: Box::pin(body),
            error: None,
        }
    }

    /// Reads to the end of a body of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// [`Unread`], after which the reader can still stream the body.
    pub(crate) async fn finish(&mut self, max: usize) -> Result<(), Unread> {
        while self.advance().await.map_err(Unread::Broken)? {
            if self.len() > max {
                return Err(Unread::TooLong);
            }
        }
        Ok(())
    }

    /// Reads the next frame, and returns `false` at the end of the body.
    ///
    /// # Errors
    ///
    /// The error of the body.
    pub(crate) async fn advance(&mut self) -> Result<bool, BoxError> {
        let Some(frame) = self.rest.frame().await.transpose().map_err(Into::into)? else {
            return Ok(false);
        };
        match frame.into_data() {
            Ok(data) => self.push(data),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.trailers.get_or_insert_default().extend(trailers);
            }
        }
        // A body that is always ready must not outrun a time limit.
        consume_budget().await;
        Ok(true)
    }

    /// Returns the body, read to its end.
    pub(crate) fn into_whole(self) -> Whole {
        let data = if self.all.is_empty() { self.only } else { self.all.freeze() };
        Whole { data, trailers: self.trailers }
    }

    /// Streams the data that was read, and then the rest of the body.
    pub(crate) fn into_body(self) -> Body {
        Body::streamed(self)
    }

    /// Streams the data that was read, and then the error that the body ended in.
    #[cfg(feature = "server")]
    pub(crate) fn into_broken_body(mut self, error: BoxError) -> Body {
        self.error = Some(error);
        Body::streamed(self)
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
        self.only.len() + self.all.len()
    }

    /// Returns the bytes of memory that the data takes, spare capacity included.
    #[cfg(feature = "server")]
    pub(crate) fn memory(&self) -> usize {
        self.only.len() + self.all.capacity()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.only = data;
        } else {
            self.all.extend_from_slice(&std::mem::take(&mut self.only));
            self.all.extend_from_slice(&data);
        }
    }
}

impl<B: AnyBody> HttpBody for BodyReader<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let read = match self.all.is_empty() {
            true => std::mem::take(&mut self.only),
            false => self.all.split().freeze(),
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
