//! The client layer in two cases: a button that is clicked twice, and a network that loses an
//! answer. `worker.rs` has the third: a worker that dies.
//!
//! ```text
//! cargo run --release -p refrain-examples --example calls -- --listen 127.0.0.1:8080 --store DIR
//! cargo run --release -p refrain-examples --features client --example client -- http://127.0.0.1:8080
//! ```

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use refrain::client::{Body, Call, CallId, ClientLayer};
use tower::{Layer, ServiceExt, service_fn};

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let server: Uri =
        std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".into()).parse()?;
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let layer = ClientLayer::new();

    // A button that is clicked twice: both clicks have the form's id, and one request is sent.
    let client = layer.layer(hyper.clone());
    let click = || {
        let mut request = order(&server);
        request.extensions_mut().insert(CallId::new("form-7"));
        client.clone().oneshot(request)
    };
    let (first, second) = tokio::join!(click(), click());
    tell("a button, clicked twice", first?).await?;
    tell("the second click", second?).await?;

    // A third click, later: the same key is sent, and the server answers from its record.
    tell("a click too many", click().await?).await?;

    // A network that loses the first answer: the call was placed, and the retry gets its answer.
    let lost = Arc::new(AtomicBool::new(false));
    let lossy = service_fn(move |request: Request<Body>| {
        let (hyper, lose) = (hyper.clone(), !lost.swap(true, Ordering::Relaxed));
        async move {
            let response = hyper.request(request).await?;
            if lose {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(response)
        }
    });
    let client = layer.attempt_timeout(Duration::from_secs(1)).layer(lossy);
    tell("an answer that was lost", client.oneshot(order(&server)).await?).await
}

fn order(server: &Uri) -> Request<Full<Bytes>> {
    let order = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;
    Request::post(format!("{server}v1/calls"))
        .header("authorization", "Bearer YOUR_API_KEY")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(order)))
        .expect("an address and a path")
}

async fn tell(what: &str, response: Response<Body>) -> Result<(), BoxError> {
    let call = response.extensions().get::<Call>().cloned().unwrap_or_default();
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    writeln!(
        std::io::stdout(),
        "{what}: {} attempts, {}: {}",
        call.attempts(),
        match status.as_u16() {
            _ if call.is_replay() => "a replay",
            201 => "placed",
            _ => "not placed",
        },
        String::from_utf8_lossy(&body),
    )?;
    Ok(())
}
