//! Lookups that read from the disk keep no task waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use refrain::Store;
use refrain::clock::SimulatedClock;
use refrain::server::IdempotencyLayer;
use tokio::runtime::Builder;
use tower::ServiceExt;

use crate::kit::*;

/// A slow disk held up the worker that read, and with it all of the worker's connections. The
/// runtime has one worker, which is this thread, so that each thread it starts is one that may block.
#[test]
fn a_segment_is_read_on_a_thread_that_may_block() {
    let started = Arc::new(AtomicUsize::new(0));
    let starting = Arc::clone(&started);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_start(move || {
            starting.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    let clock = SimulatedClock::new();
    let store = Store::builder().clock(clock.clone()).open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store.clone());
    let app: Router = Router::new().route("/", post(|| async { "placed" })).layer(layer);
    let ask = |key| {
        let answer = async {
            let response = app.clone().oneshot(request(key, "{}")).await.unwrap();
            Answer::read(response).await.unwrap()
        };
        let answer = runtime.block_on(answer);
        (answer.is_replay(), started.load(Ordering::SeqCst))
    };
    assert_eq!(ask("a"), (false, 0));
    assert_eq!(ask("a"), (true, 0), "a log's records are in memory");
    clock.advance(Duration::from_secs(2 * 60 * 60));
    store.reap().unwrap();
    assert_eq!(store.stats().segment_records, 1);
    assert_eq!(ask("b"), (false, 0), "a filter excludes it");
    assert_eq!(ask("a"), (true, 1));
}
