//! Records in the caller's own transaction: there if and only if the caller's rows are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod driver;
mod ends;
mod fenced;
mod foreign;
#[cfg(feature = "server")]
mod layer;
mod lost;
mod open;
mod snapshot;

#[path = "../kit/mod.rs"]
mod kit;

use bytes::Bytes;
use http::Response;
use refrain::{Error, Permit, Result};
use refrain_postgres::{CompleteIn, TransactionError};
use tokio_postgres::{Client, Transaction};

use kit::room::{Room, client};
use kit::server::runtime;

/// A room with a bank in it: two accounts of 100 each.
fn bank() -> Room {
    let room = Room::new();
    room.run(
        "CREATE TABLE SCHEMA.account (id int4 PRIMARY KEY, balance int8 NOT NULL); \
         INSERT INTO SCHEMA.account VALUES (1, 100), (2, 100)",
    );
    room
}

fn balance(room: &Room, account: i32) -> i64 {
    room.ask(&format!("SELECT balance FROM SCHEMA.account WHERE id = {account}"))
}

/// Begins a transaction that moves 5 from the first account.
fn pay<'a>(room: &Room, client: &'a mut Client) -> Transaction<'a> {
    runtime().block_on(async {
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(&paying(room)).await.unwrap();
        transaction
    })
}

/// Moves 5 from the first account in a transaction that has begun.
fn pay_in(room: &Room, transaction: &Transaction<'_>) {
    runtime().block_on(transaction.batch_execute(&paying(room))).unwrap();
}

fn paying(room: &Room) -> String {
    room.sql("UPDATE SCHEMA.account SET balance = balance - 5 WHERE id = 1")
}

fn complete_in(
    permit: &mut Permit,
    transaction: &Transaction<'_>,
    response: &Response<Bytes>,
) -> Result<()> {
    runtime().block_on(permit.complete_in(transaction, response))
}

/// Pays and completes in one transaction, and commits it.
fn paid(room: &Room, permit: &mut Permit, response: &Response<Bytes>) {
    let mut client = client();
    let transaction = pay(room, &mut client);
    complete_in(permit, &transaction, response).unwrap();
    commit(transaction);
}

/// Pays and completes in one transaction, and rolls it back.
fn unpaid(room: &Room, permit: &mut Permit, response: &Response<Bytes>) {
    let mut client = client();
    let transaction = pay(room, &mut client);
    complete_in(permit, &transaction, response).unwrap();
    roll_back(transaction);
}

fn commit(transaction: Transaction<'_>) {
    runtime().block_on(transaction.commit()).unwrap();
}

fn roll_back(transaction: Transaction<'_>) {
    runtime().block_on(transaction.rollback()).unwrap();
}

/// Why a transaction did not complete the operation.
fn cause(error: &Error) -> &TransactionError {
    match error {
        Error::Unavailable { source, .. } => {
            source.downcast_ref().unwrap_or_else(|| panic!("not for its transaction: {source}"))
        }
        other => panic!("not for its transaction: {other:?}"),
    }
}
