//! Through reqwest's client, over real sockets.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use refrain::client::{Failure, Reqwest, Stop};
use tower::{Layer, ServiceExt};

use crate::client::{CALL, request};
use crate::kit::*;
use crate::server::Home;

fn order(server: &str, key: &str) -> Request<Full<Bytes>> {
    let request = request(http::Method::POST, &format!("http://{server}/v1/calls"));
    request.header("idempotency-key", key).body(Full::new(Bytes::from(CALL))).unwrap()
}

#[tokio::test]
async fn a_call_is_placed_and_replayed() {
    let home = Home::new();
    let server = home.start(&[]);
    let client = layer().layer(Reqwest::from(reqwest::Client::new()));
    let address = server.address.to_string();
    let mut bodies = Vec::new();
    for replayed in [false, true] {
        let response = client.clone().oneshot(order(&address, "key")).await.unwrap();
        assert_eq!((response.status().as_u16(), call_of(&response).is_replay()), (201, replayed));
        bodies.push(response.into_body().collect().await.unwrap().to_bytes());
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_said_with_its_cause() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = layer().max_attempts(2).layer(Reqwest::from(reqwest::Client::new()));
    let error = client.oneshot(order(&address, "key")).await.unwrap_err();
    assert_eq!((error.call().attempts(), error.stop()), (2, Stop::Attempts));
    assert!(matches!(error.failure(), Failure::Transport(_)));
    let mut causes =
        std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    assert!(causes.any(|cause| cause.to_string().contains("refused")), "{error:?}");
}
