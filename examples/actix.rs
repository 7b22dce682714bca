//! The server layer in actix-web: one run for each key, and replays for its retries.
//!
//! ```text
//! cargo run --release -p refrain-examples --features actix --example actix -- DIR
//! curl -i -X POST http://127.0.0.1:8080/v1/calls -H "Authorization: Bearer YOUR_API_KEY" \
//!   -H "Idempotency-Key: 9b8cfa7a" -d '{"caller_id": "+14155551234"}'
//! ```

#![expect(clippy::print_stdout, reason = "it says where it listens")]

use std::time::Duration;

use actix_web::rt::signal::ctrl_c;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpResponse, HttpServer, rt, web};
use refrain::Store;
use refrain::server::actix::Idempotency;
use refrain::server::{Envelope, Execution, IdempotencyLayer};

/// The time for handlers to end before the server stops.
const DRAIN: Duration = Duration::from_secs(30);

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: actix DIR")?;
    let store = Store::open(path)?;
    // Made once, so that all workers share its limits.
    let idempotency = Idempotency::new(IdempotencyLayer::new(store.clone()));
    let server = HttpServer::new(move || App::new().configure(|app| routes(app, &idempotency)));
    let server = server.disable_signals().bind("127.0.0.1:8080")?.run();
    println!("listening on http://127.0.0.1:8080");
    let handle = server.handle();
    rt::spawn(async move {
        signalled().await.expect("the process may handle its signals");
        // The store first: a worker that stops does not wait for handlers whose clients are gone.
        match store.close(DRAIN).await {
            Ok(running) => println!("handlers that have not ended: {running}"),
            Err(error) => println!("the store has not closed: {error}"),
        }
        handle.stop(true).await;
    });
    Ok(server.await?)
}

/// Waits for Ctrl-C or SIGTERM.
async fn signalled() -> std::io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

/// Authentication, which is not shown, is wrapped after idempotency, and so runs before it.
pub(crate) fn routes(app: &mut web::ServiceConfig, idempotency: &Idempotency) {
    app.service(web::resource("/v1/calls").wrap(idempotency.clone()).post(place_call));
}

async fn place_call(execution: Execution, body: String) -> Result<HttpResponse, Envelope> {
    println!("{} places a call: {body}", execution.request_id());
    Ok(HttpResponse::Created().content_type("application/json").body(r#"{"status":"queued"}"#))
}
