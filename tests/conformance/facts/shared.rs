//! P1 and P8: one node of several, and the network between them.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use refrain::backend::Stage;
use refrain::{Error, Outcome};

use super::Shared;
use super::kit::*;

pub(crate) fn p17_a_claim_that_another_node_took_over_records_nothing(house: &impl Shared) {
    let store = house.open();
    let permit = execute(&store, &durable("a"));
    house.take_over(&durable("a"), &response("elsewhere"));
    let lost = permit.complete(&response("late")).wait();
    assert!(matches!(lost, Err(Error::Fenced)), "{lost:?}");
    house.reconnect();
    assert_eq!(replayed(&store, "a").as_deref(), Some("elsewhere"));
}

pub(crate) fn p17_a_claim_that_another_node_took_over_releases_nothing(house: &impl Shared) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    house.take_over(&durable("a"), &response("elsewhere"));
    let lost = permit.checkpoint("late").wait();
    assert!(matches!(lost, Err(Error::Fenced)), "{lost:?}");
    let lost = permit.release().wait();
    assert!(matches!(lost, Err(Error::Fenced)), "{lost:?}");
    house.reconnect();
    assert_eq!(replayed(&store, "a").as_deref(), Some("elsewhere"));
}

pub(crate) fn p8_a_wait_for_another_node_ends_by_its_deadline_with_the_holders_name(
    house: &impl Shared,
) {
    let store = house.open();
    house.run_elsewhere(&durable("a"));
    for _ in 0..2 {
        let outcome = store.begin(&operation("a")).wait_timeout(Duration::from_millis(1));
        match outcome.unwrap() {
            Outcome::InFlight { holder } => assert_eq!(holder.as_str(), "req_a"),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn p8_all_who_wait_for_another_node_get_its_answer(house: &impl Shared) {
    let store = house.open();
    house.run_elsewhere(&durable("a"));
    let mut waiting = [store.begin(&operation("a")), store.begin(&operation("a"))];
    let mut cx = Context::from_waker(Waker::noop());
    for begin in &mut waiting {
        assert!(matches!(pin!(begin).poll(&mut cx), Poll::Pending));
    }
    house.complete_elsewhere(&durable("a"), &response("elsewhere"));
    for begin in waiting {
        match begin.wait().unwrap() {
            Outcome::Replay(record) => assert_eq!(record.response().unwrap().body(), "elsewhere"),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn a_store_that_is_cut_off_claims_nothing_and_says_so(house: &impl Shared) {
    let store = house.open();
    run(&store, "done");
    house.cut_off();
    for operation in [operation("a"), durable("b"), operation("done")] {
        let refused = store.begin(&operation).wait();
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    }
    let refused = store.get(scope(), &key("done")).wait();
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    house.reconnect();
    assert_eq!(replayed(&store, "done").as_deref(), Some("done"));
    assert_eq!(execute(&store, &operation("a")).attempt(), 1);
    assert_eq!(execute(&store, &durable("b")).attempt(), 1);
}

/// Nobody knows whether the verdict arrived, so nobody runs the operation again.
pub(crate) fn p1_a_key_whose_verdict_did_not_arrive_stays_claimed(house: &impl Shared) {
    let store = house.open();
    let (completed, given_up) =
        (execute(&store, &operation("a")), execute(&store, &operation("b")));
    house.cut_off();
    assert!(completed.complete(&response("a")).wait().is_err());
    assert!(given_up.interrupt().wait().is_err());
    house.reconnect();
    for name in ["a", "b"] {
        match store.begin(&operation(name)).wait_timeout(Duration::ZERO).unwrap() {
            Outcome::InFlight { holder } => assert_eq!(holder.as_str(), format!("req_{name}")),
            // The verdict has arrived after all.
            Outcome::Replay(_) | Outcome::Interrupted(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn a_key_in_flight_on_another_node_is_listed_under_its_holders_name(
    house: &impl Shared,
) {
    let store = house.open();
    house.run_elsewhere(&durable("a"));
    let mut waiting = pin!(store.begin(&operation("a").request_id("req_here".parse().unwrap())));
    let mut cx = Context::from_waker(Waker::noop());
    let listed = loop {
        assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Pending));
        let listed = store.in_flight();
        if listed[0].stage != Stage::Running {
            break listed;
        }
        std::thread::yield_now();
    };
    let found = (listed.len(), listed[0].stage, listed[0].request_id.as_str());
    assert_eq!(found, (1, Stage::Elsewhere, "req_a"));
}
