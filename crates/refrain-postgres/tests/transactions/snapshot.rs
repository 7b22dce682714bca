//! Transactions that see the database as it was when they began.

use refrain::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::kit::room::{Room, client, execute, operation, replayed, response, until};
use crate::kit::server::runtime;
use crate::{balance, bank, commit, complete_in, pay_in, roll_back};

/// Begins a transaction that sees what has been committed until now.
fn looking_back<'a>(room: &Room, client: &'a mut Client) -> Transaction<'a> {
    runtime().block_on(async {
        let begin = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let transaction = begin.start().await.unwrap();
        // The snapshot is that of the first statement.
        transaction.query(&room.sql("SELECT FROM SCHEMA.account"), &[]).await.unwrap();
        transaction
    })
}

#[test]
fn a_transaction_from_before_the_claim_is_fenced() {
    let room = bank();
    let store = room.open("this");
    for asked in [operation("volatile"), operation("durable").durable()] {
        let mut client = client();
        let transaction = looking_back(&room, &mut client);
        let mut permit = execute(&store, &asked);
        pay_in(&room, &transaction);
        let told = complete_in(&mut permit, &transaction, &response("paid"));
        assert!(matches!(told, Err(Error::Fenced)), "{told:?}");
        roll_back(transaction);
        assert_eq!(balance(&room, 1), 100);
        permit.release().wait().unwrap();
    }
}

#[test]
fn a_transaction_from_after_the_claim_completes_it() {
    let room = bank();
    let store = room.open("this");
    let mut permit = execute(&store, &operation("later"));
    let mut client = client();
    let transaction = looking_back(&room, &mut client);
    pay_in(&room, &transaction);
    complete_in(&mut permit, &transaction, &response("paid")).unwrap();
    commit(transaction);
    permit.complete(&response("paid")).wait().unwrap();
    assert_eq!(balance(&room, 1), 95);
    assert_eq!(replayed(&store, &operation("later")), "paid");
}

/// A request that waits marks the key, which a snapshot from before does not see.
#[test]
fn a_transaction_from_before_a_wait_on_another_node_is_tried_again() {
    let room = bank();
    let (store, other) = (room.open("this"), room.open("other"));
    let asked = operation("waited");
    let mut permit = execute(&store, &asked);
    let mut client = client();
    let transaction = looking_back(&room, &mut client);
    let begin = other.begin(&asked);
    let waiter = std::thread::Builder::new().spawn(move || begin.wait()).unwrap();
    until("the key is marked", || room.ask("SELECT waited FROM SCHEMA.key"));
    let told = complete_in(&mut permit, &transaction, &response("paid"));
    let Err(Error::Unavailable { source, .. }) = told else { panic!("not refused: {told:?}") };
    assert!(source.to_string().contains(SqlState::T_R_SERIALIZATION_FAILURE.code()), "{source}");
    roll_back(transaction);

    let transaction = looking_back(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("paid")).unwrap();
    commit(transaction);
    permit.complete(&response("paid")).wait().unwrap();
    assert!(matches!(waiter.join().unwrap().unwrap(), refrain::Outcome::Replay(_)));
}
