//! A claim that another node has taken over.

use refrain::Error;

use crate::driver::{DRIVERS, End};
use crate::kit::room::{body, client, execute, operation, replayed, response};
use crate::{balance, bank, commit, complete_in, paid, pay, roll_back};

#[test]
fn p17_a_node_that_lost_its_claim_is_fenced_inside_its_transaction() {
    for driver in DRIVERS {
        let room = bank();
        let (store, other) = (room.open("this"), room.open("other"));
        let mut permit = execute(&store, &operation("lost"));
        room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'this'");
        execute(&other, &operation("lost")).complete(&response("theirs")).wait().unwrap();

        driver.transfer(&room, &mut permit, &response("ours"), |told| {
            assert!(matches!(told, Err(Error::Fenced)), "{driver:?}: {told:?}");
            End::RollBack
        });
        assert!(matches!(permit.complete(&response("ours")).wait(), Err(Error::Fenced)));
        assert_eq!(balance(&room, 1), 100);
        assert_eq!(replayed(&store, &operation("lost")), "theirs");
    }
}

#[test]
fn a_dead_session_whose_key_nobody_took_may_still_commit() {
    let room = bank();
    let store = room.open("this");
    let mut permit = execute(&store, &operation("kept"));
    room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'this'");
    paid(&room, &mut permit, &response("ours"));
    let record = permit.complete(&response("ours")).wait().unwrap();
    assert_eq!(body(record.response().unwrap()), "ours");
}

/// Whoever takes over waits for the row, and sees what the transaction has come to.
#[test]
fn p17_a_take_over_and_an_open_transaction_do_not_both_win() {
    let room = bank();
    let (store, other) = (room.open("this"), room.open("other"));
    for is_committed in [true, false] {
        let asked = operation(&format!("raced_{is_committed}"));
        let mut permit = execute(&store, &asked);
        let mut client = client();
        let transaction = pay(&room, &mut client);
        complete_in(&mut permit, &transaction, &response("ours")).unwrap();
        room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'this'");
        let begin = other.begin(&asked);
        let taker = std::thread::Builder::new().spawn(move || begin.wait()).unwrap();
        crate::kit::room::until("the other node waits for the row", || {
            room.ask::<i64>(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE wait_event_type = 'Lock' AND query LIKE '%\"SCHEMA\".key%'",
            ) > 0
        });
        if is_committed {
            commit(transaction);
        } else {
            roll_back(transaction);
        }
        match taker.join().unwrap().unwrap() {
            refrain::Outcome::Replay(record) if is_committed => {
                assert_eq!(body(record.response().unwrap()), "ours");
            }
            refrain::Outcome::Execute(theirs) if !is_committed => {
                let told = permit.complete(&response("ours")).wait();
                assert!(matches!(told, Err(Error::Fenced)), "{told:?}");
                theirs.complete(&response("theirs")).wait().unwrap();
                assert_eq!(replayed(&store, &asked), "theirs");
            }
            other => panic!("not what became of the transaction: {other:?}"),
        }
    }
}

#[test]
fn two_transactions_under_one_key_do_not_both_commit() {
    let room = bank();
    let store = room.open("this");
    for is_committed in [true, false] {
        let asked = operation(&format!("two_{is_committed}"));
        let mut permit = execute(&store, &asked);
        let before = balance(&room, 1);
        let (mut one, mut two) = (client(), client());
        let first = pay(&room, &mut one);
        complete_in(&mut permit, &first, &response("first")).unwrap();
        // Its rows are others, so that only the key is in its way.
        let second = crate::kit::server::runtime().block_on(two.transaction()).unwrap();
        let told = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| complete_in(&mut permit, &second, &response("second")));
            crate::kit::room::until("the second waits for the first", || {
                room.ask::<i64>(
                    "SELECT count(*) FROM pg_stat_activity \
                     WHERE wait_event_type = 'Lock' AND query LIKE '%\"SCHEMA\".key%'",
                ) > 0
            });
            if is_committed {
                commit(first);
            } else {
                roll_back(first);
            }
            waiting.join().unwrap()
        });
        if is_committed {
            assert!(matches!(told, Err(Error::Ended)), "{told:?}");
            roll_back(second);
        } else {
            told.unwrap();
            commit(second);
        }
        let record = permit.complete(&response("verdict")).wait().unwrap();
        let (winner, cost) = if is_committed { ("first", 5) } else { ("second", 0) };
        assert_eq!(body(record.response().unwrap()), winner);
        assert_eq!(balance(&room, 1), before - cost);
    }
}
