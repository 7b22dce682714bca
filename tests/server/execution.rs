//! The operation as its handler sees it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use refrain::server::{Envelope, Execution, IdempotencyLayer, Verdict};
use refrain::{Error, Store};
use tower::ServiceExt;

use crate::kit::*;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

async fn ask(app: &Router, key: Option<&str>) -> Answer {
    let mut request = request(key.unwrap_or("a"), "{}");
    if key.is_none() {
        request.headers_mut().remove("idempotency-key");
    }
    Answer::read(app.clone().oneshot(request).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_handler_that_wants_an_operation_refuses_a_request_without_a_key() {
    let wants = post(async |execution: Execution| execution.key().as_str().to_owned());
    let takes = post(async |execution: Option<Execution>| format!("{}", execution.is_some()));
    let app = Router::new().route("/", wants).layer(layer());
    assert_eq!(ask(&app, Some("a")).await.body, "a");
    assert_eq!(ask(&app, None).await.refusal(), (400, "idempotency_key_missing".into()));
    let app = Router::new().route("/", takes).layer(layer());
    assert_eq!(ask(&app, Some("a")).await.body, "true");
    assert_eq!(ask(&app, None).await.body, "false");
}

#[tokio::test]
async fn it_names_the_request_at_hand() {
    let handler = post(async |execution: Execution| {
        format!("{} {}", execution.request_id(), execution.attempt())
    });
    let app = Router::new().route("/", handler).layer(layer());
    let answer = ask(&app, Some("a")).await;
    let expected = format!("{} 1", answer.header("x-request-id").unwrap());
    assert_eq!(answer.body, expected);
}

#[tokio::test]
async fn a_volatile_operation_has_neither_checkpoints_nor_downstream_keys() {
    let handler = post(async |execution: Execution| {
        let checkpoint = execution.checkpoint("x").await;
        let key = execution.downstream_key("carrier");
        format!("{:?} {:?}", checkpoint.is_err(), key.is_err())
    });
    let app = Router::new().route("/", handler).layer(layer());
    assert_eq!(ask(&app, Some("a")).await.body, "true true");
}

#[tokio::test]
async fn after_its_answer_an_operation_takes_no_checkpoints() {
    let kept: Arc<Mutex<Option<Execution>>> = Arc::default();
    let keeping = Arc::clone(&kept);
    let handler = post(async move |execution: Execution| {
        *keeping.lock().unwrap() = Some(execution);
    });
    let app = Router::new().route("/", handler).layer(layer().durable(true));
    assert_eq!(ask(&app, Some("a")).await.status, 200);
    let execution = kept.lock().unwrap().take().unwrap();
    assert!(matches!(execution.checkpoint("late").await, Err(Error::Ended)));
    assert!(matches!(execution.downstream_key("late"), Err(Error::Ended)));
    assert!(ask(&app, Some("a")).await.is_replay());
}

/// A handler that asked for a checkpoint under a layer without durable claims was answered with 503
/// and "retry", which clients did in vain.
#[tokio::test]
async fn a_handler_that_lacks_durable_claims_is_a_mistake_of_the_program_and_not_to_be_retried() {
    let handler = post(async |execution: Execution| -> Result<(), Envelope> {
        execution.checkpoint("asked the carrier").await?;
        Ok(())
    });
    let app = Router::new().route("/", handler.clone()).layer(layer());
    let answer = ask(&app, Some("a")).await;
    assert_eq!(answer.refusal(), (500, "internal_error".into()));
    let body = str::from_utf8(&answer.body).unwrap();
    assert!(body.contains(".durable(true)"), "{body}");
    assert_eq!(answer.header("retry-after"), None);
    let app = Router::new().route("/", handler).layer(layer().durable(true));
    assert_eq!(ask(&app, Some("a")).await.status, 200);
}

/// A framework that rebuilds its responses lost what a handler knew.
#[tokio::test]
async fn p7_a_verdict_that_is_given_before_the_answer_counts_where_the_answer_has_none() {
    for (verdict, retry) in [
        (Verdict::CompleteWithoutResponse, (409, "idempotency_result_unavailable")),
        (Verdict::Interrupt, (409, "idempotency_interrupted")),
        (Verdict::Release, (502, "none")),
    ] {
        let handler = post(async move |execution: Execution| {
            execution.give_verdict(verdict);
            http::StatusCode::BAD_GATEWAY
        });
        let app = Router::new().route("/", handler).layer(layer().durable(true));
        assert_eq!(ask(&app, Some("a")).await.status, 502);
        assert_eq!(ask(&app, Some("a")).await.refusal(), (retry.0, retry.1.into()));
    }
}

/// A handler sets it before it acts: its success must not be taken for the failure it feared.
#[tokio::test]
async fn p7_a_verdict_for_a_cut_off_counts_there_and_nowhere_else() {
    for (verdict, retry) in [
        (Verdict::Complete, (409, "idempotency_result_unavailable")),
        (Verdict::Interrupt, (409, "idempotency_interrupted")),
        (Verdict::Release, (500, "internal_error")),
    ] {
        let handler = post(async move |execution: Execution, body: String| {
            execution.if_cut_off(verdict);
            assert_eq!(body, "{}", "the carrier");
            "placed"
        });
        let app = Router::new().route("/", handler).layer(layer().durable(true));
        let send = async |key, body| {
            let answer = app.clone().oneshot(request(key, body)).await.unwrap();
            Answer::read(answer).await.unwrap()
        };
        assert_eq!(send("a", "panic").await.status, 500);
        assert_eq!(send("a", "panic").await.refusal(), (retry.0, retry.1.into()));
        assert_eq!(send("b", "{}").await.status, 200);
        assert!(send("b", "{}").await.is_replay());
    }
}

/// A kept clone freed the key of a success, because a function panicked over it.
#[tokio::test]
async fn p1_a_verdict_that_comes_after_the_answer_does_nothing() {
    let kept = Arc::new(Mutex::new(None::<Execution>));
    let keeping = Arc::clone(&kept);
    let layer = layer().keep_if(move |_| {
        if let Some(execution) = &*kept.lock().unwrap() {
            execution.give_verdict(Verdict::Release);
            execution.if_cut_off(Verdict::Release);
        }
        panic!("the policy")
    });
    let handler = post(async move |execution: Execution| {
        *keeping.lock().unwrap() = Some(execution);
        "placed"
    });
    let app = Router::new().route("/", handler).layer(layer);
    assert_eq!(ask(&app, Some("a")).await.status, 500);
    let retry = ask(&app, Some("a")).await.refusal();
    assert_eq!(retry, (409, "idempotency_result_unavailable".into()));
}
