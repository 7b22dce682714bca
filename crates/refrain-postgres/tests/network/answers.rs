//! Answers that are lost or late, one for each statement that a call repeats.

use std::thread::JoinHandle;
use std::time::Duration;

use refrain::{Error, Outcome, Store};
use tokio_postgres::Client;

use crate::kit::proxy::Proxy;
use crate::kit::room::{Room, client, execute, operation, replayed, response, until};
use crate::kit::server::{Server, address, runtime};

/// Longer than any of these tests holds an answer back.
const LONG: Duration = Duration::from_secs(20);

/// A store behind a network of its own.
fn behind(network: &Proxy, room: &Room, patience: Duration) -> Store {
    let builder = room.builder().node("behind").patience(patience);
    runtime().block_on(builder.connect(&address(network.port))).unwrap()
}

/// Locks a key's row, so that the next statement which changes it waits.
fn lock(room: &Room) -> Client {
    let locker = client();
    let sql = room.sql("BEGIN; SELECT 1 FROM SCHEMA.key FOR UPDATE");
    runtime().block_on(locker.batch_execute(&sql)).unwrap();
    locker
}

/// Lets the statement that waits for the row take effect, and loses its answer.
fn lose_its_answer(room: &Room, network: &Proxy, locker: &Client) {
    lose_its_answer_and(room, network, locker, "");
}

/// The same, and runs a statement before it can be repeated.
fn lose_its_answer_and(room: &Room, network: &Proxy, locker: &Client, then: &str) {
    until("a statement waits for the row", || {
        room.ask(
            "SELECT count(*) > 0 FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND query LIKE '%\"SCHEMA\".key%'",
        )
    });
    network.stall_answers();
    let before: String = row(room);
    runtime().block_on(locker.batch_execute("COMMIT")).unwrap();
    until("the statement takes effect", || row(room) != before);
    room.run(then);
    network.cut();
    network.mend();
}

/// The row of the only key; empty if there is none.
fn row(room: &Room) -> String {
    room.ask("SELECT coalesce(max(k::text), '') FROM SCHEMA.key k")
}

fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().spawn(work).unwrap()
}

/// The second checkpoint was answered with `Fenced`, though the claim was this node's all the time.
#[test]
fn a_checkpoint_is_stored_though_the_one_before_has_not_arrived() {
    let room = Room::new();
    let network = Proxy::to(Server::shared().port);
    let store = behind(&network, &room, Duration::from_millis(300));
    let asked = operation("checkpoints").durable();
    let mut permit = execute(&store, &asked);
    network.stall();
    let lost = permit.checkpoint("first").wait();
    assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
    network.cut();
    network.mend();
    permit.checkpoint("second").wait().unwrap();
    drop(permit);
    let Outcome::Interrupted(attempt) = room.open("other").begin(&asked).wait().unwrap() else {
        panic!("the run was interrupted");
    };
    assert_eq!(attempt.checkpoints(), ["first", "second"]);
}

/// The run was begun anew, as the first attempt and without its checkpoints: a claim's nonce that
/// was found in the row was taken for that of a new claim.
#[test]
fn an_interrupted_run_is_interrupted_though_the_answer_that_took_it_is_lost() {
    let room = Room::new();
    let asked = operation("interrupted").durable();
    let mut permit = execute(&room.open("first"), &asked);
    permit.checkpoint("far").wait().unwrap();
    drop(permit);
    until("the run is given up", || room.ask("SELECT bool_and(state = 2) FROM SCHEMA.key"));
    let network = Proxy::to(Server::shared().port);
    let store = behind(&network, &room, LONG);
    let locker = lock(&room);
    let asking = thread(move || store.begin(&asked).wait());
    lose_its_answer(&room, &network, &locker);
    match asking.join().unwrap().unwrap() {
        Outcome::Interrupted(attempt) => assert_eq!(attempt.checkpoints(), ["far"]),
        other => panic!("it was interrupted: {other:?}"),
    }
}

/// The statement that takes a run does nothing for a node whose lease is over, though it has taken the
/// run before. The run began anew, or its row was deleted with the claim.
#[test]
fn an_interrupted_run_stays_one_though_the_lease_ends_before_the_answer_is_known() {
    let room = Room::new();
    let asked = operation("lapsed").durable();
    let mut permit = execute(&room.open("first"), &asked);
    permit.checkpoint("far").wait().unwrap();
    drop(permit);
    until("the run is given up", || room.ask("SELECT bool_and(state = 2) FROM SCHEMA.key"));
    let network = Proxy::to(Server::shared().port);
    let builder = room.builder().node("behind").patience(LONG).lease(3 * LONG);
    let store = runtime().block_on(builder.connect(&address(network.port))).unwrap();
    let locker = lock(&room);
    let asking = thread(move || store.begin(&asked).wait());
    let lapse = "UPDATE SCHEMA.session SET lease_until = clock_timestamp() WHERE node = 'behind'";
    lose_its_answer_and(&room, &network, &locker, lapse);
    match asking.join().unwrap().unwrap() {
        Outcome::Interrupted(attempt) => assert_eq!(attempt.checkpoints(), ["far"]),
        other => panic!("it was interrupted: {other:?}"),
    }
}

/// The release was acknowledged, and the run stayed interrupted.
#[test]
fn a_release_that_comes_too_late_is_fenced_though_it_is_repeated() {
    let room = Room::new();
    let asked = operation("released").durable();
    let network = Proxy::to(Server::shared().port);
    let store = behind(&network, &room, LONG);
    let permit = execute(&store, &asked);
    network.cut();
    room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'behind'");
    let other = room.open("other");
    let Outcome::Interrupted(attempt) = other.begin(&asked).wait().unwrap() else {
        panic!("its node is dead");
    };
    // Long enough for a first try.
    let release = permit.release().wait_timeout(Duration::from_millis(500)).unwrap_err();
    network.mend();
    let released = release.wait();
    assert!(matches!(released, Err(Error::Fenced)), "{released:?}");
    drop(attempt);
}

/// The key stayed claimed, by nobody, for as long as the node lived: the claim was undone first, and
/// took effect then.
#[test]
fn a_claim_that_was_given_up_is_undone_though_it_takes_effect_late() {
    let room = Room::new();
    let patience = Duration::from_millis(300);
    let builder = room.builder().patience(patience);
    let store = runtime().block_on(builder.connect(&Server::shared().address())).unwrap();
    let asked = operation("late").ttl(Duration::from_millis(1));
    execute(&store, &asked).complete(&response("old")).wait().unwrap();
    until("the record expires", || {
        room.ask("SELECT bool_and(expires_at < clock_timestamp()) FROM SCHEMA.key")
    });
    let locker = lock(&room);
    let late = store.begin(&asked).wait();
    assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
    let before = row(&room);
    runtime().block_on(locker.batch_execute("COMMIT")).unwrap();
    until("the claim takes effect", || row(&room) != before);
    execute(&room.open("other"), &asked).release().wait().unwrap();
}

/// Its body was gone, and requests for its key failed until the end of its TTL.
#[test]
fn a_record_that_could_not_be_forgotten_is_replayed() {
    let room = Room::new();
    let store = room.open("this");
    let asked = operation("kept");
    execute(&store, &asked).complete(&response("kept")).wait().unwrap();
    room.run(
        "CREATE FUNCTION SCHEMA.refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE 'not now'; END $$; \
         CREATE TRIGGER refuse BEFORE DELETE ON SCHEMA.key \
         FOR EACH ROW EXECUTE FUNCTION SCHEMA.refuse()",
    );
    store.forget(asked.scope(), asked.key()).wait().unwrap_err();
    assert_eq!(replayed(&room.open("other"), &asked), "kept");
    room.run("DROP TRIGGER refuse ON SCHEMA.key");
    store.forget(asked.scope(), asked.key()).wait().unwrap();
    execute(&store, &asked).release().wait().unwrap();
}

/// It waited for ever.
#[test]
fn a_request_that_finds_its_key_elsewhere_after_the_close_is_answered() {
    let room = Room::new();
    let network = Proxy::to(Server::shared().port);
    let store = behind(&network, &room, LONG);
    let other = room.open("other");
    let (first, second) = (operation("first"), operation("second"));
    let (held, _held) = (execute(&other, &first), execute(&other, &second));
    // Once one request has waited, the keys of all are looked at by one task.
    let waiting = store.begin(&first);
    until("somebody waits", || room.ask("SELECT count(*) > 0 FROM SCHEMA.key WHERE waited"));
    held.complete(&response("first")).wait().unwrap();
    assert!(matches!(waiting.wait().unwrap(), Outcome::Replay(_)));

    network.stall_answers();
    let asking = store.begin(&second);
    store.close(Duration::ZERO).wait().unwrap();
    network.mend();
    let answer = asking.wait_timeout(LONG);
    assert!(answer.is_err(), "{answer:?}");
}

/// It waited for as long as the network was silent.
#[test]
fn a_request_fails_in_time_though_the_network_is_silent() {
    let room = Room::new();
    let network = Proxy::to(Server::shared().port);
    let store = behind(&network, &room, Duration::from_millis(300));
    let asked = operation("silent");
    execute(&store, &asked).release().wait().unwrap();
    network.stall();
    let (reply, answer) = std::sync::mpsc::channel();
    let asking = thread({
        let (store, asked) = (store.clone(), asked.clone());
        move || reply.send(store.begin(&asked).wait()).unwrap()
    });
    let failed = answer.recv_timeout(LONG).expect("the request ends");
    assert!(matches!(failed, Err(Error::Unavailable { .. })), "{failed:?}");
    asking.join().unwrap();
    network.mend();
    execute(&store, &asked).release().wait().unwrap();
}

/// One of the two was told that the key has no record.
#[test]
fn all_who_read_a_key_at_once_find_its_record() {
    /// More than have connections of their own, so that reads share a statement.
    const READERS: usize = 100;
    let room = Room::new();
    let store = room.open("this");
    let asked = operation("read");
    execute(&store, &asked).complete(&response("done")).wait().unwrap();
    let reads: Vec<_> = (0..READERS).map(|_| store.get(asked.scope(), asked.key())).collect();
    for read in reads {
        assert!(read.wait().unwrap().is_some());
    }
}
