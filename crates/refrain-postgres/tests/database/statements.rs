//! A connection that breaks at each statement of each thing that a store does. Whatever became of
//! the statement, the store says what it says without the break: the operation is the same attempt,
//! and runs once.

use std::collections::BTreeSet;
use std::time::Duration;

use refrain::{Attempt, Error, Operation, Outcome, Permit, Store};
use refrain_postgres::CompleteIn as _;

use crate::kit::room::{
    Room, address, body, client, execute, operation, replayed, response, scope, until,
};
use crate::kit::server::{Server as Database, address as address_of, runtime};
use crate::wire::{Break, Wire};

const LEASE: Duration = Duration::from_secs(3);
/// Far more than a break costs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Repetitions of one statement in one act, at each of which the connection breaks in turn.
const TIMES: usize = 2;
/// Operations at once: more than have a connection each.
const CROWD: usize = 48;
/// The tries of an act whose statements are not always the same.
const TRIES: usize = 8;

/// A store behind a network that breaks, and another store beside it.
struct Stage {
    room: Room,
    wire: Wire,
    node: Store,
    other: Store,
}

impl Stage {
    fn new() -> Self {
        let room = Room::new();
        let wire = Wire::to(Database::shared().port, &room.schema);
        let builder = room.builder().lease(LEASE).patience(PATIENCE);
        let open = |node: &str, address: &str| {
            runtime().block_on(builder.clone().node(node).connect(address)).unwrap()
        };
        let node = open("this", &address_of(wire.port));
        let other = open("other", &address());
        Self { room, wire, node, other }
    }

    /// Gives an operation that a node runs to another node, whose lease is over.
    fn orphan(&self, operation: &Operation) {
        let request_id = operation.given_request_id().unwrap().as_str();
        self.room.run(&format!(
            "WITH gone AS (INSERT INTO SCHEMA.session (id, node, lease_until) \
             VALUES ((SELECT -count(*) FROM SCHEMA.session), 'gone', now() - interval '1 hour') RETURNING id) \
             UPDATE SCHEMA.key SET session = gone.id FROM gone WHERE request_id = '{request_id}'"
        ));
    }

    fn expire(&self, operation: &Operation) {
        let request_id = operation.given_request_id().unwrap().as_str();
        self.room.run(&format!(
            "UPDATE SCHEMA.key SET expires_at = now() - interval '1 hour', sweep = 0 \
             WHERE request_id = '{request_id}'"
        ));
    }

    fn until_waited(&self, operation: &Operation) {
        let request_id = operation.given_request_id().unwrap().as_str();
        let is_waited = format!("SELECT waited FROM SCHEMA.key WHERE request_id = '{request_id}'");
        until("somebody waits", || self.room.ask(&is_waited));
    }
}

/// Something that a store does, with operations of this name.
type Act = fn(&Stage, &str);

const ACTS: &[(&str, Act)] = &[
    ("complete", complete),
    ("complete_many", complete_many),
    ("release", release),
    ("checkpoint", checkpoint),
    ("interrupt", interrupt),
    ("drop_durable", drop_durable),
    ("take_over", take_over),
    ("judge", judge),
    ("claim_expired", claim_expired),
    ("wait", wait_for_another),
    ("be_waited_for", be_waited_for),
    ("complete_in", complete_in),
    ("forget", forget),
    ("sweep", sweep),
    ("renew", renew),
    ("open_a_new_session", open_a_new_session),
];

fn complete(stage: &Stage, name: &str) {
    let asked = operation(name);
    record(execute(&stage.node, &asked), name);
    assert_eq!(replayed(&stage.other, &asked), name);
    assert_eq!(replayed(&stage.node, &asked), name);
    let found = stage.node.get(scope(), asked.key()).wait().unwrap().unwrap();
    assert_eq!(body(found.response().unwrap()), name);
}

/// Claims, claims beside completions, and completions alone.
fn complete_many(stage: &Stage, name: &str) {
    let names = |part: &str| (0..CROWD).map(|n| format!("{name}-{part}-{n}")).collect::<Vec<_>>();
    let (first, second) = (names("first"), names("second"));
    let begin = |names: &[String]| -> Vec<_> {
        names.iter().map(|name| stage.node.begin(&operation(name))).collect()
    };
    let permits = |begun: Vec<refrain::Begin>| -> Vec<Permit> {
        begun.into_iter().map(|begin| permit(begin.wait().unwrap())).collect()
    };
    let complete = |permits: Vec<Permit>, names: &[String]| -> Vec<_> {
        permits.into_iter().zip(names).map(|(it, name)| it.complete(&response(name))).collect()
    };
    let firsts = permits(begin(&first));
    let recorded = complete(firsts, &first);
    let seconds = permits(begin(&second));
    recorded.into_iter().for_each(|record| drop(record.wait().unwrap()));
    for record in complete(seconds, &second) {
        record.wait().unwrap();
    }
    for name in first.iter().chain(&second) {
        assert_eq!(replayed(&stage.other, &operation(name)), *name);
    }
}

fn release(stage: &Stage, name: &str) {
    let asked = operation(name);
    execute(&stage.node, &asked).release().wait().unwrap();
    record(execute(&stage.other, &asked), name);
    assert_eq!(replayed(&stage.node, &asked), name);
}

fn checkpoint(stage: &Stage, name: &str) {
    let asked = operation(name).durable();
    let mut permit = execute(&stage.node, &asked);
    permit.checkpoint("one").wait().unwrap();
    permit.checkpoint("two").wait().unwrap();
    drop(permit);
    let attempt = interrupted(&stage.other, &asked);
    assert_eq!(attempt.checkpoints(), ["one", "two"]);
    attempt.complete(&response(name)).wait().unwrap();
    assert_eq!(replayed(&stage.node, &asked), name);
}

fn interrupt(stage: &Stage, name: &str) {
    let asked = operation(name).durable();
    let mut permit = execute(&stage.node, &asked);
    permit.checkpoint("one").wait().unwrap();
    permit.interrupt().wait().unwrap();
    let listed = stage.node.interrupted(None, 1000).wait().unwrap();
    let listed = listed.iter().find(|past| past.key == *asked.key()).unwrap();
    assert_eq!((listed.attempt, &listed.checkpoints[..]), (1, &["one".into()][..]));
    let attempt = interrupted(&stage.node, &asked);
    assert_eq!((attempt.number(), attempt.checkpoints()), (1, &["one".into()][..]));
    let permit = attempt.retry().wait().unwrap();
    assert_eq!((permit.attempt(), permit.checkpoints()), (2, &["one".into()][..]));
    record(permit, name);
    assert_eq!(replayed(&stage.other, &asked), name);
}

fn drop_durable(stage: &Stage, name: &str) {
    let asked = operation(name).durable();
    drop(execute(&stage.node, &asked));
    interrupted(&stage.node, &asked).release().wait().unwrap();
    record(execute(&stage.other, &asked), name);
    assert_eq!(replayed(&stage.node, &asked), name);
}

fn take_over(stage: &Stage, name: &str) {
    let asked = operation(name);
    let stale = execute(&stage.other, &asked);
    stage.orphan(&asked);
    record(execute(&stage.node, &asked), name);
    let late = stale.complete(&response("late")).wait();
    assert!(matches!(late, Err(Error::Fenced)), "{late:?}");
    assert_eq!(replayed(&stage.other, &asked), name);
}

fn judge(stage: &Stage, name: &str) {
    let asked = operation(name).durable();
    let stale = execute(&stage.other, &asked);
    stage.orphan(&asked);
    let attempt = interrupted(&stage.node, &asked);
    assert_eq!(attempt.number(), 1);
    attempt.complete(&response(name)).wait().unwrap();
    let late = stale.complete(&response("late")).wait();
    assert!(matches!(late, Err(Error::Fenced)), "{late:?}");
    assert_eq!(replayed(&stage.other, &asked), name);
}

fn claim_expired(stage: &Stage, name: &str) {
    let asked = operation(name);
    record(execute(&stage.node, &asked), "expired");
    stage.expire(&asked);
    // Another name for the record, which is in the memory of neither store.
    record(execute(&stage.node, &asked), name);
    assert_eq!(replayed(&stage.other, &asked), name);
}

fn wait_for_another(stage: &Stage, name: &str) {
    run_and_wait(stage, name, (&stage.other, &stage.node));
}

fn be_waited_for(stage: &Stage, name: &str) {
    run_and_wait(stage, name, (&stage.node, &stage.other));
}

/// One store runs the operation, and the other one waits for its record.
fn run_and_wait(stage: &Stage, name: &str, (runs, waits): (&Store, &Store)) {
    let asked = operation(name);
    let running = execute(runs, &asked);
    let begun = waits.begin(&asked);
    let waiting = std::thread::scope(|threads| {
        let waiting = threads.spawn(|| begun.wait().unwrap());
        stage.until_waited(&asked);
        record(running, name);
        waiting.join().unwrap()
    });
    let Outcome::Replay(replay) = waiting else { panic!("not replayed: {waiting:?}") };
    assert_eq!(body(replay.response().unwrap()), name);
}

fn complete_in(stage: &Stage, name: &str) {
    let asked = operation(name);
    let mut permit = execute(&stage.node, &asked);
    let mut client = client();
    runtime().block_on(async {
        let transaction = client.transaction().await.unwrap();
        permit.complete_in(&transaction, &response(name)).await.unwrap();
        transaction.commit().await.unwrap();
    });
    record(permit, "the transaction's is what counts");
    assert_eq!(replayed(&stage.other, &asked), name);
}

fn forget(stage: &Stage, name: &str) {
    let asked = operation(name);
    record(execute(&stage.node, &asked), "forgotten");
    stage.node.forget(scope(), asked.key()).wait().unwrap();
    record(execute(&stage.node, &asked), name);
    assert_eq!(replayed(&stage.other, &asked), name);
}

fn sweep(stage: &Stage, name: &str) {
    let asked = operation(name);
    record(execute(&stage.other, &asked), name);
    stage.expire(&asked);
    // The table of the slot before the one that is passing.
    let passed: i32 = stage.room.ask(
        "SELECT (((extract(epoch FROM now()) * 1000)::int8 / slot_ms + 11) % 12)::int4 \
         FROM SCHEMA.meta",
    );
    stage.room.run(&format!(
        "INSERT INTO SCHEMA.body_{passed:02} \
         VALUES (gen_random_uuid(), gen_random_uuid(), '', '', '')"
    ));
    // The sweeper comes again in any case, so it may fail once.
    if let Err(error) = stage.node.reap() {
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        stage.node.reap().unwrap();
    }
    let request_id = asked.given_request_id().unwrap().as_str();
    let is_swept = format!(
        "SELECT NOT EXISTS (SELECT 1 FROM SCHEMA.key WHERE request_id = '{request_id}') \
         AND NOT EXISTS (SELECT 1 FROM SCHEMA.body_{passed:02})"
    );
    if !stage.room.ask::<bool>(&is_swept) {
        // A table that could not be truncated is left to the next round.
        stage.node.reap().unwrap();
    }
    assert!(stage.room.ask::<bool>(&is_swept));
    record(execute(&stage.node, &asked), name);
}

fn renew(stage: &Stage, _name: &str) {
    let lease = "SELECT max(lease_until)::text FROM SCHEMA.session WHERE node = 'this'";
    let before: String = stage.room.ask(lease);
    until("the lease is renewed", || stage.room.ask::<String>(lease) != before);
}

fn open_a_new_session(stage: &Stage, name: &str) {
    stage.room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'this'");
    complete(stage, name);
}

fn permit(outcome: Outcome) -> Permit {
    match outcome {
        Outcome::Execute(permit) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

fn interrupted(store: &Store, operation: &Operation) -> Attempt {
    match store.begin(operation).wait_timeout(PATIENCE).unwrap() {
        Outcome::Interrupted(attempt) => attempt,
        other => panic!("not interrupted: {other:?}"),
    }
}

fn record(permit: Permit, text: &str) {
    permit.complete(&response(text)).wait().unwrap();
}

/// Performs each act without a break, and then with one at each statement that it was seen to say.
fn break_everywhere(kind: Break) {
    let stage = Stage::new();
    let mut broken = BTreeSet::new();
    for (name, act) in ACTS {
        stage.wire.take_said();
        act(&stage, &format!("{name}-whole"));
        for (number, (text, times)) in stage.wire.take_said().into_iter().enumerate() {
            let of_a_new_connection = ["SET", "LISTEN", "SELECT pid"];
            let is_greeting = of_a_new_connection.iter().any(|start| text.starts_with(start));
            for spared in 0..times.min(TIMES) {
                for again in 0..TRIES {
                    if is_greeting {
                        stage.wire.hang_up();
                    }
                    stage.wire.arm(&text, spared, kind);
                    act(&stage, &format!("{name}-{number}-{spared}-{again}"));
                    if !stage.wire.disarm() {
                        broken.insert(text.clone());
                        break;
                    }
                }
            }
        }
    }
    // What is said in the background may be heard in one act, and not in its repetition. The kinds
    // that there are at least, by a word from each:
    for word in ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "unnest", "checkpoints", "lease_until"] {
        assert!(broken.iter().any(|text| text.contains(word)), "{word}: {broken:#?}");
    }
}

#[test]
fn a_statement_that_does_not_arrive_is_repeated() {
    break_everywhere(Break::Before);
}

#[test]
fn a_statement_whose_answer_is_lost_is_the_same_statement_when_repeated() {
    break_everywhere(Break::After);
}

#[test]
fn a_statement_whose_backend_is_terminated_is_repeated() {
    break_everywhere(Break::Terminated);
}
