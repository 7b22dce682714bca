//! P7: interrupted runs can be listed, and so can the keys in flight.

use refrain::backend::{InFlight, Stage};
use refrain::{Operation, Scope, Store};

use super::House;
use super::kit::*;

pub(crate) fn interrupted_runs_are_listed_a_page_at_a_time_in_the_order_of_their_keys(
    house: &impl House,
) {
    let store = house.open();
    for name in ["c", "a", "e", "b", "d"] {
        give_up(&store, execute(&store, &durable(name)));
    }
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = store.interrupted(after.clone(), 2).wait().unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        pages.push(page.iter().map(|past| past.key.as_str().to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    assert!(store.interrupted(None, 0).wait().unwrap().is_empty());
}

pub(crate) fn pages_of_interrupted_runs_go_on_over_scopes(house: &impl House) {
    let store = house.open();
    let mut scopes = [scope(), Scope::new("elsewhere")];
    for scope in scopes {
        let operation = Operation::new(scope, key("a"), operation("a").fingerprint()).durable();
        give_up(&store, execute(&store, &operation));
    }
    scopes.sort();
    let first = store.interrupted(None, 1).wait().unwrap();
    let second = store.interrupted(Some(first[0].cursor()), 2).wait().unwrap();
    assert_eq!((first[0].scope, second[0].scope, second.len()), (scopes[0], scopes[1], 1));
}

pub(crate) fn a_listed_run_says_whose_it_is_and_how_far_it_came(house: &impl House) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("paid").wait().unwrap();
    drop(permit);
    give_up(&store, interrupted(&store, &durable("a")).retry().wait().unwrap());
    let listed = store.interrupted(None, 10).wait().unwrap();
    let [past] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((past.scope, &past.key, past.attempt), (scope(), &key("a"), 2));
    assert_eq!(past.fingerprint, durable("a").fingerprint());
    assert_eq!((past.request_id.as_str(), &past.checkpoints[..]), ("req_a", &["paid".into()][..]));
}

pub(crate) fn runs_that_go_on_are_judged_or_have_ended_or_expired_are_not_listed(
    house: &impl House,
) {
    let store = house.open();
    let count = || store.interrupted(None, 10).wait().unwrap().len();
    let running = execute(&store, &durable("running"));
    execute(&store, &durable("ended")).complete(&response("x")).wait().unwrap();
    give_up(&store, execute(&store, &durable("a")));
    assert_eq!(count(), 1);
    let judged = interrupted(&store, &durable("a"));
    assert_eq!(count(), 0);
    give_up(&store, judged);
    assert_eq!(count(), 1);
    give_up(&store, running);
    assert_eq!(count(), 2);
    house.pass_time(DAY);
    assert_eq!(count(), 0);
}

/// The keys in flight, with their stages.
fn stages(store: &Store) -> Vec<(String, Stage)> {
    let listed = store.in_flight().into_iter();
    listed.map(|InFlight { key, stage, .. }| (key.as_str().to_owned(), stage)).collect()
}

pub(crate) fn keys_in_flight_are_listed_the_oldest_first_until_their_verdicts_are_durable(
    house: &impl House,
) {
    let store = house.open();
    let first = execute(&store, &operation("a"));
    let second = execute(&store, &durable("b"));
    let listed = store.in_flight();
    let [a, b] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((a.scope, &a.key, a.request_id.as_str()), (scope(), &key("a"), "req_a"));
    assert_eq!((&b.key, a.stage, b.stage), (&key("b"), Stage::Running, Stage::Running));
    assert!(a.since <= b.since && a.age >= b.age, "{listed:?}");
    second.complete(&response("b")).wait().unwrap();
    assert_eq!(stages(&store), [("a".into(), Stage::Running)]);
    first.release().wait().unwrap();
    assert!(store.in_flight().is_empty());
}

pub(crate) fn a_key_that_is_handed_on_is_listed_under_its_new_holders_name(house: &impl House) {
    let store = house.open();
    let first = execute(&store, &operation("a"));
    let later = operation("a").request_id("req_later".parse().unwrap());
    let waiting = store.begin(&later);
    let listed = store.in_flight();
    assert_eq!((listed.len(), listed[0].waiters, listed[0].request_id.as_str()), (1, 1, "req_a"));
    give_up(&store, first);
    // The place of the first is free a moment before its key is handed on.
    while store.in_flight()[0].waiters > 0 {
        std::thread::yield_now();
    }
    let listed = store.in_flight();
    assert_eq!((listed.len(), listed[0].request_id.as_str()), (1, "req_later"));
    drop(waiting);
}

pub(crate) fn a_key_whose_outcome_nobody_knows_is_listed_as_retained(house: &impl House) {
    let store = house.open();
    execute(&store, &operation("a")).abandon();
    assert_eq!(stages(&store), [("a".into(), Stage::Retained)]);
    assert_eq!((store.stats().in_flight, store.stats().retained), (0, 1));
}
