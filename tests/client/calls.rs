//! A client of the reference server, as its users build one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self};
use hyper_util::rt::TokioExecutor;
use refrain::client::{Body, Client, ClientLayer, Error};
use serde_json::{Value, json};
use tower::retry::budget::TpsBudget;
use tower::{Layer, ServiceExt};

use crate::client::request;

pub(crate) type Sender = Client<legacy::Client<HttpConnector, Body>>;

/// One connection for each request, so that each meets its own fault.
pub(crate) fn sender(attempt_timeout: Duration) -> Sender {
    let hyper =
        legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    ClientLayer::new()
        .max_attempts(30)
        .attempt_timeout(attempt_timeout)
        .backoff(Duration::from_millis(1), Duration::from_millis(100))
        .budget(TpsBudget::new(Duration::from_secs(60), 10_000, 100.0))
        .layer(hyper)
}

fn order(address: SocketAddr, destination: &str) -> Request<Full<Bytes>> {
    let request = request(http::Method::POST, &format!("http://{address}/v1/calls"));
    let order = json!({ "caller_id": "+14155551234", "destination": destination });
    request.body(Full::new(order.to_string().into())).unwrap()
}

pub(crate) async fn place(
    sender: &Sender,
    address: SocketAddr,
    destination: &str,
) -> Result<Placed, Error> {
    let response = sender.clone().oneshot(order(address, destination)).await?;
    Ok(Placed::of(response).await)
}

/// An answer that came whole.
pub(crate) struct Placed {
    pub(crate) status: u16,
    pub(crate) call: refrain::client::Call,
    pub(crate) id: String,
    pub(crate) destination: String,
}

impl Placed {
    async fn of(response: Response<Body>) -> Self {
        let call = response.extensions().get::<refrain::client::Call>().cloned().unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let field = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { status, call, id: field("id"), destination: field("destination") }
    }
}
