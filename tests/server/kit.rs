//! The tools that the tests build with. Nothing here asserts.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::response::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::ServiceExt;

/// An app whose handler counts its runs.
pub(crate) struct App {
    pub(crate) router: Router,
    pub(crate) store: Store,
    runs: Arc<AtomicUsize>,
}

impl App {
    pub(crate) fn new(answer: impl Fn(usize) -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::with(Store::builder(), |layer| layer, answer)
    }

    pub(crate) fn with(
        builder: refrain::Builder,
        configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        answer: impl Fn(usize) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let store = builder.open_in_memory().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&runs);
        let handler = move |_body: String| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            let response = answer(run);
            async move { response }
        };
        let routes = post(handler.clone()).put(handler.clone()).patch(handler.clone());
        let layer = configure(IdempotencyLayer::new(store.clone()));
        let router = Router::new().route("/", routes.delete(handler)).layer(layer);
        Self { router, store, runs }
    }

    pub(crate) async fn respond(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.respond(request).await).await.unwrap()
    }

    pub(crate) async fn ask(&self, key: &str) -> Answer {
        self.send(request(key, "{}")).await
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// A POST with a token and a key.
pub(crate) fn request(key: &str, body: &str) -> Request<Body> {
    Request::post("/")
        .header("authorization", "Bearer sk_live_51")
        .header("idempotency-key", key)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

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
        let json = self.json();
        let code = json["error"]["code"].as_str().unwrap_or("none");
        (self.status.as_u16(), code.to_owned())
    }

    /// The body, if it is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
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

/// A place in a handler where its runs wait until the test lets them go. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    entered: Arc<Semaphore>,
    leave: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), leave: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// Waits in the handler.
    pub(crate) async fn pass(&self) {
        self.entered.add_permits(1);
        self.leave.acquire().await.unwrap().forget();
    }

    /// Waits until one more run has come here.
    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    /// Returns the number of runs that have come here and were not waited for.
    pub(crate) fn unnoticed(&self) -> usize {
        self.entered.available_permits()
    }

    /// Lets so many runs go.
    pub(crate) fn open(&self, runs: usize) {
        self.leave.add_permits(runs);
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
