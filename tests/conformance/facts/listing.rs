//! P7: interrupted runs can be listed.

use refrain::{Operation, Scope};

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
