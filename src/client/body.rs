//! Bodies: held whole, so that they can be sent again or shared, or passed through once.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};

/// Any error, by its `Display`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of requests that the inner service gets, and of all responses.
#[derive(Debug)]
pub struct Body(Inner);

#[derive(Debug)]
enum Inner {
    Whole(Whole),
    Passing(UnsyncBoxBody<Bytes, BodyError>),
}

/// A body that was passed on broke off; the source says why.
#[derive(Debug, thiserror::Error)]
#[error("cannot read body")]
pub struct BodyError(#[source] BoxError);

/// A body of either direction.
pub(super) trait AnyBody:
    HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static
{
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static> AnyBody for B {}

/// A body that is held whole, with its trailers.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    pub(super) data: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Body {
    pub(super) fn passing(body: impl AnyBody) -> Self {
        Self(Inner::Passing(body.map_err(|error| BodyError(error.into())).boxed_unsync()))
    }

    /// The bytes, if they are held whole and no trailers follow.
    #[cfg(feature = "reqwest")]
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Whole(Whole { data, trailers: None }) => Some(data),
            _ => None,
        }
    }
}

impl From<Whole> for Body {
    fn from(whole: Whole) -> Self {
        Self(Inner::Whole(whole))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Whole(whole) if !whole.data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut whole.data)))))
            }
            Inner::Whole(whole) => {
                Poll::Ready(whole.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Inner::Passing(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none(),
            Inner::Passing(body) => body.is_end_stream(),
        }
    }

    /// Not exact with trailers: HTTP/1.1 sends none after a body whose length it has announced.
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(Whole { data, trailers: None }) => SizeHint::with_exact(data.len() as u64),
            Inner::Whole(_) => SizeHint::new(),
            Inner::Passing(body) => body.size_hint(),
        }
    }
}

/// Whether a body says that it is no longer than this.
pub(super) fn fits(body: &impl HttpBody, max: usize) -> bool {
    body.size_hint().upper().is_some_and(|upper| upper <= max as u64)
}

/// Collects a body that [`fits`].
pub(super) async fn collect(body: impl AnyBody, max: usize) -> Result<Whole, BoxError> {
    let collected = Limited::new(body, max).collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(Whole { data: collected.to_bytes(), trailers })
}
