//! The adapter that makes `reqwest::Client` a tower service.

use std::pin::Pin;
use std::task::{Context, Poll};

use ::reqwest as rq;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tower_service::Service;

use crate::http::{Body, IDEMPOTENCY_KEY};

/// reqwest's client as a tower service, to be wrapped by a [`ClientLayer`](super::ClientLayer).
///
/// It follows redirects of requests with a safe method, as reqwest does by default. A redirect of
/// any other request is an answer, for the layer to judge: reqwest would send a GET in its place, or
/// take its key to another server.
///
/// A timeout set in reqwest ends an attempt, as
/// [`attempt_timeout`](super::ClientLayer::attempt_timeout) does. A body of known length is sent with
/// `Content-Length`, buffered or not.
///
/// ```no_run
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::{BodyExt, Full};
/// use refrain::client::{ClientLayer, Reqwest};
/// use tower::{Layer, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = ClientLayer::new().layer(Reqwest::new(reqwest::Client::builder())?);
/// let request = Request::post("http://127.0.0.1:8080/v1/calls")
///     .header("authorization", "Bearer YOUR_API_KEY")
///     .body(Full::new(Bytes::from(r#"{"caller_id": "+14155551234"}"#)))?;
/// let response = client.oneshot(request).await?;
/// println!("{}: {:?}", response.status(), response.into_body().collect().await?.to_bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reqwest(rq::Client);

tokio::task_local! {
    /// True if redirects of the request at hand are followed: reqwest's policy is not told which
    /// request it judges, but runs in its task.
    static IS_FOLLOWED: bool;
}

impl Reqwest {
    /// Builds the client, with a redirect policy in place of the builder's own.
    ///
    /// # Errors
    ///
    /// Those of [`reqwest::ClientBuilder::build`].
    pub fn new(builder: rq::ClientBuilder) -> rq::Result<Self> {
        let policy = rq::redirect::Policy::custom(|attempt| {
            if IS_FOLLOWED.try_with(|is_followed| *is_followed).unwrap_or(false) {
                rq::redirect::Policy::default().redirect(attempt)
            } else {
                attempt.stop()
            }
        });
        builder.redirect(policy).build().map(Self)
    }
}

impl Service<Request<Body>> for Reqwest {
    type Response = Response<rq::Body>;
    type Error = rq::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<rq::Body>, rq::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), rq::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // hyper says nothing of an empty body.
        let has_content = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        if has_content && request.body().size_hint().exact() == Some(0) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        let is_followed =
            request.method().is_safe() && !request.headers().contains_key(IDEMPOTENCY_KEY);
        let request = request.map(|body| match body.whole() {
            Some(bytes) => rq::Body::from(bytes.clone()),
            None => rq::Body::wrap(Lone(Mutex::new(body))),
        });
        let (client, request) = (self.0.clone(), rq::Request::try_from(request));
        let sent = async move { client.execute(request?).await.map(Response::from) };
        Box::pin(IS_FOLLOWED.scope(is_followed, sent))
    }
}

/// A streamed body that threads can share, as reqwest demands. Only its owner reads it.
struct Lone(Mutex<Body>);

impl HttpBody for Lone {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(self.0.get_mut()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
