//! A client: requests as they are written, one connection each, and answers as they are read.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::server::{PAUSE, whole};

/// The body of the contract's example.
pub(crate) const CALL: &str = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;

/// Another call.
pub(crate) const OTHER_CALL: &str =
    r#"{"caller_id": "+14155551234", "destination": "+442079460000"}"#;

/// A request without a token.
pub(crate) fn anonymous(method: Method, path: &str) -> Builder {
    let request = Request::builder().method(method).uri(path);
    request.header("host", "calls.test").header("content-type", "application/json")
}

/// A request with the contract's token.
pub(crate) fn request(method: Method, path: &str) -> Builder {
    anonymous(method, path).header("authorization", "Bearer YOUR_API_KEY")
}

/// A call to be placed under a key.
pub(crate) fn keyed(key: &str, body: &str) -> Request<Full<Bytes>> {
    request(Method::POST, "/v1/calls").header("idempotency-key", key).body(whole(body)).unwrap()
}

/// Sends a request. Dropped in the middle, it closes the connection.
pub(crate) async fn send<B>(
    address: SocketAddr,
    request: Request<B>,
) -> Result<Answer, Box<dyn Error + Send + Sync>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Error + Send + Sync,
{
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The server has closed it, and what it said is there.
        _ = &mut connection => exchange.await,
    }
}

/// Sends a request, and sends it again as long as it is told that another with its key is running.
pub(crate) async fn send_patiently(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    loop {
        let answer = send(address, request.clone()).await?;
        if answer.code() != "idempotency_in_progress" {
            return Ok(answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error; none if it is not in the envelope.
    pub(crate) fn code(&self) -> String {
        // A success may have a body of any kind.
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or("none").to_owned()
    }

    /// Returns a field of the error in the answer.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.json()["error"]["fields"][name].as_str().map(str::to_owned)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn request_id(&self) -> &str {
        self.header("x-request-id").expect("every response has a request id")
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.header("idempotency-replay") == Some("true")
    }

    /// The id of the call in the body.
    pub(crate) fn call_id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }

    /// All headers in their order, but for those that name this answer rather than the response.
    pub(crate) fn lasting_headers(&self) -> Vec<(&str, &[u8])> {
        let own = ["date", "x-request-id", "idempotency-replay"];
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        headers.filter(|(name, _)| !own.contains(name)).collect()
    }
}
