//! A service in place of a network: it answers as it is told, and keeps what it was sent.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use refrain::client::{Body, Call, Client, ClientLayer, Error};
use tower::retry::budget::TpsBudget;
use tower::{Layer, Service, ServiceExt};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The fate of a request in the network.
pub(crate) enum Fate {
    Answer(Response<Full<Bytes>>),
    /// The answer's body breaks off.
    Torn,
    Fail,
    Hang,
}

/// A request that was sent.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) method: http::Method,
    pub(crate) uri: http::Uri,
    pub(crate) head: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Sent {
    pub(crate) fn key(&self) -> &str {
        self.head["idempotency-key"].to_str().unwrap()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Network(Arc<State>);

#[derive(Default)]
struct State {
    fates: Mutex<VecDeque<Fate>>,
    sent: Mutex<Vec<Sent>>,
}

impl Network {
    /// A network that does this, in order, and answers 200 from then on.
    pub(crate) fn of(fates: impl IntoIterator<Item = Fate>) -> Self {
        let network = Self::default();
        network.0.fates.lock().extend(fates);
        network
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.0.sent.lock().clone()
    }
}

impl Service<Request<Body>> for Network {
    type Response = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let http::request::Parts { method, uri, headers: head, .. } = parts;
            state.sent.lock().push(Sent { method, uri, head, body });
            let fate = state.fates.lock().pop_front();
            let response = match fate.unwrap_or_else(|| Fate::Answer(answer(200, ""))) {
                Fate::Answer(response) => {
                    response.map(|body| body.map_err(Into::into).boxed_unsync())
                }
                Fate::Torn => {
                    let pieces = [
                        Ok(http_body::Frame::data(Bytes::from("{\"id\":"))),
                        Err(BoxError::from("connection reset")),
                    ];
                    let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
                    Response::new(body.boxed_unsync())
                }
                Fate::Fail => return Err("connection refused".into()),
                Fate::Hang => std::future::pending().await,
            };
            Ok(response)
        })
    }
}

/// A body in JSON.
pub(crate) fn answer(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(body))).unwrap()
}

/// An answer that leads elsewhere.
pub(crate) fn redirect(status: u16, location: &str) -> Fate {
    let mut response = answer(status, "");
    response.headers_mut().insert("location", location.parse().unwrap());
    Fate::Answer(response)
}

pub(crate) fn later(status: u16, retry_after: &str) -> Fate {
    let mut response = answer(status, "");
    response.headers_mut().insert("retry-after", retry_after.parse().unwrap());
    Fate::Answer(response)
}

/// A layer with retries enough for any test.
pub(crate) fn layer() -> ClientLayer {
    ClientLayer::new().budget(TpsBudget::new(Duration::from_secs(60), 1000, 10.0))
}

pub(crate) fn through(network: &Network) -> Client<Network> {
    layer().layer(network.clone())
}

pub(crate) fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://calls.test/v1/calls").body(Full::new(Bytes::from(body))).unwrap()
}

pub(crate) fn keyed(key: &str, body: &'static str) -> Request<Full<Bytes>> {
    let mut request = post(body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

pub(crate) async fn send(
    client: &Client<Network>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Body>, Error> {
    client.clone().oneshot(request).await
}

pub(crate) fn call_of<B>(response: &Response<B>) -> Call {
    response.extensions().get::<Call>().cloned().unwrap()
}
