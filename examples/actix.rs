//! The core API in a framework without tower: a middleware for actix-web.
//!
//! ```text
//! cargo run --release -p refrain-examples --features actix --example actix -- DIR
//! curl -i -X POST http://127.0.0.1:8080/v1/calls -H "Authorization: Bearer YOUR_API_KEY" \
//!   -H "Idempotency-Key: 9b8cfa7a" -d '{"caller_id": "+14155551234"}'
//! ```
//!
//! It keeps the core of the contract: one run, whose answer is durable before it is sent, and is
//! replayed; conflicts; a wait for a request in progress. The tower layer does more, with tests.

#![expect(clippy::print_stdout, reason = "it says where it listens")]

use std::time::Duration;

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer, ResponseError, web};
use bytes::Bytes;
use refrain::{Fingerprint, Key, Operation, Outcome, Permit, Scope, Store};

/// The time that a request waits for another one with its key.
const WAIT: Duration = Duration::from_secs(10);

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: actix DIR")?;
    let store = Store::open(path)?;
    let data = web::Data::new(store.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .service(web::resource("/v1/calls").wrap(from_fn(once)).post(place_call))
    });
    let server = server.bind("127.0.0.1:8080")?;
    println!("listening on http://127.0.0.1:8080");
    server.run().await?;
    store.close(WAIT).await?;
    Ok(())
}

async fn place_call(body: Bytes) -> HttpResponse {
    println!("placing a call: {}", String::from_utf8_lossy(&body));
    HttpResponse::Created().content_type("application/json").body(r#"{"status":"queued"}"#)
}

/// Runs the request once, or answers from its record.
async fn once(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> actix_web::Result<ServiceResponse<impl MessageBody>> {
    let Some(value) = request.headers().get("idempotency-key") else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let key = Key::from_header(value.as_bytes()).map_err(|error| refuse(400, error.to_string()))?;
    let token = bearer_token(request.headers()).ok_or_else(|| refuse(401, "unauthorized"))?;
    let scope = Scope::from_api_key(token);
    // Up to the app's limit for payloads; a longer body is a 413.
    let body = request.extract::<Bytes>().await?;
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let fingerprint =
        Fingerprint::of([request.method().as_str().as_bytes(), target.as_bytes(), &body[..]]);
    request.set_payload(Payload::from(body));
    let store = request.app_data::<web::Data<Store>>().expect("it is the app's data").clone();
    let operation = Operation::new(scope, key, fingerprint);
    let mut begin = store.begin(&operation);
    let outcome = match actix_web::rt::time::timeout(WAIT, &mut begin).await {
        Ok(outcome) => outcome,
        Err(_) => {
            begin.give_up();
            begin.await
        }
    };
    let response = match outcome.map_err(|error| refuse(503, error.to_string()))? {
        Outcome::Execute(permit) => {
            // Actix drops a handler whose client is gone, but a task of its own goes on.
            let run = actix_web::rt::spawn(run(permit, request, next));
            return run.await.map_err(|_| refuse(500, "the request failed"))?;
        }
        Outcome::Replay(record) => match record.response() {
            Some(response) => replay(response),
            None => return Err(refuse(409, "its response was not kept").into()),
        },
        Outcome::Conflict { original } => {
            return Err(refuse(409, format!("the key was used by {original}")).into());
        }
        Outcome::Interrupted(attempt) => {
            return Err(refuse(409, format!("{} was interrupted", attempt.request_id())).into());
        }
        Outcome::InFlight { holder } => {
            return Err(refuse(409, format!("{holder} is running still")).into());
        }
    };
    Ok(request.into_response(response).map_into_boxed_body())
}

/// Runs the handler, and returns its answer once the record is durable.
async fn run(
    permit: Permit,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> actix_web::Result<ServiceResponse> {
    let (request, response) = next.call(request).await?.into_parts();
    let (head, body) = response.into_parts();
    let body = to_bytes(body).await.map_err(|_| refuse(500, "its body broke off"))?;
    if head.status().is_success() || head.status().is_redirection() {
        let mut stored = http::Response::builder().status(head.status().as_u16());
        for (name, value) in head.headers() {
            stored = stored.header(name.as_str(), value.as_bytes());
        }
        let stored = stored.body(body.clone()).map_err(|error| refuse(500, error.to_string()))?;
        permit.complete(&stored).await.map_err(|error| refuse(503, error.to_string()))?;
    }
    // A failure drops the permit, which frees the key.
    Ok(ServiceResponse::new(request, head.set_body(body).map_into_boxed_body()))
}

fn replay(stored: &http::Response<Bytes>) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(stored.status().as_u16());
    let mut response = HttpResponse::build(status.expect("it was one"));
    for (name, value) in stored.headers() {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    response.insert_header(("idempotency-replay", "true"));
    response.body(stored.body().clone())
}

fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")
}

/// An answer that the middleware gives itself.
#[derive(Debug)]
struct Refusal(u16, String);

fn refuse(status: u16, message: impl Into<String>) -> Refusal {
    Refusal(status, message.into())
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl ResponseError for Refusal {
    fn error_response(&self) -> HttpResponse {
        let status = actix_web::http::StatusCode::from_u16(self.0).expect("it is one");
        HttpResponse::build(status).insert_header((CONTENT_TYPE, "text/plain")).body(self.1.clone())
    }
}
