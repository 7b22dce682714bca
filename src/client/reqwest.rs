//! The adapter that makes `reqwest::Client` a tower service.

use std::pin::Pin;
use std::task::{Context, Poll};

use ::reqwest as rq;
use http::{Request, Response};
use http_body_util::BodyDataStream;
use tower_service::Service;

use crate::http::Body;

/// A `reqwest::Client` as a tower service, to be wrapped by a [`ClientLayer`](super::ClientLayer).
///
/// A timeout set in reqwest ends an attempt, as
/// [`attempt_timeout`](super::ClientLayer::attempt_timeout) does. Redirects that reqwest follows
/// belong to the same attempt. Request trailers are not sent.
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
/// let client = ClientLayer::new().layer(Reqwest::from(reqwest::Client::new()));
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

impl From<rq::Client> for Reqwest {
    fn from(client: rq::Client) -> Self {
        Self(client)
    }
}

impl Service<Request<Body>> for Reqwest {
    type Response = Response<rq::Body>;
    type Error = rq::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<rq::Body>, rq::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), rq::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let request = request.map(|body| match body.whole() {
            Some(bytes) => rq::Body::from(bytes.clone()),
            None => rq::Body::wrap_stream(BodyDataStream::new(body)),
        });
        let (client, request) = (self.0.clone(), rq::Request::try_from(request));
        Box::pin(async move { client.execute(request?).await.map(Response::from) })
    }
}
