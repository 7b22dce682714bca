//! Records can be listed and counted, of a scope or of all, and so can the keys in flight.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use refrain::backend::{Cursor, Listed};
use refrain::{Error, Key, Operation, Scope, Store};

use crate::kit::*;

fn put(store: &Store, name: &str, body: &str) {
    execute(store, &operation(name)).complete(&response(body)).wait().unwrap();
}

/// The keys of the live records behind a key, each with what is listed of its body.
fn listed(store: &Store, after: Option<&str>) -> Vec<(String, Option<String>)> {
    let after = after.map(key);
    let lines = store.records(scope(), after.as_ref()).with_responses();
    lines
        .map(|line| match line.unwrap() {
            Listed::Record { key, record, status, .. } => {
                assert_eq!(status, record.response().map(http::Response::status));
                let body = record.response().map(|response| response.body().to_vec());
                (key.as_str().into(), body.map(|body| String::from_utf8(body).unwrap()))
            }
            Listed::Damaged { error, .. } => panic!("{error}"),
        })
        .collect()
}

fn keys(lines: &[(String, Option<String>)]) -> Vec<&str> {
    lines.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn the_live_records_of_a_scope_are_listed_in_order_wherever_they_are() {
    let home = Home::new();
    let store = home.open();
    let large = "x".repeat(30_000);
    for (name, body) in [("d", "d"), ("a", &*large), ("forgotten", "f")] {
        put(&store, name, body);
    }
    let soon = operation("soon").ttl(HOUR * 3);
    execute(&store, &soon).complete(&response("soon")).wait().unwrap();
    seal(&store, &home);
    store.forget(scope(), &key("forgotten")).wait().unwrap();
    put(&store, "c", &large);
    seal(&store, &home);
    put(&store, "b", "b");
    execute(&store, &operation("e")).complete_without_response().wait().unwrap();
    let elsewhere = Operation::new(Scope::new("t"), key("a"), operation("a").fingerprint());
    execute(&store, &elsewhere).complete(&response("elsewhere")).wait().unwrap();
    let running = execute(&store, &operation("running"));
    give_up(&store, execute(&store, &durable("interrupted")));

    let text = |text: &str| Some(text.to_owned());
    let expected = [
        ("a".into(), text(&large)),
        ("b".into(), text("b")),
        ("c".into(), text(&large)),
        ("d".into(), text("d")),
        ("e".into(), None),
        ("soon".into(), text("soon")),
    ];
    assert_eq!(listed(&store, None), expected);
    assert_eq!(listed(&store, Some("b")), expected[2..]);
    assert_eq!(listed(&store, Some("bb")), expected[2..]);
    assert_eq!(listed(&store, Some("zzz")), []);
    let counts = store.count(scope()).unwrap();
    assert_eq!((counts.records, counts.damaged), (6, 0));
    assert_eq!((counts.in_flight, counts.interrupted), (1, 1));
    assert_eq!(store.count(Scope::new("u")).unwrap(), refrain::Counts::default());

    drop(running);
    drop(store);
    let store = home.open();
    assert_eq!(listed(&store, None), expected);
    home.clock.advance(HOUR * 2);
    assert_eq!(keys(&listed(&store, None)), ["a", "b", "c", "d", "e"]);
    home.clock.advance(HOUR * 24);
    assert_eq!(store.count(scope()).unwrap(), refrain::Counts::default());
}

#[test]
fn the_records_of_all_scopes_are_listed_and_go_on_from_any_of_them() {
    let home = Home::new();
    let store = home.open();
    let mut expected = Vec::new();
    for (n, scope) in ["t", "s", "u"].map(Scope::new).into_iter().enumerate() {
        for name in ["b", "a", "c"] {
            let operation = Operation::new(scope, key(name), operation(name).fingerprint());
            execute(&store, &operation).complete(&response(name)).wait().unwrap();
            expected.push(Cursor { scope, key: key(name) });
        }
        if n == 1 {
            seal(&store, &home);
        }
    }
    expected.sort_unstable();
    let places = |after: Option<&Cursor>| -> Vec<Cursor> {
        let lines = store.all_records(after.cloned());
        lines.map(|line| line.unwrap().cursor().unwrap()).collect()
    };
    assert_eq!(places(None), expected);
    for at in 0..expected.len() {
        assert_eq!(places(Some(&expected[at])), expected[at + 1..]);
    }
    let mut pages = store.all_records(None).with_responses();
    let page = pages.next_page(2).wait().unwrap();
    let Listed::Record { scope, record, .. } = &page[1] else { panic!("{page:?}") };
    assert_eq!((page.len(), *scope), (2, expected[1].scope));
    assert!(record.response().is_some());
}

#[test]
fn a_task_reads_a_list_by_the_page_and_without_responses() {
    let home = Home::new();
    let store = home.open();
    for name in ["c", "a", "b"] {
        put(&store, name, name);
    }
    let mut records = store.records(scope(), None);
    // What comes after the list has begun is not in it.
    put(&store, "d", "d");
    let mut pages: Vec<Vec<Key>> = Vec::new();
    loop {
        let mut ticket = records.next_page(2);
        let ready = Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(page)) = ready else { panic!("{ready:?}") };
        if page.is_empty() {
            break;
        }
        for line in &page {
            let Listed::Record { record, status, .. } = line else { panic!("{line:?}") };
            assert_eq!(record.response().map(http::Response::status), None);
            assert_eq!(status.map(|status| status.as_u16()), Some(201));
        }
        pages.push(page.iter().filter_map(Listed::key).cloned().collect());
    }
    assert_eq!(pages, [vec![key("a"), key("b")], vec![key("c")]]);
}

#[test]
fn a_list_of_a_store_that_was_closed_ends_with_that_error() {
    let home = Home::new();
    let store = home.open();
    put(&store, "a", "a");
    let mut records = store.records(scope(), None);
    store.close(HOUR).wait().unwrap();
    assert!(matches!(records.next(), Some(Err(Error::Stopped { .. }))));
    assert!(records.next().is_none());
    assert!(matches!(store.count(scope()), Err(Error::Stopped { .. })));
}

/// `Debug` is for logs, and keys are not.
#[test]
fn p16_a_line_shows_neither_key_nor_body() {
    let home = Home::new();
    let store = home.open();
    let named = |name: &str| operation(name).request_id("r".parse().unwrap());
    execute(&store, &named("secret-key")).complete(&response("secret-body")).wait().unwrap();
    let line = store.records(scope(), None).with_responses().next().unwrap().unwrap();
    assert!(!format!("{line:?}").contains("secret-"), "{line:?}");
    let running = execute(&store, &named("secret-key-2"));
    assert!(!format!("{:?}", store.in_flight()).contains("secret-"));
    drop(running);
}

#[test]
fn a_key_is_in_flight_since_its_holder_asked_for_it() {
    let home = Home::new();
    let store = home.open();
    let first = execute(&store, &operation("a"));
    home.clock.advance(HOUR);
    let waiting = store.begin(&operation("a").request_id("req_later".parse().unwrap()));
    let other = execute(&store, &operation("b"));
    home.clock.advance(HOUR);
    let ages = || {
        let listed = store.in_flight().into_iter();
        listed.map(|key| (key.request_id.as_str().to_owned(), key.age)).collect::<Vec<_>>()
    };
    assert_eq!(ages(), [("req_a".into(), 2 * HOUR), ("req_b".into(), HOUR)]);
    // It was handed on.
    first.release().wait().unwrap();
    assert_eq!(ages(), [("req_later".into(), HOUR), ("req_b".into(), HOUR)]);
    drop((waiting, other));
    assert_eq!(ages(), []);
}
