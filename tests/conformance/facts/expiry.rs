//! P9: a record is replayed for its whole TTL, and never after it.

use std::time::Duration;

use refrain::Error;

use super::House;
use super::kit::*;

pub(crate) fn p9_a_record_is_replayed_until_its_ttl_is_over_and_not_later(house: &impl House) {
    let store = house.open();
    run(&store, "a");
    house.pass_time(DAY - house.grain());
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    house.pass_time(house.grain());
    assert!(store.get(scope(), &key("a")).wait().unwrap().is_none());
    assert_eq!(replayed(&store, "a"), None);
    run(&store, "a");
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

pub(crate) fn p9_the_ttl_counts_from_the_commit_and_not_from_the_claim(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    house.pass_time(HOUR);
    permit.complete(&response("a")).wait().unwrap();
    house.pass_time(DAY - house.grain());
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

pub(crate) fn an_operation_may_expire_earlier_than_the_store(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("brief").ttl(HOUR));
    permit.complete(&response("brief")).wait().unwrap();
    house.pass_time(HOUR);
    assert_eq!(replayed(&store, "brief"), None);
}

/// A longer TTL was cut to the store's without a word.
pub(crate) fn an_operation_that_asks_for_more_than_the_stores_ttl_is_refused(house: &impl House) {
    let store = house.open();
    for asked in [30 * DAY, DAY + Duration::from_millis(1), Duration::ZERO] {
        let refused = store.begin(&operation("long").ttl(asked)).wait();
        assert!(matches!(refused, Err(Error::Ttl { max: DAY, .. })), "{refused:?}");
    }
    assert_eq!(store.stats().in_flight, 0);
    drop(execute(&store, &operation("long").ttl(DAY)));
}
