//! Handlers under the layer that complete in their own transaction.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use refrain::server::{Envelope, Execution, IdempotencyLayer};
use refrain_postgres::CompleteIn;
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tower::ServiceExt;

use crate::kit::room::{Room, client, response};
use crate::kit::server::runtime;
use crate::{balance, bank};

/// The wait for another request: long enough to see that there is one.
const SHORT: Duration = Duration::from_millis(400);

/// What the handler does once it has written its rows and its record.
#[derive(Clone, Copy)]
enum Then {
    Commit,
    CommitAndFail,
    RollBack,
    /// Returns as if all were well, and leaves the transaction open.
    Forget,
}

struct Bank {
    paid: String,
    client: Mutex<Client>,
    then: Mutex<Then>,
}

async fn transfer(
    State(bank): State<Arc<Bank>>,
    mut execution: Execution,
) -> Result<Response<Body>, Envelope> {
    let failed = |_| Envelope::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "no money moved");
    let mut client = bank.client.lock().await;
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.batch_execute(&bank.paid).await.map_err(failed)?;
    let answer: Response<Bytes> = response(&format!("paid by {}", execution.request_id()));
    execution.complete_in(&transaction, &answer).await.map_err(Envelope::from)?;
    let then = *bank.then.lock().await;
    match then {
        Then::Commit => transaction.commit().await.map_err(failed)?,
        Then::CommitAndFail => {
            transaction.commit().await.map_err(failed)?;
            return Err(Envelope::new(StatusCode::BAD_GATEWAY, "mail_failed", "no mail was sent"));
        }
        Then::RollBack => transaction.rollback().await.map_err(failed)?,
        Then::Forget => std::mem::forget(transaction),
    }
    Ok(answer.map(Body::from))
}

/// Two nodes of one application.
fn nodes(room: &Room, then: Then) -> (Router, Router, Arc<Bank>) {
    let paid = room.sql("UPDATE SCHEMA.account SET balance = balance - 5 WHERE id = 1");
    let bank = Arc::new(Bank { paid, client: client().into(), then: then.into() });
    let node = |name| {
        let layer = IdempotencyLayer::new(room.open(name)).require_key(true).wait(SHORT);
        Router::new().route("/transfer", post(transfer).layer(layer)).with_state(Arc::clone(&bank))
    };
    (node("this"), node("other"), bank)
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    kind: Option<String>,
    replayed: bool,
    body: String,
}

fn ask(node: &Router, key: &str) -> Answer {
    let request = Request::post("/transfer")
        .header("idempotency-key", key)
        .header("authorization", "Bearer sk_live_51")
        .body(Body::from("5"))
        .unwrap();
    runtime().block_on(async {
        let (parts, body) = node.clone().oneshot(request).await.unwrap().into_parts();
        let header =
            |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            kind: header("x-kind"),
            replayed: header("idempotency-replay").is_some(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    })
}

#[test]
fn the_response_that_is_sent_is_the_one_that_is_replayed() {
    let room = bank();
    let (this, other, _) = nodes(&room, Then::Commit);
    let sent = ask(&this, "k1");
    assert_eq!((sent.status, sent.replayed), (StatusCode::CREATED, false), "{sent:?}");
    for node in [&this, &other] {
        let replayed = ask(node, "k1");
        assert!(replayed.replayed);
        assert_eq!(
            (replayed.status, replayed.kind, replayed.body),
            (sent.status, sent.kind.clone(), sent.body.clone())
        );
    }
    assert_eq!(balance(&room, 1), 95);
}

#[test]
fn a_failure_after_the_commit_does_not_run_again() {
    let room = bank();
    let (this, other, _) = nodes(&room, Then::CommitAndFail);
    assert_eq!(ask(&this, "k1").status, StatusCode::BAD_GATEWAY);
    for node in [&other, &this] {
        let replayed = ask(node, "k1");
        assert_eq!((replayed.status, replayed.replayed), (StatusCode::CREATED, true));
    }
    assert_eq!(balance(&room, 1), 95);
}

#[test]
fn success_over_a_rollback_is_not_sent_and_the_retry_runs() {
    let room = bank();
    let (this, other, bank) = nodes(&room, Then::RollBack);
    let refused = ask(&this, "k1");
    assert!(refused.status.is_server_error(), "{refused:?}");
    *runtime().block_on(bank.then.lock()) = Then::Commit;
    let run = ask(&other, "k1");
    assert_eq!((run.status, run.replayed), (StatusCode::CREATED, false), "{run:?}");
    assert_eq!(ask(&this, "k1").body, run.body);
    assert_eq!(balance(&room, 1), 95);
}

#[test]
fn a_handler_that_returns_before_its_transaction_has_ended_is_told() {
    let room = bank();
    let (this, other, bank) = nodes(&room, Then::Forget);
    let told = ask(&this, "k1");
    assert!(told.status.is_server_error(), "{told:?}");
    for node in [&this, &other] {
        let refused = ask(node, "k1");
        assert!(!refused.status.is_success(), "{refused:?}");
    }
    assert_eq!(balance(&room, 1), 100);
    // The connection ends, and the transaction with it.
    let old = std::mem::replace(&mut *runtime().block_on(bank.client.lock()), client());
    drop(old);
    *runtime().block_on(bank.then.lock()) = Then::Commit;
    let mut run = None;
    crate::kit::room::until("the key is free", || {
        let answer = ask(&other, "k1");
        let is_answered = answer.status.is_success();
        run = Some(answer);
        is_answered
    });
    assert!(!run.unwrap().replayed);
    assert_eq!(balance(&room, 1), 95);
}
