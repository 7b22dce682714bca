//! P16: the events of a store in trouble, and of the layer over it: each cause, and not too often.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use refrain::clock::SimulatedClock;
use refrain::{Error, Outcome, Store};
use rustix::io::Errno;
use tokio::time;

use crate::gate::{Gate, State};
use crate::kit::*;
use crate::states;

/// Longer than any event is kept back.
const LATER: Duration = Duration::from_secs(60);

/// A store with small logs on a disk that can be full.
fn small(clock: &SimulatedClock) -> (Arc<Gate>, Store) {
    let gate = Arc::new(Gate::default());
    let builder = Store::builder().log_bytes(256 * 1024).max_response_bytes(32 * 1024);
    let store = builder.clock(clock.clone()).open_on(Arc::clone(&gate) as _).unwrap();
    (gate, store)
}

fn only_line(lines: &[impl AsRef<str> + Debug]) -> &str {
    let [line] = lines else { panic!("{lines:?}") };
    line.as_ref()
}

#[test]
fn p16_a_full_disk_is_told_once_with_its_cause_and_so_is_its_end() {
    let watch = Watch::begin();
    let clock = SimulatedClock::new();
    let (gate, store) = small(&clock);
    gate.set_logs(State::Failing(Errno::NOSPC));
    gate.set_segments(State::Failing(Errno::NOSPC));
    fill(&store);
    // Whatever was told on the way.
    clock.advance(LATER);
    for _ in 0..3 {
        let refused = store.begin(&operation("refused").durable()).wait();
        assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
        assert!(store.reap().is_err());
    }
    let refusing = watch.lines("new keys are refused: the disk is full");
    assert!(only_line(&refusing).contains(" WARN "), "{refusing:?}");
    let trouble = watch.lines("background work did not succeed");
    assert!(only_line(&trouble).contains("cannot make room for logs in"), "{trouble:?}");
    assert!(trouble[0].contains(": no storage space"), "{trouble:?}");
    let left_out = watch.lines("recorded without their bodies");
    assert!(left_out.first().is_some_and(|line| line.contains(" WARN ")), "{left_out:?}");

    gate.set_logs(State::Open);
    gate.set_segments(State::Open);
    clock.advance(LATER);
    store.reap().unwrap();
    store.reap().unwrap();
    assert!(only_line(&watch.lines("new keys are taken again")).contains(" WARN "));
    only_line(&watch.lines("background work succeeds again"));
    assert!(!watch.text().contains("fill-"), "a key was told");
}

#[test]
fn p16_a_response_without_its_body_does_not_count_as_stored() {
    let watch = Watch::begin();
    let (gate, store) = small(&SimulatedClock::new());
    gate.set_logs(State::Failing(Errno::NOSPC));
    gate.set_segments(State::Failing(Errno::NOSPC));
    let done = fill(&store);
    let left_out = store.stats().bodies_left_out;
    let metrics = watch.metrics();
    for expected in [
        format!("refrain_complete_total{{outcome=stored}} {}", done - left_out),
        format!("refrain_complete_total{{outcome=without_response}} {left_out}"),
        format!("refrain_bodies_left_out_total {left_out}"),
    ] {
        assert!(metrics.contains(&expected), "{expected}: {metrics:?}");
    }
}

/// The log said nothing but the error itself, however often.
#[tokio::test(start_paused = true)]
async fn p16_refusals_of_the_store_are_told_with_their_causes_and_once_a_second() {
    let watch = Watch::begin();
    time::advance(LATER).await;
    let (gate, store) = small(&SimulatedClock::new());
    let app = app(&store);
    gate.set_logs(State::Failing(Errno::MFILE));
    gate.set_segments(State::Failing(Errno::MFILE));
    fill(&store);
    for _ in 0..3 {
        assert_eq!(ask(&app, "secret-1").await, 503);
    }
    let told = watch.lines("the store refused a request");
    let line = only_line(&told);
    assert!(line.contains(" WARN ") && line.contains("idempotency{key=\""), "{line}");
    assert!(line.contains("the store is unavailable: cannot create"), "{line}");
    assert!(line.contains(": Too many open files"), "{line}");
    time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&app, "secret-1").await, 503);
    let told = watch.lines("the store refused a request");
    assert!(told.len() == 2 && told[1].contains("suppressed=2"), "{told:?}");
    let ended = watch.lines("the request has ended: idempotency_unavailable");
    assert!(ended.len() == 4 && ended[0].contains(" DEBUG "), "{ended:?}");
    assert!(!watch.text().contains("secret") && !watch.text().contains(TOKEN), "a secret was told");
}

#[tokio::test(start_paused = true)]
async fn p16_what_does_not_end_by_itself_is_told_as_an_error() {
    let watch = Watch::begin();
    time::advance(2 * LATER).await;
    let store = Store::builder().open_in_memory().unwrap();
    let app = app(&store);
    let Ok(Outcome::Execute(_permit)) = store.begin(&operation("held")).wait() else {
        panic!("it is new")
    };
    store.close(Duration::ZERO).wait().unwrap();
    assert_eq!(ask(&app, "late").await, 503);
    let told = watch.lines("the store refused a request");
    let line = only_line(&told);
    assert!(line.contains("ERROR") && line.contains("store is stopped"), "{line}");
}

/// A damaged record answered 503, and nothing in the log said why.
#[tokio::test(start_paused = true)]
async fn p16_a_damaged_record_is_told_as_an_error_with_its_place() {
    let watch = Watch::begin();
    time::advance(3 * LATER).await;
    let _kept = states::bring("RefrainRecordDamaged").await;
    let told = watch.lines("the store refused a request");
    let line = only_line(&told);
    assert!(line.contains("ERROR") && line.contains("idempotency{key=\""), "{line}");
    assert!(line.contains(".log is damaged: "), "{line}");
}
