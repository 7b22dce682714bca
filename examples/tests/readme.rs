//! The server and the client of the README are the examples, word for word, and work.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use axum::body::Body;
use http_body_util::BodyExt;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
use rusqlite::Connection;
use tower::ServiceExt;

#[path = "../readme/server.rs"]
#[allow(dead_code, reason = "its `main` is the example's")]
mod server;

const README: &str = include_str!("../../README.md");

/// The code of an example, without its head.
fn code(example: &str) -> &str {
    &example[example.find("\nuse ").unwrap() + 1..]
}

#[test]
fn the_readme_has_the_code_of_its_examples() {
    for example in [include_str!("../readme/server.rs"), include_str!("../readme/client.rs")] {
        let block = format!("```rust\n{}```\n", code(example));
        assert!(README.contains(&block), "the README lacks:\n{block}");
    }
}

#[test]
fn the_links_of_the_readme_lead_to_files() {
    let links = README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    for link in links.filter(|link| !link.starts_with("https://")) {
        let file = link.split('#').next().unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        assert!(path.exists(), "{link} leads nowhere");
    }
}

fn open() -> (Store, Connection, axum::Router) {
    let store = Store::builder().open_in_memory().unwrap();
    let uri = format!("file:{}?mode=memory&cache=shared", refrain::RequestId::random());
    let app = server::app(store.clone(), Connection::open(&uri).unwrap()).unwrap();
    (store, Connection::open(uri).unwrap(), app)
}

fn count(database: &Connection) -> u32 {
    database.query_row("SELECT count(*) FROM orders", (), |row| row.get(0)).unwrap()
}

/// Sends an order, and returns status, body, and true for a replay.
async fn order(app: &axum::Router, token: &str) -> (u16, String, bool) {
    let request = http::Request::post("/orders")
        .header("authorization", format!("Bearer {token}"))
        .header("idempotency-key", "9b8cfa7a")
        .body(Body::from("a bicycle"))
        .unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let is_replay = response.headers().contains_key("idempotency-replay");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap(), is_replay)
}

#[tokio::test]
async fn an_order_is_placed_once_and_replayed_to_its_token_alone() {
    let (_store, database, app) = open();
    let first = order(&app, "YOUR_API_KEY").await;
    assert_eq!((first.0, first.2), (200, false), "{}", first.1);
    assert_eq!(order(&app, "YOUR_API_KEY").await, (200, first.1, true));
    assert_eq!(order(&app, "another").await.0, 401);
    assert_eq!(count(&database), 1);
}

#[tokio::test]
async fn an_order_whose_attempt_was_interrupted_is_found_in_the_table() {
    let (store, database, app) = open();
    let fingerprint = Fingerprint::of_request("POST", "/orders", ["a bicycle"]);
    let key = "9b8cfa7a".parse().unwrap();
    let operation = Operation::new(Scope::from_api_key("YOUR_API_KEY"), key, fingerprint).durable();
    let Outcome::Execute(permit) = store.begin(&operation).await.unwrap() else { panic!() };
    let id = permit.downstream_key("orders").unwrap().as_str().to_owned();
    database.execute("INSERT INTO orders VALUES (?1, 'a bicycle')", [&id]).unwrap();
    permit.interrupt().await.unwrap();

    let answer = format!("order {id}: a bicycle\n");
    assert_eq!(order(&app, "YOUR_API_KEY").await, (200, answer.clone(), false));
    assert_eq!(order(&app, "YOUR_API_KEY").await, (200, answer, true));
    assert_eq!(count(&database), 1);
}

#[tokio::test]
async fn an_order_that_was_not_inserted_is_placed_by_the_retry() {
    let (_store, database, app) = open();
    database.execute("ALTER TABLE orders RENAME TO away", ()).unwrap();
    assert_eq!(order(&app, "YOUR_API_KEY").await.0, 500);
    database.execute("ALTER TABLE away RENAME TO orders", ()).unwrap();
    assert_eq!(order(&app, "YOUR_API_KEY").await.0, 200);
    assert_eq!(count(&database), 1);
}
