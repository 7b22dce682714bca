//! Bodies: any that a layer takes over, one that is held whole, and the client's own.
//!
//! A body that is held whole is one frame of data and its trailers. A streamed body passes the
//! frames of another body on as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
#[cfg(feature = "client")]
use http_body_util::BodyExt;
#[cfg(feature = "client")]
use http_body_util::combinators::UnsyncBoxBody;

/// Any error that threads can share.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that a layer can take over, in either direction.
pub(crate) trait AnyBody:
    HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static
{
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static> AnyBody for B {}

/// A body that is held whole, with its trailers. Clones share the data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.data.is_empty() {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    /// Not exact with trailers: HTTP/1.1 sends none after a body whose length is announced.
    fn size_hint(&self) -> SizeHint {
        let length = self.data.len() as u64;
        if self.trailers.is_none() {
            return SizeHint::with_exact(length);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        hint
    }
}

/// The body of requests that the client layer passes to its inner service, and of responses that it
/// returns.
///
/// Its data is [`Bytes`], its error a [`BodyError`]. The default is empty.
#[cfg(feature = "client")]
#[derive(Debug, Default)]
pub struct Body(Kind);

#[cfg(feature = "client")]
#[derive(Debug)]
enum Kind {
    Whole(Whole),
    Streamed(UnsyncBoxBody<Bytes, BodyError>),
}

/// A streamed body broke off. The source is the error of the original body.
#[cfg(feature = "client")]
#[derive(Debug, thiserror::Error)]
#[error("cannot read body")]
pub struct BodyError(#[source] BoxError);

#[cfg(feature = "client")]
impl Default for Kind {
    fn default() -> Self {
        Self::Whole(Whole::default())
    }
}

#[cfg(feature = "client")]
impl Body {
    /// Returns a body that passes the frames of another one on as they come.
    pub(crate) fn streamed(body: impl AnyBody) -> Self {
        Self(Kind::Streamed(body.map_err(|error| BodyError(error.into())).boxed_unsync()))
    }

    /// Returns the bytes, if they are held whole and no trailers follow.
    #[cfg(feature = "reqwest")]
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Whole(Whole { data, trailers: None }) => Some(data),
            _ => None,
        }
    }
}

#[cfg(feature = "client")]
impl From<Whole> for Body {
    fn from(whole: Whole) -> Self {
        Self(Kind::Whole(whole))
    }
}

#[cfg(feature = "client")]
impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Whole(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            Kind::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(whole) => whole.is_end_stream(),
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(whole) => whole.size_hint(),
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}
