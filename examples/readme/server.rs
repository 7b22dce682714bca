//! The server of the README: orders in a SQL table, each of them placed once.
//!
//! ```text
//! cargo run -p refrain-examples --features readme --example readme-server
//! ```

use axum::middleware::{Next, from_fn};
use axum::{Router, extract::Request, extract::State, http, routing::post};
use parking_lot::Mutex;
use refrain::{Store, server::*};
use rusqlite::{Connection, OptionalExtension};
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = app(Store::open("idempotency")?, Connection::open("orders.db")?)?;
    Ok(axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?)
}

pub(crate) fn app(store: Store, database: Connection) -> rusqlite::Result<Router> {
    database.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, item TEXT)", ())?;
    let database = Arc::new(Mutex::new(database));
    let orders = database.clone();
    // After a crash or a panic in `place`, the table tells whether the order was placed.
    let recover = OnInterrupted::recover(move |interruption| {
        let id = interruption.downstream_key("orders");
        let find = "SELECT item FROM orders WHERE id = ?1";
        let found = orders.lock().query_row(find, [id.as_str()], |row| row.get::<_, String>(0));
        std::future::ready(match found.optional() {
            Ok(Some(item)) => interruption.respond(placed(id.as_str(), &item).map(Into::into)),
            Ok(None) => interruption.rerun(),
            Err(_) => interruption.refuse(),
        })
    });
    let once = IdempotencyLayer::new(store).on_interrupted(recover);
    let routes = Router::new().route("/orders", post(place)).with_state(database);
    Ok(routes.layer(once).layer(from_fn(authenticate))) // the last is outermost
}

async fn place(
    State(orders): State<Arc<Mutex<Connection>>>,
    execution: Execution,
    item: String,
) -> Result<http::Response<String>, Envelope> {
    let id = execution.downstream_key("orders")?; // the same in every attempt
    let insert = "INSERT INTO orders (id, item) VALUES (?1, ?2)";
    let inserted = orders.lock().execute(insert, [id.as_str(), &item]);
    inserted.expect("a panic interrupts the key, and its next request asks `recover`");
    Ok(placed(id.as_str(), &item))
}

fn placed(id: &str, item: &str) -> http::Response<String> {
    http::Response::new(format!("order {id}: {item}\n"))
}

async fn authenticate(request: Request, next: Next) -> Result<axum::response::Response, Envelope> {
    match request.headers().get("authorization") {
        Some(token) if token == "Bearer YOUR_API_KEY" => Ok(next.run(request).await),
        _ => Err(Envelope::new(http::StatusCode::UNAUTHORIZED, "unauthorized", "unknown API key")),
    }
}
