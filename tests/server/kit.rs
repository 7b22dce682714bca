//! What the tests build with. Nothing here asserts.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::response::Builder;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) async fn read<B>(response: Response<B>) -> Result<Self, B::Error>
    where
        B: hyper::body::Body<Data = Bytes>,
    {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        Ok(Self { status: parts.status, headers: parts.headers, body, trailers })
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.get("idempotency-replay").is_some_and(|value| value == "true")
    }

    /// The status, and the code of an error.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let code = json["error"]["code"].as_str().unwrap_or("none");
        (self.status.as_u16(), code.to_owned())
    }
}

pub(crate) type Frames = UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;

/// A body of unknown length that comes as it is sent.
pub(crate) struct Trickle(UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>);

impl Trickle {
    pub(crate) fn new() -> (Frames, Self) {
        let (frames, trickle) = unbounded_channel();
        (frames, Self(trickle))
    }

    /// One that has come to its end.
    pub(crate) fn ended(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let (sender, trickle) = Self::new();
        frames.into_iter().for_each(|frame| sender.send(Ok(frame)).unwrap());
        trickle
    }
}

impl hyper::body::Body for Trickle {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

/// A frame of data.
pub(crate) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// A handler that answers once, with a body that cannot be made twice.
pub(crate) fn once(
    head: impl Fn() -> Builder + Send + Sync + Clone + 'static,
    body: Trickle,
) -> impl Fn(usize) -> Response + Clone + Send + Sync + 'static {
    let body = Arc::new(Mutex::new(Some(body)));
    move |_| {
        let body = body.lock().unwrap().take().expect("it runs once");
        head().body(Body::new(body)).unwrap()
    }
}
