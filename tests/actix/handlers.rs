//! What handlers see of their operation, and say of its outcome.

use actix_web::{App as ActixApp, HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use refrain::server::actix::Idempotency;
use refrain::server::{Envelope, Execution, IdempotencyLayer, KeepPolicy, OnInterrupted, Verdict};
use refrain::{RequestId, Store};

use crate::kit::*;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

#[test]
fn a_handler_gets_its_operation_and_the_id_of_its_request() {
    async fn place(execution: Execution, request: HttpRequest) -> Result<String, Envelope> {
        let id = request.extensions().get::<RequestId>().cloned().unwrap();
        assert_eq!(execution.request_id(), &id);
        let carrier = execution.downstream_key("carrier")?;
        execution.checkpoint("asked").await?;
        Ok(format!("{} {} {}", execution.key().as_str(), execution.attempt(), carrier.as_str()))
    }
    on_worker(async {
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer().durable(true)))
            .route("/", web::post().to(place));
        let answer = serve!(app).ask("key-1").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().starts_with("key-1 1 "), "{}", answer.text());
    });
}

#[test]
fn an_error_of_the_store_is_the_envelopes_answer() {
    async fn place(execution: Execution) -> Result<String, Envelope> {
        Ok(execution.downstream_key("carrier")?.as_str().to_owned())
    }
    on_worker(async {
        let app = ActixApp::new().wrap(Idempotency::new(layer())).route("/", web::post().to(place));
        let answer = serve!(app).ask("a").await;
        assert_eq!(answer.refusal(), (500, "internal_error".into()), "claims are volatile");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    });
}

#[test]
fn the_extractor_refuses_a_request_without_a_key_and_the_optional_one_does_not() {
    async fn strict(_execution: Execution) -> &'static str {
        "placed"
    }
    async fn lax(execution: Option<Execution>) -> String {
        execution.is_some().to_string()
    }
    on_worker(async {
        let app = serve!(
            ActixApp::new()
                .wrap(Idempotency::new(layer()))
                .route("/", web::post().to(strict))
                .route("/lax", web::post().to(lax))
        );
        let refused = app.send(anonymous("{}")).await;
        assert_eq!(refused.refusal(), (400, "idempotency_key_missing".into()));
        assert_eq!(app.send(anonymous("{}").uri("/lax")).await.text(), "false");
        assert_eq!(app.send(request("a", "{}").uri("/lax")).await.text(), "true");

        let bare = serve!(ActixApp::new().route("/", web::post().to(strict)));
        assert_eq!(bare.ask("a").await.refusal(), (500, "internal_error".into()));
    });
}

#[test]
fn a_verdict_in_the_extensions_of_the_response_overrides_the_policy() {
    let judged = |status: u16, verdict: Verdict| {
        move |_| {
            let mut response =
                HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap())
                    .body("judged");
            response.extensions_mut().insert(verdict);
            response
        }
    };
    on_worker(async {
        let kept = App::new(judged(422, Verdict::Complete)).await;
        assert_eq!(kept.ask("a").await.status, 422);
        let again = kept.ask("a").await;
        assert_eq!((again.status, again.is_replay(), again.text()), (422, true, "judged"));

        let free = App::new(judged(200, Verdict::Release)).await;
        free.ask("a").await;
        assert!(!free.ask("a").await.is_replay());

        let bare = App::new(judged(200, Verdict::CompleteWithoutResponse)).await;
        assert_eq!(bare.ask("a").await.text(), "judged");
        let refused = bare.ask("a").await.refusal();
        assert_eq!(refused, (409, "idempotency_result_unavailable".into()));

        let unknown =
            App::with(|l| l.on_interrupted(OnInterrupted::Refuse), judged(504, Verdict::Interrupt))
                .await;
        assert_eq!(unknown.ask("a").await.status, 504);
        assert_eq!(unknown.ask("a").await.refusal(), (409, "idempotency_interrupted".into()));
        assert_eq!((kept.runs(), free.runs(), bare.runs(), unknown.runs()), (1, 2, 1, 1));
    });
}

/// What a handler returns as its error is a response in actix, and its verdict is in that response.
#[test]
fn a_verdict_in_the_response_of_an_error_overrides_the_policy() {
    #[derive(Debug)]
    struct Unknown;

    impl std::fmt::Display for Unknown {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the carrier did not answer")
        }
    }

    impl ResponseError for Unknown {
        fn error_response(&self) -> HttpResponse {
            let mut response = HttpResponse::GatewayTimeout().finish();
            response.extensions_mut().insert(Verdict::Interrupt);
            response
        }
    }

    on_worker(async {
        let handler = web::post().to(|| async { Err::<HttpResponse, _>(Unknown) });
        let policy = layer().on_interrupted(OnInterrupted::Refuse);
        let app = serve!(ActixApp::new().wrap(Idempotency::new(policy)).route("/", handler));
        assert_eq!(app.ask("a").await.status, 504);
        assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_interrupted".into()));
    });
}

/// An error that is returned has no extensions of its own.
#[test]
fn a_verdict_that_is_given_to_the_operation_holds_for_an_error_of_the_handler() {
    async fn place(execution: Execution) -> Result<String, Envelope> {
        execution.give_verdict(Verdict::Interrupt);
        let status = http::StatusCode::GATEWAY_TIMEOUT;
        Err(Envelope::new(status, "carrier_failed", "the carrier did not answer"))
    }
    on_worker(async {
        let policy = layer().on_interrupted(OnInterrupted::Refuse);
        let app = ActixApp::new().wrap(Idempotency::new(policy)).route("/", web::post().to(place));
        let app = serve!(app);
        assert_eq!(app.ask("a").await.refusal(), (504, "carrier_failed".into()));
        assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_interrupted".into()));
    });
}

#[test]
fn policies_and_dialects_of_the_layer_hold() {
    on_worker(async {
        let app = App::with(
            |layer| layer.keep(KeepPolicy::All).dialect(refrain::server::Ietf::new("https://x")),
            |_| HttpResponse::BadGateway().body("no carrier"),
        )
        .await;
        app.ask("\"a\"").await;
        let again = app.ask("\"a\"").await;
        assert_eq!((again.status, again.text(), app.runs()), (502, "no carrier", 1));
        let refused = app.ask("bare").await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    });
}

#[test]
fn a_recovery_answers_for_an_interrupted_run() {
    on_worker(async {
        let found = OnInterrupted::recover(async |interruption: refrain::server::Interruption| {
            interruption.respond(http::Response::new("found".into()))
        });
        let app = App::with(|layer| layer.on_interrupted(found), |_| panic!("the carrier")).await;
        assert_eq!(app.ask("a").await.status, 500);
        let recovered = app.ask("a").await;
        assert_eq!(
            (recovered.status, recovered.text(), recovered.is_replay()),
            (200, "found", false)
        );
        assert!(app.ask("a").await.is_replay());
        assert_eq!(app.runs(), 1);
    });
}
