//! Transactions that are still open when somebody asks.

use std::time::Duration;

use refrain::{Outcome, Store};
use refrain_postgres::TransactionError;

use crate::kit::room::{client, execute, operation, replayed, response};
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

fn in_flight(store: &Store, asked: &refrain::Operation) -> Outcome {
    store.begin(asked).wait_timeout(SHORT).unwrap()
}
