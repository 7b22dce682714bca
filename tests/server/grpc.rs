//! The layer in front of a tonic server, with tonic's client.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::metadata::MetadataValue;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

/// Text in place of protocol buffers.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Places calls, unless it is asked to fail.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl UnaryService<String> for Calls {
    type Response = String;
    type Future = Ready<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let run = self.0.fetch_add(1, Ordering::SeqCst);
        ready(match request.get_ref().as_str() {
            "fail" => Err(Status::internal("the carrier")),
            body => Ok(Response::new(format!("{body} {run}"))),
        })
    }
}

impl NamedService for Calls {
    const NAME: &'static str = "calls.Calls";
}

impl<B> Service<http::Request<B>> for Calls
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Text).unary(calls, request).await) })
    }
}

struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn place(&mut self, key: &str, body: &str) -> Result<Response<String>, Status> {
        let mut request = Request::new(body.to_owned());
        let metadata = request.metadata_mut();
        metadata.insert("authorization", MetadataValue::from_static("Bearer sk_live_51"));
        metadata.insert("idempotency-key", key.parse().unwrap());
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/calls.Calls/Place");
        self.0.unary(request, path, Text).await
    }
}

async fn serve() -> (Client, Arc<AtomicUsize>) {
    let calls = Calls::default();
    let runs = Arc::clone(&calls.0);
    let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(Server::builder().layer(layer).add_service(calls).serve_with_incoming(incoming));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (Client(tonic::client::Grpc::new(channel.connect().await.unwrap())), runs)
}

#[tokio::test]
async fn a_call_is_replayed_with_its_message_and_its_status() {
    let (mut client, runs) = serve().await;
    let first = client.place("a", "hello").await.unwrap();
    let again = client.place("a", "hello").await.unwrap();
    assert_eq!((first.get_ref(), again.get_ref()), (&"hello 0".into(), &"hello 0".into()));
    assert!(first.metadata().get("idempotency-replay").is_none());
    assert_eq!(again.metadata().get("idempotency-replay").unwrap(), "true");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_fails_frees_its_key() {
    let (mut client, runs) = serve().await;
    for _ in 0..2 {
        let failed = client.place("a", "fail").await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::Internal, "the carrier"));
    }
    assert_eq!(client.place("a", "hello").await.unwrap().into_inner(), "hello 2");
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn refusals_are_in_grpcs_terms() {
    let (mut client, runs) = serve().await;
    client.place("a", "hello").await.unwrap();
    let conflict = client.place("a", "other").await.unwrap_err();
    assert_eq!(conflict.code(), Code::FailedPrecondition);
    assert_eq!(conflict.metadata().get("idempotency-error").unwrap(), "idempotency_conflict");
    assert!(conflict.metadata().contains_key("idempotency-other-request-id"));
    assert_eq!(conflict.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    let invalid = client.place("two words", "hello").await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
    assert!(invalid.message().contains("visible ASCII"), "{}", invalid.message());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
