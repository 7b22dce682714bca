//! Transactions that are still open when somebody asks.

use std::time::Duration;

use refrain::{Outcome, Store};
use refrain_postgres::TransactionError;

use crate::kit::room::{body, client, execute, operation, replayed, response};
use crate::{balance, bank, cause, commit, complete_in, pay, roll_back};

/// Longer than a look at a key takes, shorter than the database waits for a lock.
const SHORT: Duration = Duration::from_millis(400);

#[test]
fn a_verdict_before_the_end_of_the_transaction_is_told_so() {
    let room = bank();
    let store = room.open("this");
    let asked = operation("early");
    let mut permit = execute(&store, &asked);
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("paid")).unwrap();
    let error = permit.complete(&response("paid")).wait().unwrap_err();
    assert!(matches!(cause(&error), TransactionError::Open), "{error:?}");
    assert!(matches!(in_flight(&store, &asked), Outcome::InFlight { .. }));
    commit(transaction);
    assert_eq!(replayed(&store, &asked), "paid");
    assert_eq!(balance(&room, 1), 95);
}

#[test]
fn a_rollback_after_an_early_verdict_frees_the_key() {
    let room = bank();
    let store = room.open("this");
    let asked = operation("early");
    let mut permit = execute(&store, &asked);
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("unpaid")).unwrap();
    let error = permit.release().wait().unwrap_err();
    assert!(matches!(cause(&error), TransactionError::Open), "{error:?}");
    roll_back(transaction);
    execute(&store, &asked).release().wait().unwrap();
}

#[test]
fn a_permit_dropped_before_the_end_of_its_transaction_lets_nobody_run() {
    let room = bank();
    let store = room.open("this");
    for asked in [operation("volatile"), operation("durable").durable()] {
        let mut permit = execute(&store, &asked);
        let mut client = client();
        let transaction = pay(&room, &mut client);
        complete_in(&mut permit, &transaction, &response("paid")).unwrap();
        drop(permit);
        assert!(matches!(in_flight(&store, &asked), Outcome::InFlight { .. }));
        commit(transaction);
        assert_eq!(replayed(&store, &asked), "paid");
    }
}

/// The claim waited for the row, and failed with the lock's timeout.
#[test]
fn a_retry_on_another_node_is_told_that_the_key_is_in_flight() {
    let room = bank();
    let (store, other) = (room.open("this"), room.open("other"));
    let asked = operation("open");
    let mut permit = execute(&store, &asked);
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("paid")).unwrap();
    assert!(matches!(in_flight(&other, &asked), Outcome::InFlight { .. }));
    let begin = other.begin(&asked);
    let waiter = std::thread::Builder::new().spawn(move || begin.wait()).unwrap();
    commit(transaction);
    let Outcome::Replay(record) = waiter.join().unwrap().unwrap() else { panic!("not replayed") };
    assert_eq!(body(record.response().unwrap()), "paid");
    permit.complete(&response("paid")).wait().unwrap();
}

/// One open transaction held up whatever shared a batch with a retry of its key.
#[test]
fn a_retry_of_an_open_transactions_key_holds_up_nobody_else() {
    let room = bank();
    let (store, other) = (room.open("this"), room.open("other"));
    let mut permit = execute(&store, &operation("open"));
    let slow = execute(&store, &operation("slow"));
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("paid")).unwrap();

    let wait = |begin: refrain::Begin| {
        std::thread::Builder::new()
            .spawn(move || begin.wait_timeout(Duration::from_secs(20)))
            .unwrap()
    };
    let retry = wait(other.begin(&operation("open")));
    let waiter = wait(other.begin(&operation("slow")));
    // Both of them are watched by now.
    assert!(matches!(in_flight(&other, &operation("open")), Outcome::InFlight { .. }));
    let fresh: Vec<_> = (0..100).map(|n| other.begin(&operation(&format!("fresh_{n}")))).collect();
    for begin in fresh {
        assert!(matches!(begin.wait().unwrap(), Outcome::Execute(_)));
    }
    slow.complete(&response("slow")).wait().unwrap();
    assert!(matches!(waiter.join().unwrap().unwrap(), Outcome::Replay(_)));
    commit(transaction);
    assert!(matches!(retry.join().unwrap().unwrap(), Outcome::Replay(_)));
    permit.complete(&response("paid")).wait().unwrap();
}

fn in_flight(store: &Store, asked: &refrain::Operation) -> Outcome {
    store.begin(asked).wait_timeout(SHORT).unwrap()
}
