//! P9: records that expire between two looks at them.

use std::pin::Pin;
use std::task::{Context, Waker};

use refrain::Outcome;

use super::House;
use super::kit::*;

pub(crate) fn p9_a_record_that_has_expired_since_it_was_found_is_not_replayed(house: &impl House) {
    let store = house.open();
    run(&store, "a");
    let begin = store.begin(&operation("a"));
    house.pass_time(DAY);
    assert!(matches!(begin.wait().unwrap(), Outcome::Execute(_)));
}

/// Each time that it was looked for again, it was there again, and over before it was looked at.
pub(crate) fn p9_a_brief_record_that_a_waiter_misses_again_and_again_is_no_error(
    house: &impl House,
) {
    let store = house.open();
    let brief = operation("a").ttl(HOUR);
    let mut permit = execute(&store, &brief);
    let mut waiting = store.begin(&brief);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..5 {
        assert!(Pin::new(&mut waiting).poll(&mut cx).is_pending());
        permit.complete(&response("a")).wait().unwrap();
        house.pass_time(HOUR);
        permit = execute(&store, &brief);
    }
    permit.complete(&response("last")).wait().unwrap();
    match waiting.wait().unwrap() {
        Outcome::Replay(record) => assert_eq!(record.response().unwrap().body(), "last"),
        other => panic!("{other:?}"),
    }
}
