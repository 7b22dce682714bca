//! Money that moves exactly once: the record of a transfer commits in the transaction that moves
//! the money, so a process that dies leaves both or neither.
//!
//! ```text
//! cargo run -p refrain-postgres --features server --example accounts -- \
//!     postgres://app@localhost/app 127.0.0.1:8080
//! curl -i localhost:8080/transfers -H 'idempotency-key: k1' -H 'authorization: Bearer me' \
//!     -H 'content-type: application/json' -d '{"from": 1, "to": 2, "amount": 5}'
//! ```
//!
//! Start it on as many ports as you like: a retry may come to any of them. With
//! `ACCOUNTS_STOP_AT=before_begin`, `after_update`, `after_complete` or `after_commit` it says so
//! and goes no further, for whoever wants to kill it there.

#![allow(clippy::print_stdout, reason = "a program that is started by hand")]

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use http::{Response, StatusCode};
use refrain::server::{Envelope, Execution, IdempotencyLayer};
use refrain_postgres::{CompleteIn, Postgres};
use serde::Deserialize;
use tokio_postgres::{Client, NoTls};

/// Two accounts, of 100 each.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS accounts \
    (id int8 PRIMARY KEY, balance int8 NOT NULL CHECK (balance >= 0)); \
    INSERT INTO accounts VALUES (1, 100), (2, 100) ON CONFLICT DO NOTHING";

#[derive(Deserialize)]
struct Transfer {
    from: i64,
    to: i64,
    amount: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let database = arguments.next().ok_or("the first argument is the database's address")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    // A node that died loses its claims after its lease, and the retry runs.
    let builder = Postgres::builder().lease(Duration::from_secs(2));
    builder.clone().migrate(&database).await?;
    let store = builder.connect(&database).await?;
    // Nodes that start together would create the table twice.
    let _ = connect(&database).await?.batch_execute(TABLE).await;

    let once = IdempotencyLayer::new(store).require_key(true);
    let app = Router::new().route("/transfers", post(transfer).layer(once)).with_state(database);
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn transfer(
    State(database): State<String>,
    mut execution: Execution,
    Json(Transfer { from, to, amount }): Json<Transfer>,
) -> Result<Response<Body>, Envelope> {
    if amount <= 0 || from == to {
        return Err(refusal("wrong_transfer", "a transfer moves money between two accounts"));
    }
    stop_at("before_begin").await;
    // A program with more to do takes it from a pool.
    let mut client = connect(&database).await.map_err(|error| failure(&error))?;
    let transaction = client.transaction().await.map_err(|error| failure(&error))?;
    // In the order of their ids, so that opposite transfers do not wait for each other in a circle.
    let mut changes = [(from, -amount), (to, amount)];
    changes.sort_unstable();
    for (account, change) in changes {
        let update = "UPDATE accounts SET balance = balance + $2 WHERE id = $1";
        match transaction.execute(update, &[&account, &change]).await {
            Ok(1) => {}
            // Dropped, the transaction is rolled back, and nothing has happened.
            Ok(_) => return Err(refusal("no_account", "there is no such account")),
            Err(error) if is_too_poor(&error) => {
                return Err(refusal("no_money", "there is not so much in the account"));
            }
            Err(error) => return Err(failure(&error)),
        }
    }
    stop_at("after_update").await;

    // The answer, in the same transaction as the money. It names the request that moved it.
    let receipt = format!("{amount} from {from} to {to}, by {}\n", execution.request_id());
    let mut answer = Response::new(Bytes::from(receipt));
    *answer.status_mut() = StatusCode::CREATED;
    execution.complete_in(&transaction, &answer).await.map_err(Envelope::from)?;
    stop_at("after_complete").await;

    // If the commit is not answered, the layer asks what became of it. It frees the key if nothing
    // did, and the next retry is answered from the record otherwise.
    transaction.commit().await.map_err(|error| failure(&error))?;
    stop_at("after_commit").await;
    Ok(answer.map(Body::from))
}

async fn connect(database: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn is_too_poor(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION)
}

/// A refusal, which the layer does not keep by default: the next request is judged anew. To replay
/// it, set `KeepPolicy::Deterministic`.
fn refusal(code: &'static str, message: &'static str) -> Envelope {
    Envelope::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
}

/// Nothing is known to have happened. A 500 is not kept, so the next request runs, unless the
/// transaction has committed.
fn failure(error: &tokio_postgres::Error) -> Envelope {
    Envelope::new(StatusCode::INTERNAL_SERVER_ERROR, "database_failed", error.to_string())
}

/// Stops for ever at the step that is asked for.
async fn stop_at(step: &str) {
    if std::env::var("ACCOUNTS_STOP_AT").is_ok_and(|asked| asked == step) {
        println!("at {step}");
        std::future::pending::<()>().await;
    }
}
