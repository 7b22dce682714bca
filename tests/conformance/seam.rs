//! The tools for a backend's author, used by way of the toy.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use refrain::backend::{
    Answer, Asked, Backend, Claim, Cursor, Granted, Hold, Limits, Past, Promise, Rules, Ticket,
};
use refrain::codec::MAX_BODY_BYTES;
use refrain::{Error, Key, Outcome, Record, Scope, Store};

use crate::OnToy;
use crate::facts::kit::*;
use crate::facts::{FEW, House};
use crate::toy;

#[test]
fn a_promise_that_is_dropped_answers_stopped() {
    let (ticket, promise): (Ticket<()>, Promise<()>) = Ticket::new();
    drop(promise);
    assert!(matches!(ticket.wait(), Err(Error::Stopped { source: None, .. })));
}

#[test]
fn a_permit_gives_out_its_backends_own_claim() {
    let store = OnToy::new().open();
    let claim = execute(&store, &operation("a")).into_claim::<toy::Claim>().unwrap();
    assert_eq!(claim.past().key, key("a"));
    claim.complete(Some(response("a"))).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

#[test]
fn a_backend_without_a_list_of_records_says_so() {
    let store = OnToy::new().open();
    let refused = store.records(scope(), None).next();
    assert!(matches!(refused, Some(Err(Error::Unavailable { .. }))), "{refused:?}");
    assert!(matches!(store.count(scope()), Err(Error::Unavailable { .. })));
}

#[test]
fn a_granted_claim_that_is_dropped_is_released() {
    let store = OnToy::new().open();
    let claim = execute(&store, &durable("a")).into_claim::<toy::Claim>().unwrap();
    drop(Granted::new(claim));
    assert_eq!(execute(&store, &durable("a")).attempt(), 1);
}

/// A toy that does not keep to the rules of the seam.
#[derive(Debug)]
struct Odd {
    toy: toy::Toy,
    /// The time by which its clock is behind the clock that it judges records by.
    ahead: Duration,
    /// True if every key is another node's, whose end the backend always says has come.
    is_restless: bool,
}

impl Backend for Odd {
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        if self.is_restless {
            let (holder, changed) = ("req_far".parse().unwrap(), Ticket::ready(Ok(())));
            return Ticket::ready(Ok(Answer::Elsewhere { holder, hold, changed }));
        }
        self.toy.claim(asked, hold)
    }

    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        self.toy.find(scope, key)
    }

    fn forget(&self, hold: Hold) -> Ticket<()> {
        self.toy.forget(hold)
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        self.toy.interrupted(after, max)
    }

    fn now(&self) -> SystemTime {
        self.toy.now() + self.ahead
    }

    fn rules(&self) -> Rules {
        Rules { max_response_bytes: usize::MAX, ..Rules::default() }
    }
}

fn odd(ahead: Duration, is_restless: bool) -> Store {
    Store::new(Odd { toy: OnToy::new().toy(), ahead, is_restless }, FEW)
}

#[test]
fn a_record_that_has_expired_by_the_backends_own_clock_is_an_error_at_last() {
    let store = odd(2 * DAY, false);
    run(&store, "a");
    let refused = store.begin(&operation("a")).wait();
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
}

#[test]
fn p8_a_backend_that_is_always_ready_to_be_asked_again_does_not_hold_up_a_deadline() {
    let store = odd(Duration::ZERO, true);
    match store.begin(&operation("a")).wait_timeout(Duration::from_millis(1)).unwrap() {
        Outcome::InFlight { holder } => assert_eq!(holder.as_str(), "req_far"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.stats().in_flight, 0);
}

#[test]
fn no_backend_stores_a_longer_body_than_can_be_decoded() {
    let store = odd(Duration::ZERO, false);
    assert_eq!(store.rules().max_response_bytes, MAX_BODY_BYTES);
}

#[test]
fn a_backend_that_cannot_tell_when_bytes_are_gone_does_not_say_so() {
    let store = odd(Duration::ZERO, false);
    let purged = store.purge().wait();
    assert!(matches!(purged, Err(Error::Unavailable { .. })), "{purged:?}");
}

/// A claim whose verdicts are lost: by a worker that ends, say.
#[derive(Debug)]
struct Losing(Hold, Past);

#[derive(Debug)]
struct Loser;

impl Backend for Loser {
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        let past = Past::first(&asked, &hold);
        Ticket::ready(Ok(Answer::Claimed(Granted::new(Box::new(Losing(hold, past))))))
    }

    fn find(&self, _: Scope, _: &Key) -> Ticket<Option<Record>> {
        Ticket::ready(Ok(None))
    }

    fn forget(&self, _: Hold) -> Ticket<()> {
        Ticket::ready(Ok(()))
    }

    fn interrupted(&self, _: Option<Cursor>, _: usize) -> Ticket<Vec<Past>> {
        Ticket::ready(Ok(Vec::new()))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

impl Claim for Losing {
    fn past(&self) -> &Past {
        &self.1
    }

    fn hold(&mut self) -> &mut Hold {
        &mut self.0
    }

    fn complete(self: Box<Self>, _: Option<Response<Bytes>>) -> Ticket<Record> {
        Ticket::new().0
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        Ticket::ready(Ok(()))
    }

    fn interrupt(self: Box<Self>) -> Ticket<()> {
        Ticket::new().0
    }

    fn checkpoint(&mut self, _: Bytes) -> Ticket<()> {
        Ticket::ready(Ok(()))
    }

    fn retry(self: Box<Self>, _: Asked) -> Ticket<Box<dyn Claim>> {
        Ticket::ready(Err(Error::stopped()))
    }
}

/// The hold was dropped with the claim, and the next request ran beside an outcome that nobody
/// knew.
#[test]
fn p1_a_key_whose_verdict_is_lost_in_the_backend_stays_claimed() {
    let store = Store::new(Loser, FEW);
    assert!(execute(&store, &operation("done")).complete(&response("a")).wait().is_err());
    assert!(execute(&store, &operation("unknown")).interrupt().wait().is_err());
    execute(&store, &operation("free")).release().wait().unwrap();
    drop(execute(&store, &operation("free")));
    for name in ["done", "unknown"] {
        let outcome = store.begin(&operation(name)).wait_timeout(Duration::ZERO);
        assert!(matches!(outcome.unwrap(), Outcome::InFlight { .. }), "{name}");
    }
    assert!(matches!(begin(&store, &operation("free")), Outcome::Execute(_)));
}

#[test]
fn interrupted_runs_behind_a_page_of_running_ones_are_listed() {
    let many = Limits { in_flight: 600, per_scope: 600, waiters: 1 };
    let store = OnToy::new().open_within(many);
    let running: Vec<_> =
        (0..300).map(|n| execute(&store, &durable(&format!("a{n:03}")))).collect();
    drop(execute(&store, &durable("b")));
    let listed = store.interrupted(None, 1).wait().unwrap();
    assert_eq!(listed.iter().map(|past| past.key.as_str()).collect::<Vec<_>>(), ["b"]);
    drop(running);
    assert_eq!(store.interrupted(None, 1000).wait().unwrap().len(), 301);
}

/// Not a fact of all houses: a database's clock cannot be set.
#[test]
fn p9_a_record_that_has_expired_since_it_was_found_is_not_replayed() {
    let house = OnToy::new();
    let store = house.open();
    run(&store, "a");
    let begin = store.begin(&operation("a"));
    house.pass_time(DAY);
    assert!(matches!(begin.wait().unwrap(), Outcome::Execute(_)));
}

/// Each time that the waiter looked for the record again, the record was there again, and had
/// expired before the waiter looked at it.
#[test]
fn p9_a_brief_record_that_a_waiter_misses_again_and_again_is_no_error() {
    let house = OnToy::new();
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

/// Since there are other backends, none of these could be borrowed over an await.
#[test]
fn what_a_store_gives_may_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Store>();
    is_shared::<refrain::Begin>();
    is_shared::<Outcome>();
    is_shared::<refrain::Permit>();
    is_shared::<refrain::Attempt>();
    is_shared::<Ticket<()>>();
}
