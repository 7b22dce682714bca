//! Setting a store up, and the stores that are refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rights;
mod rolling;
mod settings;

#[path = "../kit/mod.rs"]
mod kit;

use std::time::Duration;

use refrain_postgres::{Error, Postgres, SCHEMA};

use kit::room::{DAY, Room, address, execute, operation, replayed, response};
use kit::server::{Server, runtime};

fn migrate(room: &Room) -> Result<(), Error> {
    runtime().block_on(room.builder().migrate(&address()))
}

fn connect(room: &Room) -> Result<refrain::Store, Error> {
    runtime().block_on(room.builder().connect(&address()))
}

#[test]
fn a_schema_without_a_store_is_missing() {
    let room = Room::empty(DAY);
    let is_missing =
        |error| matches!(error, Error::Missing { schema, .. } if schema == room.schema);
    assert!(is_missing(connect(&room).unwrap_err()));
    room.run("CREATE schema SCHEMA");
    assert!(is_missing(connect(&room).unwrap_err()));
}

#[test]
fn a_second_migration_leaves_the_store_as_it_is() {
    let room = Room::new();
    let store = connect(&room).unwrap();
    execute(&store, &operation("kept")).complete(&response("kept")).wait().unwrap();
    let meta: String = room.ask("SELECT m::text FROM SCHEMA.meta m");
    // With another retention as well.
    let other = Postgres::builder().schema(&room.schema).ttl(Duration::from_secs(60));
    runtime().block_on(other.migrate(&address())).unwrap();
    assert_eq!(room.ask::<String>("SELECT m::text FROM SCHEMA.meta m"), meta);
    assert_eq!(replayed(&connect(&room).unwrap(), &operation("kept")), "kept");
}

#[test]
fn nodes_that_start_together_set_up_one_store() {
    for has_schema in [false, true] {
        let room = Room::empty(DAY);
        if has_schema {
            room.run("CREATE schema SCHEMA");
        }
        let outcomes = runtime().block_on(async {
            let nodes: Vec<_> = (0..8)
                .map(|_| {
                    let builder = room.builder();
                    tokio::spawn(async move {
                        let address = address();
                        builder.clone().migrate(&address).await?;
                        builder.connect(&address).await
                    })
                })
                .collect();
            let mut outcomes = Vec::new();
            for node in nodes {
                outcomes.push(node.await.unwrap());
            }
            outcomes
        });
        let stores: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        execute(&stores[0], &operation("one")).complete(&response("one")).wait().unwrap();
        for store in &stores {
            assert_eq!(replayed(store, &operation("one")), "one");
        }
    }
}

#[test]
fn the_schema_applied_by_hand_is_the_one_that_migrate_makes() {
    let migrated = Room::new();
    let by_hand = Room::empty(DAY);
    Server::shared().run(&SCHEMA.replace("refrain", &by_hand.schema));
    assert!(shape(&migrated).len() > 2_000);
    assert_eq!(shape(&by_hand), shape(&migrated));
    let constants = "SELECT (version, oldest_reader, retention_ms, slot_ms)::text FROM SCHEMA.meta";
    assert_eq!(by_hand.ask::<String>(constants), migrated.ask::<String>(constants));
    let store = connect(&by_hand).unwrap();
    execute(&store, &operation("by_hand")).complete(&response("by hand")).wait().unwrap();
    // Migrated afterwards, it stays.
    migrate(&by_hand).unwrap();
    assert_eq!(replayed(&connect(&by_hand).unwrap(), &operation("by_hand")), "by hand");
}

/// All columns, constraints, indexes, options and storages of a schema, without its name.
fn shape(room: &Room) -> String {
    let parts = [
        "SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, is_nullable, \
         column_default, is_identity, collation_name) \
         FROM information_schema.columns WHERE table_schema = 'SCHEMA'",
        "SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) \
         FROM pg_constraint WHERE connamespace = 'SCHEMA'::regnamespace",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'SCHEMA'",
        "SELECT concat_ws(' ', relname, relkind, relpersistence, reloptions) FROM pg_class \
         WHERE relnamespace = 'SCHEMA'::regnamespace AND relkind <> 't'",
        "SELECT concat_ws(' ', attrelid::regclass, attname, attstorage) FROM pg_attribute \
         JOIN pg_class ON pg_class.oid = attrelid \
         WHERE relnamespace = 'SCHEMA'::regnamespace AND attnum > 0",
    ];
    let shape: String = parts
        .iter()
        .map(|part| {
            let sorted =
                format!("SELECT string_agg(line, E'\\n' ORDER BY line) FROM ({part}) AS s(line)");
            room.ask::<String>(&sorted)
        })
        .collect();
    shape.replace(&room.schema, "the schema")
}

#[test]
fn an_older_schema_is_named() {
    let room = Room::new();
    room.run("UPDATE SCHEMA.meta SET version = 0, oldest_reader = 0");
    for refused in [connect(&room).map(drop), migrate(&room)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Version { found: 0, supported: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("version 0"), "{error}");
    }
}

#[test]
fn tables_of_somebody_else_are_not_taken_for_a_store() {
    let room = Room::empty(DAY);
    room.run("CREATE schema SCHEMA; CREATE TABLE SCHEMA.meta (version text)");
    for refused in [connect(&room).map(drop), migrate(&room)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Database(_)), "{error:?}");
    }
    // Half a store: the rest of it does not come without the row.
    let room = Room::new();
    room.run("DELETE FROM SCHEMA.meta");
    assert!(matches!(connect(&room).unwrap_err(), Error::Missing { .. }));
}

#[test]
fn a_ttl_above_the_retention_is_refused() {
    let room = Room::with_ttl(Duration::from_secs(60));
    let longer = room.builder().ttl(Duration::from_secs(61));
    let error = runtime().block_on(longer.connect(&address())).unwrap_err();
    assert!(
        matches!(&error, Error::Setting { name: "ttl", allowed, .. } if allowed.contains("60000")),
        "{error:?}"
    );
    connect(&room).unwrap();
    let asked = operation("longer").ttl(Duration::from_secs(61));
    let told = connect(&room).unwrap().begin(&asked).wait();
    assert!(matches!(told, Err(refrain::Error::Ttl { .. })), "{told:?}");
}

/// The name of a keyword came back as the database's complaint about our own statements.
#[test]
fn names_that_no_schema_has_are_refused_and_keywords_work() {
    let too_long = "s".repeat(49);
    for name in ["", "Refrain", "two words", "1st", "a.b", "a\"b", "a-b", "pg_mine", &too_long, "ü"]
    {
        let builder = Postgres::builder().schema(name);
        for refused in [
            runtime().block_on(builder.clone().migrate(&address())),
            runtime().block_on(builder.connect(&address())).map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Setting { name: "schema", .. }), "{name}: {error:?}");
        }
    }
    for name in ["user", "table", "_", &too_long[1..]] {
        let builder = Postgres::builder().schema(name);
        runtime().block_on(builder.clone().migrate(&address())).unwrap();
        let store = runtime().block_on(builder.connect(&address())).unwrap();
        execute(&store, &operation(name)).complete(&response(name)).wait().unwrap();
        assert_eq!(replayed(&store, &operation(name)), name);
        store.reap().unwrap();
    }
}

#[test]
fn settings_out_of_bounds_are_named() {
    let builder = Postgres::builder;
    let long = Duration::from_secs(367 * 24 * 60 * 60);
    for (wrong, expected) in [
        (builder().connections(3), "connections"),
        (builder().lease(Duration::from_millis(299)), "lease"),
        (builder().ttl(Duration::ZERO), "ttl"),
        (builder().ttl(long), "ttl"),
        (builder().max_response_bytes(usize::MAX), "max_response_bytes"),
    ] {
        let error = runtime().block_on(wrong.connect(&address())).unwrap_err();
        assert!(
            matches!(error, Error::Setting { name, .. } if name == expected),
            "{expected}: {error:?}"
        );
    }
}

#[test]
fn an_address_that_is_none_is_named() {
    for wrong in ["mysql://app@db/app", "postgres://app@db:port/app", "nonsense"] {
        let error = runtime().block_on(Postgres::connect(wrong)).map(drop).unwrap_err();
        assert!(matches!(error, Error::Address(_)), "{wrong}: {error:?}");
    }
}

#[test]
fn a_database_that_does_not_answer_is_no_missing_store() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = kit::server::address(nobody);
    let no_database = address().replace("/postgres?", "/nothing?");
    for wrong in [nowhere, no_database] {
        for refused in [
            runtime().block_on(Postgres::connect(&wrong)).map(drop),
            runtime().block_on(Postgres::migrate(&wrong)),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Database(_)), "{error:?}");
        }
    }
}
