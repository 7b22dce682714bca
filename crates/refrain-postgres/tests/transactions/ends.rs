//! What an operation has come to once its transaction has ended.

use http::header::HeaderValue;
use refrain::{Error, Operation, Outcome, Permit, Record, Result};
use refrain_postgres::TransactionError;

use crate::driver::{DRIVERS, End};
use crate::kit::room::{body, client, execute, operation, replayed, response, until};
use crate::{balance, bank, cause, commit, complete_in, paid, pay, roll_back, unpaid};

#[test]
fn a_committed_record_is_there_beside_the_callers_rows() {
    for driver in DRIVERS {
        let room = bank();
        let store = room.open("this");
        let mut permit = execute(&store, &operation("paid"));
        driver.transfer(&room, &mut permit, &response("paid"), |told| {
            told.unwrap();
            assert_eq!((balance(&room, 1), bodies(&room)), (100, 0));
            End::Commit
        });
        assert_eq!((balance(&room, 1), bodies(&room)), (95, 1), "{driver:?}");
        // Another node needs nobody's verdict.
        assert_eq!(replayed(&room.open("other"), &operation("paid")), "paid");
        let record = permit.complete(&response("paid")).wait().unwrap();
        assert_eq!(record.response().unwrap().headers()["x-kind"], "transfer");
        assert_eq!(replayed(&store, &operation("paid")), "paid");
    }
}

#[test]
fn a_rollback_leaves_the_key_and_the_rows_as_they_were() {
    let room = bank();
    let store = room.open("this");
    for (driver, asked) in DRIVERS.iter().flat_map(|driver| {
        [(driver, operation("volatile")), (driver, operation("durable").durable())]
    }) {
        let mut permit = execute(&store, &asked);
        let row = "SELECT string_agg(k::text, ' ') FROM SCHEMA.key k";
        let before: String = room.ask(row);
        driver.transfer(&room, &mut permit, &response("unpaid"), |told| {
            told.unwrap();
            End::RollBack
        });
        assert_eq!(room.ask::<String>(row), before, "{driver:?}");
        assert_eq!((balance(&room, 1), bodies(&room)), (100, 0));
        permit.release().wait().unwrap();
        execute(&store, &asked).release().wait().unwrap();
    }
}

#[test]
fn every_verdict_after_a_commit_finds_the_record() {
    let room = bank();
    let store = room.open("this");
    type Verdict = fn(Permit);
    let verdicts: [(&str, Verdict); 7] = [
        ("complete", |permit| completed(permit.complete(&response("first")).wait())),
        ("other", |permit| completed(permit.complete(&response("other")).wait())),
        ("without", |permit| completed(permit.complete_without_response().wait())),
        ("release", |permit| permit.release().wait().unwrap()),
        ("interrupt", |permit| permit.interrupt().wait().unwrap()),
        ("drop", drop),
        ("unread", |permit| drop(permit.complete(&response("first")))),
    ];
    for (name, verdict) in verdicts {
        for asked in [operation(name), operation(&format!("{name}_durable")).durable()] {
            let mut permit = execute(&store, &asked);
            paid(&room, &mut permit, &response("first"));
            verdict(permit);
            assert_eq!(replayed(&store, &asked), "first", "after {name}");
        }
    }
    assert_eq!(balance(&room, 1), 100 - 14 * 5);
}

fn completed(record: Result<Record>) {
    assert_eq!(body(record.unwrap().response().unwrap()), "first");
}

/// The key was freed in the database and stayed in flight in the process, whose requests were told
/// to come again for ever.
#[test]
fn success_after_a_rollback_is_an_error_and_frees_the_key() {
    let room = bank();
    let store = room.open("this");
    type Success = fn(Permit) -> Result<Record>;
    let successes: [(&str, Success); 2] = [
        ("complete", |permit| permit.complete(&response("unpaid")).wait()),
        ("without", |permit| permit.complete_without_response().wait()),
    ];
    for (name, succeed) in successes {
        for asked in [operation(name), operation(&format!("{name}_durable")).durable()] {
            let mut permit = execute(&store, &asked);
            unpaid(&room, &mut permit, &response("unpaid"));
            let error = succeed(permit).unwrap_err();
            assert!(matches!(cause(&error), TransactionError::RolledBack), "{error:?}");
            freed(&store, &asked).release().wait().unwrap();
        }
    }
}

#[test]
fn a_refusal_after_a_rollback_is_recorded() {
    let room = bank();
    let store = room.open("this");
    let asked = operation("refused");
    let mut permit = execute(&store, &asked);
    unpaid(&room, &mut permit, &response("unpaid"));
    let mut refusal = response("no money");
    *refusal.status_mut() = http::StatusCode::PAYMENT_REQUIRED;
    permit.complete(&refusal).wait().unwrap();
    assert_eq!(replayed(&store, &asked), "no money");
}

#[test]
fn a_run_given_up_after_a_rollback_is_given_up_as_any_other() {
    let room = bank();
    let store = room.open("this");
    let mut permit = execute(&store, &operation("volatile"));
    unpaid(&room, &mut permit, &response("unpaid"));
    drop(permit);
    freed(&store, &operation("volatile")).release().wait().unwrap();

    let asked = operation("durable").durable();
    let mut permit = execute(&store, &asked);
    unpaid(&room, &mut permit, &response("unpaid"));
    permit.interrupt().wait().unwrap();
    assert!(matches!(store.begin(&asked).wait().unwrap(), Outcome::Interrupted(_)));
}

#[test]
fn a_transaction_may_be_tried_again_under_one_permit() {
    let room = bank();
    let store = room.open("this");
    let mut permit = execute(&store, &operation("again"));
    unpaid(&room, &mut permit, &response("first"));
    paid(&room, &mut permit, &response("second"));
    let record = permit.complete(&response("first")).wait().unwrap();
    assert_eq!(body(record.response().unwrap()), "second");
    assert_eq!(balance(&room, 1), 95);
}

/// The caller was given the second response, and everybody after it the first.
#[test]
fn a_second_transaction_is_told_that_the_first_has_committed() {
    let room = bank();
    let store = room.open("this");
    let mut permit = execute(&store, &operation("twice"));
    paid(&room, &mut permit, &response("first"));
    let mut client = client();
    let transaction = pay(&room, &mut client);
    let told = complete_in(&mut permit, &transaction, &response("second"));
    assert!(matches!(told, Err(Error::Ended)), "{told:?}");
    roll_back(transaction);
    let record = permit.complete(&response("second")).wait().unwrap();
    assert_eq!(body(record.response().unwrap()), "first");
    assert_eq!(balance(&room, 1), 95);
}

/// The record was committed in a form that no version reads, so the key was lost for its TTL.
#[test]
fn a_response_over_the_limits_is_recorded_as_done_without_it() {
    let room = bank();
    let store = room.open("this");
    let mut crowded = response("crowded");
    for _ in 0..Record::MAX_HEADERS {
        crowded.headers_mut().append("x-more", HeaderValue::from_static("1"));
    }
    let mut heavy = response("heavy");
    let weight = "h".repeat(Record::MAX_HEADER_BYTES);
    heavy.headers_mut().insert("x-weight", weight.parse().unwrap());
    let long = response(&"l".repeat(64 * 1024 + 1));
    for (name, over) in [("crowded", crowded), ("heavy", heavy), ("long", long)] {
        let asked = operation(name);
        let mut permit = execute(&store, &asked);
        paid(&room, &mut permit, &over);
        assert!(permit.complete(&over).wait().unwrap().response().is_none());
        let Outcome::Replay(record) = store.begin(&asked).wait().unwrap() else {
            panic!("{name} was not recorded");
        };
        assert!(record.response().is_none());
    }
}

/// A record's table is that of the slot of time in which it expires, which a node guesses. At the
/// edge of a slot it guessed wrong, and the caller was told that another node had the key.
#[test]
fn a_slot_that_ends_meanwhile_fences_nobody() {
    let room = bank();
    // With nobody to sweep: the ring is too short for slots of this width.
    room.run(
        "UPDATE SCHEMA.meta SET slot_ms = 20; \
         INSERT INTO SCHEMA.duty VALUES ('sweep', statement_timestamp() + interval '1 hour')",
    );
    let store = room.open("this");
    let mut client = client();
    for n in 0..200 {
        let mut permit = execute(&store, &operation(&format!("n{n}")));
        let transaction = pay(&room, &mut client);
        complete_in(&mut permit, &transaction, &response("paid")).unwrap();
        commit(transaction);
        permit.complete(&response("paid")).wait().unwrap();
    }
}

#[test]
fn those_who_wait_have_the_answer_after_the_verdict() {
    let room = bank();
    let (store, other) = (room.open("this"), room.open("other"));
    let mut permit = execute(&store, &operation("waited"));
    let (near, far) = (store.begin(&operation("waited")), other.begin(&operation("waited")));
    let watch =
        |begin: refrain::Begin| std::thread::Builder::new().spawn(move || begin.wait()).unwrap();
    let waiting = [watch(near), watch(far)];
    paid(&room, &mut permit, &response("paid"));
    permit.complete(&response("paid")).wait().unwrap();
    for waiter in waiting {
        let Outcome::Replay(record) = waiter.join().unwrap().unwrap() else {
            panic!("not replayed");
        };
        assert_eq!(body(record.response().unwrap()), "paid");
    }
}

/// The permit of an operation that was given up, once its key is free.
fn freed(store: &refrain::Store, asked: &Operation) -> Permit {
    let mut freed = None;
    until("the key is free", || {
        freed = match store.begin(asked).wait_timeout(std::time::Duration::ZERO).unwrap() {
            Outcome::Execute(permit) => Some(permit),
            Outcome::InFlight { .. } => None,
            Outcome::Interrupted(attempt) => Some(attempt.retry().wait().unwrap()),
            other => panic!("neither free nor in flight: {other:?}"),
        };
        freed.is_some()
    });
    freed.unwrap()
}

fn bodies(room: &crate::Room) -> i64 {
    let counts: Vec<String> =
        (0..12).map(|slot| format!("(SELECT count(*) FROM SCHEMA.body_{slot:02})")).collect();
    room.ask(&format!("SELECT {}", counts.join(" + ")))
}
