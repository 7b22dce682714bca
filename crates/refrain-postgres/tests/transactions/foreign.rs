//! Transactions in another database than the store's.

use refrain_postgres::{Postgres, TransactionError};
use tokio_postgres::NoTls;

use crate::kit::room::{address, execute, operation, response};
use crate::kit::server::{Server, runtime};
use crate::{bank, cause, complete_in, roll_back};

/// A database beside the one of the stores.
fn another(name: &str) -> String {
    Server::shared().run(&format!("CREATE DATABASE {name}"));
    address().replace("/postgres?", &format!("/{name}?"))
}

#[test]
fn a_database_without_the_store_is_named() {
    refused(&another("without_store"));
}

/// The key was not there, and the caller was told that another node had it.
#[test]
fn a_database_with_another_store_is_named() {
    let elsewhere = another("with_store");
    let room = bank();
    let migrated = Postgres::builder().schema(&room.schema).migrate(&elsewhere);
    runtime().block_on(migrated).unwrap();
    refused_for(&room, &elsewhere);
}

fn refused(elsewhere: &str) {
    refused_for(&bank(), elsewhere);
}

fn refused_for(room: &crate::Room, elsewhere: &str) {
    let store = room.open("this");
    let asked = operation("strayed");
    let mut permit = execute(&store, &asked);
    let mut client = runtime().block_on(async {
        let (client, connection) = tokio_postgres::connect(elsewhere, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    });
    let transaction = runtime().block_on(client.transaction()).unwrap();
    let error = complete_in(&mut permit, &transaction, &response("strayed")).unwrap_err();
    assert!(matches!(cause(&error), TransactionError::Elsewhere), "{error:?}");
    roll_back(transaction);
    let error = permit.complete(&response("strayed")).wait().unwrap_err();
    assert!(matches!(cause(&error), TransactionError::RolledBack), "{error:?}");
    execute(&store, &asked).release().wait().unwrap();
}
