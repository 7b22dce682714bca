//! P2 and P3: what was acknowledged is there after a restart, byte for byte.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use refrain::record::Trailers;
use refrain::{Outcome, Store};

use crate::kit::*;

#[test]
fn p2_many_restarts_keep_everything_and_merge_their_logs() {
    let home = Home::new();
    for round in 0..20 {
        let store = home.open();
        run(&store, &format!("key-{round}"));
        store.reap().unwrap();
        for earlier in 0..=round {
            let name = format!("key-{earlier}");
            assert_eq!(replayed(&store, &name).as_ref(), Some(&name), "in round {round}");
        }
    }
    let segments = home.files(".redb").len();
    assert!((1..=7).contains(&segments), "{segments} segments of 20 restarts");
    let logs = home.files(".log").len();
    assert!(logs <= 6, "{logs} logs after 20 restarts");
}

#[test]
fn p3_a_replay_is_the_same_to_the_byte_from_a_log_and_from_a_segment() {
    let home = Home::new();
    let store = home.open();
    let mut original = http::Response::builder()
        .status(418)
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("x-raw", http::HeaderValue::from_bytes(b"\xfe\xff").unwrap())
        .body(bytes::Bytes::from((0..=u8::MAX).cycle().take(20_000).collect::<Vec<_>>()))
        .unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    original.extensions_mut().insert(Trailers(trailers.clone()));
    execute(&store, &operation("a")).complete(&original).wait().unwrap();
    for place in ["log", "log after a restart", "segment"] {
        if place == "segment" {
            seal(&store, &home);
            assert_eq!(store.stats().segment_records, 1);
        }
        let Outcome::Replay(record) = begin(&store, &operation("a")) else { panic!("{place}") };
        let replayed = record.response().unwrap();
        assert_eq!(replayed.status(), original.status(), "{place}");
        assert_eq!(
            replayed.headers().iter().collect::<Vec<_>>(),
            original.headers().iter().collect::<Vec<_>>(),
            "{place}"
        );
        assert_eq!(replayed.body(), original.body(), "{place}");
        assert_eq!(replayed.extensions().get(), Some(&Trailers(trailers.clone())), "{place}");
        assert_eq!(record.request_id().as_str(), "req_a", "{place}");
    }
}

#[test]
fn p2_rotation_under_load_keeps_every_record() {
    let home = Home::new();
    let store = home.open();
    let body = "x".repeat(10_000);
    for n in 0..500 {
        let name = format!("key-{n}");
        // While sealing is behind, this waits.
        execute(&store, &operation(&name)).complete(&response(&body)).wait().unwrap();
    }
    store.reap().unwrap();
    assert!(store.stats().segments > 2, "{:?}", store.stats());
    store.verify().unwrap();
    let keep_every_record = |store: &refrain::Store| {
        for n in 0..500 {
            assert_eq!(replayed(store, &format!("key-{n}")).as_ref(), Some(&body), "key {n}");
        }
    };
    keep_every_record(&store);
    assert_eq!(store.close(DAY).wait().unwrap(), 0);
    keep_every_record(&home.open());
}

#[test]
fn a_forgotten_key_runs_again_and_stays_forgotten() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    store.forget(scope(), &key("a")).wait().unwrap();
    assert_eq!(replayed(&store, "a"), None);
    drop(store);
    let store = home.open();
    assert_eq!(replayed(&store, "a"), None);
    seal(&store, &home);
    assert_eq!(replayed(&store, "a"), None, "the forget was sealed");
    // A short-lived successor goes on hiding what the forget hid.
    let brief = operation("a").ttl(HOUR);
    execute(&store, &brief).complete(&response("second")).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("second"));
    seal(&store, &home);
    seal(&store, &home);
    assert_eq!(replayed(&store, "a"), None, "both are gone");
}

/// Drops the last handle of a store on the thread that wakes it.
struct LastHandle(Mutex<Option<Store>>);

impl Wake for LastHandle {
    fn wake(self: Arc<Self>) {
        let store = self.0.lock().unwrap().take();
        drop(store);
    }
}

/// A thread of the store waited for its own end.
#[test]
fn a_store_whose_last_handle_is_dropped_by_a_waker_lets_go_of_its_directory() {
    // One entry is settled by the writer, and many by the settler.
    for entries in [1, 64] {
        let home = Home::new();
        let store = home.open();
        let names: Vec<String> = (0..entries).map(|n| format!("key-{n}")).collect();
        let permits: Vec<_> = names.iter().map(|name| execute(&store, &operation(name))).collect();
        let complete = |permit: refrain::Permit| permit.complete(&response("done"));
        let mut tickets: Vec<_> = permits.into_iter().map(complete).collect();
        let last_handle = Arc::new(LastHandle(Mutex::new(Some(store))));
        let waker = Waker::from(Arc::clone(&last_handle));
        for ticket in &mut tickets {
            let _ = Pin::new(ticket).poll(&mut Context::from_waker(&waker));
        }
        // Unless all were there before they were polled.
        last_handle.wake();
        let store = home.builder().lock_wait(DAY).open(home.path()).unwrap();
        for name in &names {
            assert_eq!(replayed(&store, name).as_deref(), Some("done"));
        }
    }
}
