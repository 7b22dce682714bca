//! Through pgbouncer in transaction mode, where it is installed.

use crate::kit::bouncer::{Bouncer, POOL};
use crate::kit::room::{DAY, Room, until};
use crate::kit::server::{address, runtime};

#[test]
fn a_table_that_has_grown_is_read_by_its_index_through_pgbouncer() {
    for is_analyzed in [true, false] {
        let room = Room::with_ttl(DAY);
        let Some(bouncer) = Bouncer::start(&crate::role(&room)) else { return };
        let builder = room.builder().pooler(true).patience(std::time::Duration::from_secs(10));
        let store = runtime().block_on(builder.connect(&address(bouncer.port))).unwrap();
        crate::holds_when_grown(&room, &store, is_analyzed);
    }
}

#[test]
fn a_store_is_set_up_and_completes_in_transactions_through_pgbouncer() {
    use refrain_postgres::CompleteIn;

    let Some(bouncer) = Bouncer::start("refrain") else { return };
    let room = Room::empty(DAY);
    let through = address(bouncer.port);
    let builder = room.builder().pooler(true);
    runtime().block_on(builder.clone().migrate(&through)).unwrap();
    let store = runtime().block_on(builder.connect(&through)).unwrap();
    let asked = crate::operation("pooled");
    let mut permit = crate::execute(&store, &asked);
    let mut client = runtime().block_on(crate::kit::server::connect(bouncer.port)).unwrap();
    runtime().block_on(async {
        let transaction = client.transaction().await.unwrap();
        permit.complete_in(&transaction, &crate::response("pooled")).await.unwrap();
        transaction.commit().await.unwrap();
    });
    permit.release().wait().unwrap();
    assert_eq!(crate::kit::room::replayed(&store, &asked), "pooled");
}

/// The planner's settings stayed on the pooler's connections, and with them every other client's
/// plans. A channel that a store listened to stayed as well.
#[test]
fn a_store_leaves_no_settings_on_the_poolers_connections() {
    let Some(bouncer) = Bouncer::start("refrain") else { return };
    let room = Room::with_ttl(DAY);
    let builder = room.builder().pooler(true);
    let store = runtime().block_on(builder.connect(&address(bouncer.port))).unwrap();
    crate::work(&store, "pooled");
    let asked = crate::operation("waited");
    let elsewhere = room.open("elsewhere");
    let permit = crate::execute(&elsewhere, &asked);
    let begin = store.begin(&asked);
    let waiter = std::thread::Builder::new().spawn(move || begin.wait()).unwrap();
    until("the key is marked", || room.ask("SELECT bool_or(waited) FROM SCHEMA.key"));
    permit.complete(&crate::response("waited")).wait().unwrap();
    assert!(matches!(waiter.join().unwrap().unwrap(), refrain::Outcome::Replay(_)));
    // All of the pooler's connections, each taken by a transaction.
    let others: Vec<_> = (0..POOL)
        .map(|_| {
            runtime().block_on(async {
                let other = crate::kit::server::connect(bouncer.port).await.unwrap();
                other.batch_execute("BEGIN").await.unwrap();
                let row = other.query_typed("SHOW enable_seqscan", &[]).await.unwrap();
                assert_eq!(row[0].get::<_, String>(0), "on");
                let channels = "SELECT pg_listening_channels()";
                assert!(other.query_typed(channels, &[]).await.unwrap().is_empty());
                other
            })
        })
        .collect();
    drop(others);
}
