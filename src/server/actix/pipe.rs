//! Bodies of actix, which stay on their worker's thread, as bodies that the layer can take over,
//! and the way back.
//!
//! A task on the worker's thread reads actix's body, a piece at a time, as fast as the layer takes
//! the pieces.

use std::error::Error as StdError;
use std::future::ready;
use std::pin::{Pin, pin};
use std::task::{self, Context, Poll, Waker};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::server::BoxError;
use crate::server::guard::{Panicked, guard, guarded};

/// The pieces that wait in a pipe, besides the one that was read.
const PIECES: usize = 1;
const PANICKED: &str = "the body panicked";

enum Piece {
    Data(Bytes),
    Failed(BoxError),
    /// The body is complete. A pipe that closes without it has lost its task.
    End,
}

/// The end of a pipe that the layer reads.
pub(super) struct Pipe {
    pieces: Receiver<Piece>,
    /// The bytes that are left, if their number is known.
    left: Option<u64>,
    has_ended: bool,
}

/// The end of a pipe that is filled on the worker's thread.
pub(super) struct Filler(Sender<Piece>);

/// Returns the two ends of a pipe for a body of this length in bytes, if it is known.
pub(super) fn pipe(length: Option<u64>) -> (Filler, Pipe) {
    let (filler, pieces) = channel(PIECES);
    (Filler(filler), Pipe { pieces, left: length, has_ended: false })
}

impl Filler {
    /// Passes a body on, to its end or for as long as anyone reads.
    async fn fill(self, body: impl Stream<Item = Result<Bytes, BoxError>>) {
        if guarded(self.pass_on(body)).await.is_err() {
            // Nobody is left to read it, or it is read.
            let _ = self.0.send(Piece::Failed(PANICKED.into())).await;
        }
    }

    async fn pass_on(&self, body: impl Stream<Item = Result<Bytes, BoxError>>) {
        let mut body = pin!(body);
        loop {
            let Either::Left((next, _)) = select(body.next(), pin!(self.0.closed())).await else {
                return;
            };
            let piece = match next {
                Some(Ok(data)) => Piece::Data(data),
                Some(Err(error)) => Piece::Failed(error),
                None => Piece::End,
            };
            let is_last = !matches!(piece, Piece::Data(_));
            if self.0.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }
}

impl HttpBody for Pipe {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let error = match task::ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Data(data)) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Piece::End) => None,
            Some(Piece::Failed(error)) => Some(error),
            None => Some("the worker of the body has ended".into()),
        };
        self.has_ended = true;
        Poll::Ready(error.map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// Returns the payload of a request as a pipe, and the task that fills it.
pub(super) fn of_request(payload: Payload) -> (impl Future<Output = ()>, Pipe) {
    // Not the announced length: a middleware may have unpacked the payload.
    let (filler, pipe) = pipe(matches!(payload, Payload::None).then_some(0));
    let payload = payload.map_err(|error| match error {
        PayloadError::Overflow => over_limit(),
        other => words(other),
    });
    (filler.fill(payload), pipe)
}

/// Returns the error of a body that is over the limit of an outer layer, as the layer knows it.
fn over_limit() -> BoxError {
    // Only a limited body makes one.
    let mut limited = Limited::new(Full::new(Bytes::from_static(b"1")), 0);
    match limited.frame().now_or_never().flatten() {
        Some(Err(error)) => error,
        _ => words(PayloadError::Overflow),
    }
}

/// Returns the words of an error. The error itself may be bound to its thread.
fn words(error: impl Into<Box<dyn StdError>>) -> BoxError {
    error.into().to_string().into()
}

/// Returns a collected body as the payload of a request.
pub(super) fn to_payload(body: Body) -> Payload {
    if body.is_end_stream() {
        return Payload::None;
    }
    let data = body.map_err(|error| PayloadError::Io(std::io::Error::other(error)));
    let data: Pin<Box<dyn Stream<Item = _>>> = Box::pin(data.into_data_stream());
    Payload::from(data)
}

/// The body of an answer, on its way to the layer.
pub(super) struct Piped<F> {
    pub(super) size: BodySize,
    pub(super) body: Body,
    /// The task that fills the body, if it does not come in one piece.
    pub(super) filling: Option<F>,
}

/// Passes the body of an answer on. One that panics is one that breaks off: its handler has
/// answered.
pub(super) fn of_answer<B>(body: B) -> Piped<impl Future<Output = ()>>
where
    B: MessageBody + 'static,
{
    guard(|| piped(body)).unwrap_or_else(|Panicked| {
        let broken = ready(Err::<Bytes, _>(PANICKED));
        let body = Body::from_stream(futures_util::stream::once(broken));
        Piped { size: BodySize::Stream, body, filling: None }
    })
}

fn piped<B>(body: B) -> Piped<impl Future<Output = ()>>
where
    B: MessageBody + 'static,
{
    let size = body.size();
    let length = match size {
        BodySize::None => Some(0),
        BodySize::Sized(length) => Some(length),
        BodySize::Stream => None,
    };
    match body.try_into_bytes() {
        Ok(data) => Piped { size, body: Body::from(data), filling: None },
        Err(body) => {
            let mut body = Box::pin(body);
            let (filler, pipe) = pipe(length);
            let body = futures_util::stream::poll_fn(move |cx| body.as_mut().poll_next(cx));
            let filling = Some(filler.fill(body.map_err(words)));
            Piped { size, body: Body::new(pipe), filling }
        }
    }
}

/// The body of an answer, for actix to send. Actix sends no trailers.
pub(super) struct Sent {
    body: Body,
    /// That of the whole body.
    size: BodySize,
    /// A piece that was read to see if it is all.
    first: Option<Result<Bytes, axum::Error>>,
}

impl Sent {
    pub(super) fn new(body: Body) -> Self {
        let size = body.size_hint().exact().map_or(BodySize::Stream, BodySize::Sized);
        Self { body, size, first: None }
    }
}

impl MessageBody for Sent {
    type Error = axum::Error;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        loop {
            match task::ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Most answers are one piece, which is there at once.
    fn try_into_bytes(mut self) -> Result<Bytes, Self> {
        match self.size {
            BodySize::Sized(0) => Ok(Bytes::new()),
            BodySize::Sized(length) => {
                let mut cx = Context::from_waker(Waker::noop());
                match Pin::new(&mut self).poll_next(&mut cx) {
                    Poll::Ready(Some(Ok(data))) if data.len() as u64 == length => Ok(data),
                    Poll::Ready(first) => Err(Self { first, ..self }),
                    Poll::Pending => Err(self),
                }
            }
            BodySize::None | BodySize::Stream => Err(self),
        }
    }
}
