//! Roles that may do only so much.

use std::time::Duration;

use refrain_postgres::Error;

use crate::kit::room::{DAY, Room, address, execute, operation, replayed, response, until};
use crate::kit::server::{Server, runtime};

/// A role of this name, and its address.
fn role(name: &str) -> String {
    Server::shared().run(&format!("CREATE ROLE {name} LOGIN"));
    address().replace("refrain@", &format!("{name}@"))
}

/// Gives a role what a node needs, but for the right to empty tables.
fn admit(room: &Room, role: &str) {
    room.run(&format!(
        "GRANT USAGE ON schema SCHEMA TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN schema SCHEMA TO {role}"
    ));
}

fn denied(error: &Error) {
    let Error::Database(source) = error else { panic!("not denied: {error:?}") };
    let reason = source.to_string();
    assert!(reason.contains("permission denied") && reason.contains("42501"), "{reason}");
}

#[test]
fn a_role_without_rights_is_told_what_it_lacks() {
    let stranger = role("stranger");
    let room = Room::empty(DAY);
    denied(&runtime().block_on(room.builder().migrate(&stranger)).unwrap_err());
    let room = Room::new();
    denied(&runtime().block_on(room.builder().connect(&stranger)).map(drop).unwrap_err());
    room.run("GRANT USAGE ON schema SCHEMA TO stranger; GRANT SELECT ON SCHEMA.meta TO stranger");
    denied(&runtime().block_on(room.builder().connect(&stranger)).map(drop).unwrap_err());
}

/// A schema was always created, which such a role may not do even if the schema is there.
#[test]
fn a_role_that_owns_only_its_schema_can_set_up_a_store() {
    let owner = role("owner");
    let room = Room::empty(DAY);
    room.run("CREATE schema SCHEMA AUTHORIZATION owner");
    runtime().block_on(room.builder().migrate(&owner)).unwrap();
    let store = runtime().block_on(room.builder().connect(&owner)).unwrap();
    execute(&store, &operation("owned")).complete(&response("owned")).wait().unwrap();
    assert_eq!(replayed(&store, &operation("owned")), "owned");
}

/// As the head of the schema's text has it.
#[test]
fn a_node_needs_no_more_rights_than_are_named() {
    let node = role("node");
    let room = Room::new();
    room.run(
        "GRANT USAGE ON schema SCHEMA TO node; \
         GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN schema SCHEMA TO node",
    );
    let store = runtime().block_on(room.builder().connect(&node)).unwrap();
    let asked = operation("named").durable();
    let mut permit = execute(&store, &asked);
    permit.checkpoint("half").wait().unwrap();
    permit.complete(&response("named")).wait().unwrap();
    assert_eq!(replayed(&store, &asked), "named");
    for slot in 0..12 {
        room.run(&format!(
            "INSERT INTO SCHEMA.body_{slot:02} VALUES (gen_random_uuid(), gen_random_uuid(), '', '', '')"
        ));
    }
    store.reap().unwrap();
    assert_eq!(room.ask::<i64>(&format!("SELECT {}", full())), 10, "two slots are free");
    store.forget(crate::kit::room::scope(), asked.key()).wait().unwrap();
}

#[test]
fn a_sweeper_without_rights_says_so() {
    let node = role("sweepless");
    let room = Room::with_ttl(std::time::Duration::from_secs(1));
    admit(&room, "sweepless");
    for slot in 0..12 {
        room.run(&format!(
            "INSERT INTO SCHEMA.body_{slot:02} VALUES (gen_random_uuid(), gen_random_uuid(), '', '', '')"
        ));
    }
    let store = runtime().block_on(room.builder().connect(&node)).unwrap();
    until("the sweeper meets trouble", || {
        store.stats().last_trouble.is_some_and(|trouble| trouble.contains("permission denied"))
    });
}

/// The number of body tables that hold anything.
fn full() -> String {
    let holds: Vec<String> = (0..12)
        .map(|slot| format!("(SELECT count(*) FROM (SELECT FROM SCHEMA.body_{slot:02} LIMIT 1) b)"))
        .collect();
    holds.join(" + ")
}

/// The record was thrown away, and its key kept for as long as the process lived.
#[test]
fn a_record_that_lacked_a_right_is_written_once_the_right_is_back() {
    let node = role("bodyless");
    let room = Room::new();
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN schema SCHEMA TO bodyless";
    room.run(&format!("GRANT USAGE ON schema SCHEMA TO bodyless; {grant}"));
    let store = runtime().block_on(room.builder().connect(&node)).unwrap();
    let permit = execute(&store, &operation("paid"));
    for slot in 0..12 {
        room.run(&format!("REVOKE INSERT ON SCHEMA.body_{slot:02} FROM bodyless"));
    }
    let told = permit.complete(&response("paid")).wait().unwrap_err();
    let refrain::Error::Unavailable { source, .. } = &told else { panic!("not told: {told:?}") };
    assert!(source.to_string().contains("permission denied"), "{source}");
    assert!(store.stats().last_trouble.unwrap().contains("permission denied"));

    room.run(grant);
    until("the record is there", || {
        store.get(crate::kit::room::scope(), operation("paid").key()).wait().unwrap().is_some()
    });
    assert_eq!(replayed(&store, &operation("paid")), "paid");
}

/// The reads that such a database still answers hid the reason.
#[test]
fn a_late_call_and_the_stats_name_what_the_database_said() {
    let node = role("readonly");
    let room = Room::new();
    admit(&room, "readonly");
    let builder = room.builder().patience(Duration::from_secs(6));
    let store = runtime().block_on(builder.connect(&node)).unwrap();
    execute(&store, &operation("before")).complete(&response("before")).wait().unwrap();
    for n in 0..40 {
        execute(&store, &operation(&format!("first-{n}"))).release().wait().unwrap();
    }
    room.run("ALTER ROLE readonly SET default_transaction_read_only = on");
    room.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'readonly'",
    );
    let told = store.begin(&operation("during")).wait().unwrap_err();
    let refrain::Error::Unavailable { source, .. } = &told else { panic!("not told: {told:?}") };
    assert!(source.to_string().contains("read-only"), "{source}");
    assert!(store.stats().last_trouble.unwrap().contains("read-only"));
    assert_eq!(replayed(&store, &operation("before")), "before");
    // Nor do replays wait for others, which are tried until their time is over.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let other = store.begin(&operation(&format!("other-{n}")));
            scope.spawn(|| assert!(other.wait().is_err()));
            until("it is on its way", || store.stats().in_flight == n + 1);
        }
        assert_eq!(replayed(&store, &operation("before")), "before");
        assert_eq!(store.stats().in_flight, 8);
    });
}

/// The key was kept on all nodes for as long as the process lived, and nothing ran.
#[test]
fn a_key_that_could_not_be_released_is_free_once_the_right_is_back() {
    let node = role("keeper");
    let room = Room::new();
    admit(&room, "keeper");
    let store = runtime().block_on(room.builder().connect(&node)).unwrap();
    let released = execute(&store, &operation("released"));
    let dropped = execute(&store, &operation("dropped"));
    room.run("REVOKE DELETE ON SCHEMA.key FROM keeper");
    let told = released.release().wait().unwrap_err();
    let refrain::Error::Unavailable { source, .. } = &told else { panic!("not told: {told:?}") };
    assert!(source.to_string().contains("permission denied"), "{source}");
    drop(dropped);
    room.run("GRANT DELETE ON SCHEMA.key TO keeper");
    let keys = || room.ask::<i64>("SELECT count(*) FROM SCHEMA.key");
    until("both keys are free", || keys() == 0);
}

/// A node whose server closes idle connections judged nobody.
#[test]
fn a_dead_nodes_key_is_taken_over_though_idle_connections_are_closed() {
    let node = role("idle");
    let room = Room::new();
    admit(&room, "idle");
    room.run("ALTER ROLE idle SET idle_session_timeout = '100ms'");
    let dead = room.builder().node("dead").lease(Duration::from_secs(3600));
    let dead = runtime().block_on(dead.connect(&address())).unwrap();
    let _permit = execute(&dead, &operation("a"));
    let builder = room.builder().lease(Duration::from_millis(900));
    let store = runtime().block_on(builder.connect(&node)).unwrap();
    room.run("UPDATE SCHEMA.session SET lease_until = clock_timestamp() WHERE node = 'dead'");
    until("the key is taken over", || {
        let mut begun = store.begin(&operation("a"));
        begun.give_up();
        matches!(begun.wait(), Ok(refrain::Outcome::Execute(_)))
    });
}
