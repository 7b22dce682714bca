//! The order of layers in a tonic server decides whether a revoked token is still answered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::Ordering;

use refrain::Store;
use refrain::server::IdempotencyLayer;
use tonic::metadata::MetadataValue;
use tonic::service::{InterceptorLayer, interceptor::InterceptedService};
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

#[path = "../tonic/main.rs"]
#[allow(dead_code, unreachable_pub, reason = "its `main` is the example's")]
mod example;

use example::Tokens;
use example::calls::{Calls, Text};

struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn place(&mut self) -> Result<Response<String>, Status> {
        let mut request = Request::new("+14155556789".to_owned());
        let metadata = request.metadata_mut();
        metadata.insert("authorization", MetadataValue::from_static("Bearer sk_live_51"));
        metadata.insert("idempotency-key", MetadataValue::from_static("9b8cfa7a"));
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/calls.Calls/Place");
        self.0.unary(request, path, Text).await
    }
}

/// Serves on a port of its own.
macro_rules! connect {
    ($router:expr) => {{
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router: Router<_> = $router;
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Client(tonic::client::Grpc::new(channel.connect().await.unwrap()))
    }};
}

fn parts() -> (Tokens, Calls, IdempotencyLayer) {
    let tokens = Tokens::default();
    tokens.accept("sk_live_51");
    let store = Store::builder().open_in_memory().unwrap();
    (tokens, Calls::default(), IdempotencyLayer::new(store))
}

#[tokio::test]
async fn a_revoked_token_is_unauthenticated_and_gets_no_replay() {
    let (tokens, calls, idempotency) = parts();
    let check = tokens.clone();
    let mut client = connect!(
        Server::builder()
            .layer(InterceptorLayer::new(move |request| check.check(request)))
            .layer(idempotency)
            .add_service(calls.clone())
    );
    assert_eq!(client.place().await.unwrap().into_inner(), "call 1 to +14155556789");
    let replay = client.place().await.unwrap();
    assert_eq!(replay.metadata().get("idempotency-replay").unwrap(), "true");
    assert_eq!(replay.into_inner(), "call 1 to +14155556789");

    tokens.revoke("sk_live_51");
    let refused = client.place().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(!refused.metadata().contains_key("idempotency-replay"));
    assert_eq!(calls.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_order_of_axum_replays_to_a_revoked_token() {
    let (tokens, calls, idempotency) = parts();
    let check = tokens.clone();
    let mut client = connect!(
        Server::builder()
            .layer(idempotency)
            .layer(InterceptorLayer::new(move |request| check.check(request)))
            .add_service(calls)
    );
    client.place().await.unwrap();
    tokens.revoke("sk_live_51");
    let replay = client.place().await.unwrap();
    assert_eq!(replay.metadata().get("idempotency-replay").unwrap(), "true");
}

#[tokio::test]
async fn an_interceptor_of_the_service_is_not_asked_for_a_replay() {
    let (tokens, calls, idempotency) = parts();
    let check = tokens.clone();
    let service = InterceptedService::new(calls, move |request| check.check(request));
    let mut client = connect!(Server::builder().layer(idempotency).add_service(service));
    client.place().await.unwrap();
    tokens.revoke("sk_live_51");
    let replay = client.place().await.unwrap();
    assert_eq!(replay.metadata().get("idempotency-replay").unwrap(), "true");
}
