//! The body type of both layers: held whole in memory, or streamed.
//!
//! A body that is held whole is one frame of data and its trailers. A streamed body passes the
//! frames of another body on as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Any error that threads can share.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that a layer can take over, in either direction.
pub(crate) trait AnyBody:
    HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static
{
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static> AnyBody for B {}

/// The body of requests that a layer passes to its inner service, and of responses that a layer
/// returns.
///
/// Its data is [`Bytes`], its error a [`BodyError`].
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    /// A value that lives as long as the body.
    #[cfg(feature = "server")]
    held: Option<Box<dyn std::any::Any + Send>>,
}

#[derive(Debug)]
enum Kind {
    Whole(Whole),
    Streamed(UnsyncBoxBody<Bytes, BodyError>),
}

/// A body that is held whole, with its trailers. Clones share the data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A streamed body broke off. The source is the error of the original body.
#[derive(Debug, thiserror::Error)]
#[error("cannot read body")]
pub struct BodyError(#[source] BoxError);

impl Body {
    /// Returns a body that passes the frames of another one on as they come.
    pub(crate) fn streamed(body: impl AnyBody) -> Self {
        let body = body.map_err(|error| BodyError(error.into())).boxed_unsync();
        Self::new(Kind::Streamed(body))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            #[cfg(feature = "server")]
            held: None,
        }
    }

    /// Keeps a value until the body is dropped, such as its share of a memory budget.
    #[cfg(feature = "server")]
    pub(crate) fn holding(mut self, value: impl Send + 'static) -> Self {
        self.held = Some(Box::new(value));
        self
    }

    /// Returns the bytes, if they are held whole and no trailers follow.
    #[cfg(feature = "reqwest")]
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Whole(Whole { data, trailers: None }) => Some(data),
            _ => None,
        }
    }
}

impl From<Whole> for Body {
    fn from(whole: Whole) -> Self {
        Self::new(Kind::Whole(whole))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Whole(whole) if !whole.data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut whole.data)))))
            }
            Kind::Whole(whole) => {
                Poll::Ready(whole.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Kind::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none(),
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    /// Not exact with trailers: HTTP/1.1 sends none after a body whose length is announced.
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(Whole { data, trailers: None }) => SizeHint::with_exact(data.len() as u64),
            Kind::Whole(Whole { data, .. }) => {
                let mut hint = SizeHint::new();
                hint.set_lower(data.len() as u64);
                hint
            }
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}
