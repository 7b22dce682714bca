//! A claim that its caller has given up, and that comes to its end afterwards.

use std::time::Duration;

use refrain::{Error, Outcome};

use crate::kit::proxy::Proxy;
use crate::kit::room::{Room, address, client, execute, operation, replayed, response, until};
use crate::kit::server::{self, Server, runtime};

fn signal(pid: i32, what: &str) {
    let done = std::process::Command::new("kill").args([what, &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn p17_a_late_claim_takes_nothing_from_its_own_node() {
    let room = Room::new();
    let builder = room.builder().node("first").lease(Duration::from_secs(60));
    let store = runtime().block_on(builder.connect(&address())).unwrap();
    let other = room.open("second");
    let operation = operation("a");
    let permit = execute(&store, &operation);
    let address: String = room.ask("SELECT address::text FROM SCHEMA.key");
    permit.release().wait().unwrap();

    // The claim waits for an insertion that is rolled back later, at a server that then stands still.
    let locker = client();
    let insertion = room.sql(&format!(
        "BEGIN; INSERT INTO SCHEMA.key \
         (address, attempt, session, sweep, state, fingerprint, request_id) \
         VALUES ('{address}', gen_random_uuid(), 1, 0, 0, '', 'x')"
    ));
    runtime().block_on(locker.batch_execute(&insertion)).unwrap();
    room.run("UPDATE SCHEMA.session SET lease_until = clock_timestamp() WHERE node = 'first'");
    let begun = store.begin(&operation);
    let waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE '%INSERT INTO \"SCHEMA\".key%'";
    until("the claim waits", || room.ask(&format!("SELECT count(*) > 0 {waiting}")));
    let pid: i32 = room.ask(&format!("SELECT pid {waiting}"));
    signal(pid, "-STOP");
    let late = begun.wait();
    assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
    runtime().block_on(locker.batch_execute("ROLLBACK")).unwrap();

    // The next request here runs, and the late one comes to its end.
    let permit = execute(&store, &operation);
    signal(pid, "-CONT");
    let is_idle = format!("SELECT state = 'idle' FROM pg_stat_activity WHERE pid = {pid}");
    until("the late claim has ended", || room.ask(&is_idle));
    // Whatever it has this node send comes before this.
    execute(&store, &crate::kit::room::operation("b")).release().wait().unwrap();
    let mut second = other.begin(&operation);
    second.give_up();
    let second = second.wait();
    assert!(matches!(second, Ok(Outcome::InFlight { .. })), "{second:?}");
    permit.complete(&response("done")).wait().unwrap();
}

/// The claim lies in the server's socket when the connection breaks.
#[test]
fn p17_a_claim_that_arrives_after_its_undoing_is_undone_again() {
    let room = Room::new();
    let network = Proxy::to(Server::shared().port);
    let builder = room.builder().node("first").lease(Duration::from_secs(60));
    let builder = builder.patience(Duration::from_millis(300));
    let store = runtime().block_on(builder.connect(&server::address(network.port))).unwrap();
    execute(&store, &operation("warm")).complete(&response("warm")).wait().unwrap();

    let of_store = "FROM pg_stat_activity WHERE query LIKE '%\"SCHEMA\"%' \
                    AND pid <> pg_backend_pid()";
    let pids: Vec<i32> = room.ask(&format!("SELECT array_agg(pid) {of_store}"));
    for pid in &pids {
        signal(*pid, "-STOP");
    }
    let told = store.begin(&operation("a")).wait();
    assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");
    network.cut();
    network.mend();
    until("it is undone", || {
        room.ask(&format!("SELECT count(*) > 0 {of_store} AND query LIKE 'DELETE FROM%'"))
    });
    for pid in &pids {
        signal(*pid, "-CONT");
    }
    let claims = "SELECT count(*) FROM SCHEMA.key WHERE state = 0";
    until("the claim arrives", || room.ask::<i64>(claims) == 1);
    until("it is undone again", || room.ask::<i64>(claims) == 0);
}

/// Take-overs that waited for it took all of a node's connections.
#[test]
fn a_transaction_that_a_dead_node_left_open_keeps_nothing_but_its_own_keys() {
    let room = Room::new();
    let dead = room.builder().node("dead").lease(Duration::from_secs(3600));
    let dead = runtime().block_on(dead.connect(&address())).unwrap();
    let names: Vec<String> = (0..20).map(|n| format!("held-{n}")).collect();
    let _held: Vec<_> = names.iter().map(|name| execute(&dead, &operation(name))).collect();
    let store = runtime()
        .block_on(room.builder().lease(Duration::from_millis(300)).connect(&address()))
        .unwrap();
    execute(&store, &operation("known")).complete(&response("known")).wait().unwrap();
    let left_open = client();
    let lock = room.sql("BEGIN; SELECT FROM SCHEMA.key WHERE state = 0 FOR UPDATE");
    runtime().block_on(left_open.batch_execute(&lock)).unwrap();
    let _spare = execute(&dead, &operation("spare"));
    room.run("UPDATE SCHEMA.session SET lease_until = clock_timestamp() WHERE node = 'dead'");

    until("this node may judge others", || {
        let mut begun = store.begin(&operation("spare"));
        begun.give_up();
        matches!(begun.wait(), Ok(Outcome::Execute(_)))
    });

    let waiting = || {
        room.ask::<i64>(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND query LIKE '%\"SCHEMA\".key%'",
        )
    };
    std::thread::scope(|scope| {
        for name in &names {
            let mut begun = store.begin(&operation(name));
            begun.give_up();
            scope.spawn(move || {
                let begun = begun.wait();
                assert!(!matches!(begun, Ok(Outcome::Execute(_))), "{begun:?}");
            });
        }
        until("as many wait as may", || waiting() == 4);
        for n in 0..10 {
            execute(&store, &operation(&format!("new-{n}"))).release().wait().unwrap();
            assert_eq!(replayed(&store, &operation("known")), "known");
        }
    });
    // Nor does anything go on waiting for those who have gone.
    until("nothing waits", || waiting() == 0);
    drop(left_open);
}
