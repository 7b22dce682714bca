//! The bytes on the wire in each dialect, compared with fixtures that were written from what the
//! dialect's owner publishes.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, Method};
use refrain::server::{Dialect, IdempotencyLayer, Ietf, RevDesk, Stripe, scope};
use refrain::{Fingerprint, Operation, Scope, Store};
use serde_json::{Value, json};

use crate::kit::*;

const DOCUMENTATION: &str = "https://developer.example.com/idempotency";

fn app(dialect: impl Dialect) -> App {
    let configure = |layer: IdempotencyLayer| {
        layer.dialect(dialect).require_key(true).wait(Duration::ZERO).max_request_bytes(100)
    };
    App::with(Store::builder(), configure, |_| {
        Response::builder().status(201).body(Body::from("placed")).unwrap()
    })
}

fn keyless() -> http::Request<Body> {
    let mut request = request("a", "{}");
    request.headers_mut().remove("idempotency-key");
    request
}

fn running(key: &str) -> Operation {
    let scope = Scope::from_api_key("sk_live_51");
    Operation::new(scope, key.parse().unwrap(), Fingerprint::of(["another request"]))
        .request_id("req_running".parse().unwrap())
}

/// Status, content type and body.
fn said(answer: &Answer) -> (u16, Option<&str>, Value) {
    (answer.status.as_u16(), answer.header("content-type"), answer.json())
}

fn problem(title: &str, detail: &str) -> Value {
    json!({ "type": DOCUMENTATION, "title": title, "detail": detail })
}

#[tokio::test]
async fn ietf_words_what_the_draft_words_as_it_does() {
    const TYPE: Option<&str> = Some("application/problem+json");
    let app = app(Ietf::new(DOCUMENTATION));
    let missing = app.send(keyless()).await;
    let expected = problem(
        "Idempotency-Key is missing",
        "This operation is idempotent and it requires correct usage of Idempotency Key.",
    );
    assert_eq!(said(&missing), (400, TYPE, expected));
    assert_eq!(missing.header("content-language"), Some("en"));

    assert_eq!(app.ask("\"a\"").await.status, 201);
    let reused = app.send(request("\"a\"", "[]")).await;
    let expected = problem(
        "Idempotency-Key is already used",
        "This operation is idempotent and it requires correct usage of Idempotency Key. \
         Idempotency Key MUST not be reused across different payloads of this operation.",
    );
    assert_eq!(said(&reused), (422, TYPE, expected));

    let _held = app.store.begin(&running("b")).await.unwrap();
    let outstanding = app.ask("\"b\"").await;
    let expected = problem(
        "A request is outstanding for this Idempotency-Key",
        "A request with the same Idempotency-Key for the same operation is being processed or is \
         outstanding.",
    );
    assert_eq!(said(&outstanding), (409, TYPE, expected));
    assert_eq!(outstanding.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn ietf_takes_quoted_keys_only() {
    let app = app(Ietf::new(DOCUMENTATION));
    for key in ["bare", "\"open", "\"a\";p=1", "8e03978e-40d5-43dd-bc93-6894a57f9324"] {
        assert_eq!(app.ask(key).await.status, 400, "{key}");
    }
    let key = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";
    assert_eq!(app.ask(key).await.status, 201);
    assert!(app.ask(key).await.is_replay());
    assert_eq!(app.runs(), 1);
}

#[tokio::test]
async fn stripe_words_what_stripe_words_as_it_does() {
    let app = app(Stripe);
    let fresh = app.ask("key-1").await;
    assert_eq!(fresh.header("idempotency-key"), Some("key-1"));
    assert_eq!(fresh.header("request-id"), fresh.header("x-request-id"));
    assert_eq!(fresh.header("idempotent-replayed"), None);
    let again = app.ask("key-1").await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("idempotency-replay"), None);
    assert_eq!(again.header("idempotency-key"), Some("key-1"));
    assert_ne!(again.header("request-id"), fresh.header("request-id"));

    let reused = app.send(request("key-1", "[]")).await;
    let message = "Keys for idempotent requests can only be used with the same parameters they \
                   were first used with. Try using a key other than 'key-1' if you meant to \
                   execute a different request.";
    let expected = json!({ "error": { "type": "idempotency_error", "message": message } });
    assert_eq!(said(&reused), (400, Some("application/json"), expected));
    assert_eq!(reused.header("stripe-should-retry"), Some("false"));
    assert_eq!(reused.header("idempotency-key"), Some("key-1"));

    let _held = app.store.begin(&running("key-2")).await.unwrap();
    let in_use = app.ask("key-2").await;
    let message = "There is currently another in-progress request using this Idempotent Key (that \
                   probably means you submitted twice, and the other request is still going \
                   through): key-2. Please try again later.";
    let error = json!({
        "type": "invalid_request_error", "code": "idempotency_key_in_use", "message": message,
    });
    let expected = json!({ "error": error });
    assert_eq!(said(&in_use), (409, Some("application/json"), expected));
    assert_eq!(in_use.header("stripe-should-retry"), Some("true"));
    assert_eq!(in_use.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn stripe_names_the_request_on_answers_without_a_key_too() {
    let app = app(Stripe);
    let mut read = keyless();
    *read.method_mut() = Method::GET;
    let answer = app.send(read).await;
    assert!(answer.header("request-id").unwrap().starts_with("req_"));
    assert_eq!(answer.header("idempotency-key"), None);
}

/// Every 401 asked for a bearer token, also where the layer reads an API key from a header.
#[tokio::test]
async fn a_401_asks_for_the_credentials_that_the_scope_is_read_from() {
    const NAME: HeaderName = HeaderName::from_static("x-api-key");
    type Configure = fn(IdempotencyLayer) -> IdempotencyLayer;
    let cases: [(Configure, &[&str], &str, Value); 5] = [
        (
            |layer| layer,
            &["Bearer"],
            "a bearer token",
            json!({ "authorization": "Expected Bearer <token>" }),
        ),
        (
            |layer| layer.scope(scope::bearer_or_basic),
            &["Bearer", "Basic realm=\"API\""],
            "an API key as a bearer token or as the user of HTTP Basic",
            json!({
                "authorization": "Expected Bearer <API key>, or Basic with the API key as the user"
            }),
        ),
        (
            |layer| layer.scope(scope::header(NAME)),
            &[],
            "an API key in the header x-api-key",
            json!({ "x-api-key": "Expected an API key, once" }),
        ),
        (|layer| layer.scope(scope::extension), &[], "credentials", json!({})),
        (|layer| layer.scope(|_| None), &[], "credentials", json!({})),
    ];
    for (configure, challenges, noun, fields) in cases {
        let message = format!("a request with an idempotency key needs {noun}");
        let refuse = async |dialect: fn(IdempotencyLayer) -> IdempotencyLayer| {
            let app = App::with(
                Store::builder(),
                |layer| dialect(configure(layer)),
                |_| Response::default(),
            );
            let mut asked = request("\"a\"", "{}");
            asked.headers_mut().remove("authorization");
            let refused = app.send(asked).await;
            assert_eq!(refused.status, 401);
            let given: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
            assert_eq!(given, challenges);
            refused.json()
        };
        let error = json!({ "code": "unauthorized", "message": message, "fields": fields });
        assert_eq!(refuse(|layer| layer).await, json!({ "error": error }));
        let problem = problem("Unauthorized", &format!("{message}."));
        assert_eq!(refuse(|layer| layer.dialect(Ietf::new(DOCUMENTATION))).await, problem);
        let error = json!({ "type": "invalid_request_error", "message": message });
        assert_eq!(refuse(|layer| layer.dialect(Stripe)).await, json!({ "error": error }));
    }
}

/// A refusal in any dialect has an error status, says who is asked, and says when to ask again if
/// that helps.
#[tokio::test]
async fn every_dialect_says_whether_to_retry_with_the_same_key() {
    async fn check(app: App, quote: fn(&str) -> String) {
        let _held = app.store.begin(&running("b")).await.unwrap();
        app.ask(&quote("a")).await;
        for (refused, retry) in [
            (app.ask("").await, false),
            (app.send(request(&quote("a"), "[]")).await, false),
            (app.send(request(&quote("c"), &"x".repeat(101))).await, false),
            (app.ask(&quote("b")).await, true),
        ] {
            assert!(refused.status.is_client_error(), "{refused:?}");
            assert_eq!(refused.headers.contains_key("retry-after"), retry, "{refused:?}");
            assert!(!refused.body.is_empty() && refused.headers.contains_key("x-request-id"));
        }
        app.store.close(Duration::ZERO).wait().unwrap();
        let refused = app.ask(&quote("a")).await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    }
    check(app(RevDesk), str::to_owned).await;
    check(app(Stripe), str::to_owned).await;
    check(app(Ietf::new(DOCUMENTATION)), |key| format!("\"{key}\"")).await;
}
