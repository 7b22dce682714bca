//! Transactions in another database than the store's.

use refrain_postgres::{Postgres, TransactionError};

use crate::driver::DRIVERS;
use crate::kit::room::{address, execute, operation, response};
use crate::kit::server::{Server, runtime};
use crate::{bank, cause};

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
    for driver in DRIVERS {
        let mut permit = execute(&store, &asked);
        let told = driver.complete_at(elsewhere, &mut permit, &response("strayed"));
        let error = told.unwrap_err();
        assert!(matches!(cause(&error), TransactionError::Elsewhere), "{driver:?}: {error:?}");
        let error = permit.complete(&response("strayed")).wait().unwrap_err();
        assert!(matches!(cause(&error), TransactionError::RolledBack), "{error:?}");
        execute(&store, &asked).release().wait().unwrap();
    }
}
