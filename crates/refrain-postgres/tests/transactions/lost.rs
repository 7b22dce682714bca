//! Transactions whose process or connection is gone before the commit.

use refrain_postgres::TransactionError;

use crate::kit::room::{client, execute, operation, response, until};
use crate::kit::server::runtime;
use crate::{balance, bank, cause, complete_in, pay};

#[test]
fn a_connection_that_breaks_before_the_commit_leaves_the_key_as_it_was() {
    let room = bank();
    let store = room.open("this");
    let asked = operation("broken");
    let mut permit = execute(&store, &asked);
    let before: String = room.ask("SELECT k::text FROM SCHEMA.key k");
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("unpaid")).unwrap();
    // As a process does that is killed: nobody says rollback.
    std::mem::forget(transaction);
    drop(client);
    until("the server has noticed", || {
        room.ask::<i64>(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
             AND query LIKE '%\"SCHEMA\".key%'",
        ) == 0
    });
    assert_eq!(room.ask::<String>("SELECT k::text FROM SCHEMA.key k"), before);
    assert_eq!(balance(&room, 1), 100);
    let error = permit.complete(&response("unpaid")).wait().unwrap_err();
    assert!(matches!(cause(&error), TransactionError::RolledBack), "{error:?}");
    execute(&store, &asked).release().wait().unwrap();
}

#[test]
fn a_transaction_that_an_operator_ends_leaves_the_key_as_it_was() {
    let room = bank();
    let store = room.open("this");
    let asked = operation("ended");
    let mut permit = execute(&store, &asked);
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("unpaid")).unwrap();
    let pid = runtime().block_on(transaction.query_one("SELECT pg_backend_pid()", &[])).unwrap();
    let pid: i32 = pid.get(0);
    assert!(room.ask::<bool>(&format!("SELECT pg_terminate_backend({pid})")));
    assert!(runtime().block_on(transaction.commit()).is_err());
    let error = permit.complete(&response("unpaid")).wait().unwrap_err();
    assert!(matches!(cause(&error), TransactionError::RolledBack), "{error:?}");
    assert_eq!(balance(&room, 1), 100);
    execute(&store, &asked).release().wait().unwrap();
}

/// The other node finds the claim of a process that is gone, and its transaction gone with it.
#[test]
fn a_process_that_dies_before_the_commit_is_taken_over() {
    let room = bank();
    let store = room.open("this");
    let asked = operation("killed");
    let mut permit = execute(&store, &asked);
    let mut client = client();
    let transaction = pay(&room, &mut client);
    complete_in(&mut permit, &transaction, &response("unpaid")).unwrap();
    std::mem::forget(transaction);
    drop(client);
    room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'this'");
    let other = room.open("other");
    let mut again = execute(&other, &asked);
    crate::paid(&room, &mut again, &response("paid"));
    again.complete(&response("paid")).wait().unwrap();
    assert_eq!(balance(&room, 1), 95);
    assert!(matches!(permit.release().wait(), Err(refrain::Error::Fenced)));
}
