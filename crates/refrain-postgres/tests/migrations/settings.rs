//! Settings of the server under which an acknowledged record may be lost.

use refrain_postgres::{Error, Postgres};

use crate::kit::room::{Room, address, until};
use crate::kit::server::{Server, runtime};

fn refusal(address: &str) -> Option<(&'static str, String)> {
    match runtime().block_on(Postgres::connect(address)).map(drop) {
        Err(Error::Unsafe { setting, value, .. }) => Some((setting, value)),
        Err(Error::Missing { .. }) => None,
        other => panic!("neither unsafe nor empty: {other:?}"),
    }
}

#[test]
fn a_server_that_does_not_sync_is_refused() {
    let server = Server::start(&["fsync=off"]);
    let address = server.address();
    assert_eq!(refusal(&address), Some(("fsync", "off".to_owned())));
    server.run("ALTER SYSTEM SET fsync = on");
    server.run("ALTER SYSTEM SET full_page_writes = off");
    server.run("SELECT pg_reload_conf()");
    until("the server has read its settings", || {
        refusal(&address) == Some(("full_page_writes", "off".to_owned()))
    });
    server.run("ALTER SYSTEM SET full_page_writes = on");
    server.run("ALTER SYSTEM SET synchronous_commit = off");
    server.run("SELECT pg_reload_conf()");
    until("the server has read its settings", || {
        refusal(&address) == Some(("synchronous_commit", "off".to_owned()))
    });
    server.run("ALTER SYSTEM SET synchronous_commit = on");
    server.run("SELECT pg_reload_conf()");
    until("the server has read its settings", || refusal(&address).is_none());
}

/// Whoever is asked, the role or the database: it is the session's value that counts.
#[test]
fn a_role_whose_commits_do_not_wait_is_refused() {
    let room = Room::new();
    room.run("CREATE ROLE hasty LOGIN SUPERUSER; ALTER ROLE hasty SET synchronous_commit = off");
    let hasty = address().replace("refrain@", "hasty@");
    let error = runtime().block_on(room.builder().connect(&hasty)).map(drop).unwrap_err();
    assert!(matches!(error, Error::Unsafe { setting: "synchronous_commit", .. }), "{error:?}");
    assert!(error.to_string().contains("synchronous_commit is off"), "{error}");
    room.run("ALTER ROLE hasty SET synchronous_commit = local");
    runtime().block_on(room.builder().connect(&hasty)).unwrap();
}
