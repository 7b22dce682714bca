//! The session of a node: what is claimed under it, once it is over.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
use refrain_postgres::Postgres;

use crate::kit::server::{Server as Database, connect};
use crate::server::Home;

/// Longer than the test, so that no renewal comes to help.
const LEASE: Duration = Duration::from_secs(60);

/// Two stores in a schema of their own.
async fn two_nodes(schema: &str) -> [Store; 2] {
    let address = Database::shared().address();
    let builder = Postgres::builder().schema(schema).lease(LEASE);
    builder.clone().migrate(&address).await.unwrap();
    let [first, second] = ["first", "second"].map(|name| builder.clone().node(name));
    [first.connect(&address).await.unwrap(), second.connect(&address).await.unwrap()]
}

fn operation(key: &str) -> Operation {
    let fingerprint = Fingerprint::of(["POST", "/v1/calls"]);
    Operation::new(Scope::from_api_key("sk_live_51"), key.parse().unwrap(), fingerprint)
        .request_id(format!("req_{key}").parse().unwrap())
}

async fn outcome_at_once(store: &Store, operation: &Operation) -> Outcome {
    let mut begin = store.begin(operation);
    begin.give_up();
    begin.await.unwrap()
}

#[tokio::test]
async fn p17_no_key_is_claimed_under_a_session_that_is_over() {
    let over = [
        "UPDATE SCHEMA.session SET dead = true WHERE node = 'first'",
        "UPDATE SCHEMA.session SET lease_until = clock_timestamp() WHERE node = 'first'",
    ];
    for (statement, operation) in
        over.iter().flat_map(|over| [(over, operation("a")), (over, operation("b").durable())])
    {
        let home = Home::new();
        let [first, second] = two_nodes(&home.schema()).await;
        Database::shared().run(&statement.replace("SCHEMA", &home.schema()));
        let Outcome::Execute(permit) = first.begin(&operation).await.unwrap() else {
            panic!("the key is free");
        };
        let elsewhere = outcome_at_once(&second, &operation).await;
        assert!(matches!(elsewhere, Outcome::InFlight { .. }), "{statement}: {elsewhere:?}");
        permit.complete(&Response::new(Bytes::from("done"))).await.unwrap();
    }
}

/// A node whose session was lost in a failover was given the number of another node's, and each took
/// the claims of the other for its own.
#[tokio::test]
async fn a_number_is_not_given_again_after_its_session_is_lost() {
    let home = Home::new();
    let schema = home.schema();
    let database = Database::shared();
    let [_first, _second] = two_nodes(&schema).await;
    // What an older copy of the database knows.
    database.run(&format!("CREATE TABLE {schema}.lost AS SELECT id FROM {schema}.session"));
    database.run(&format!("DELETE FROM {schema}.session"));
    let sequences = format!(
        "SELECT format('ALTER SEQUENCE %s RESTART', oid::regclass) FROM pg_class \
         WHERE relkind = 'S' AND relnamespace = '{schema}'::regnamespace"
    );
    let client = connect(database.port).await.unwrap();
    for row in client.query(&sequences, &[]).await.unwrap() {
        database.run(row.get(0));
    }
    let builder = Postgres::builder().schema(&schema).lease(LEASE);
    let _third = builder.connect(&database.address()).await.unwrap();
    let again = format!("SELECT FROM {schema}.session JOIN {schema}.lost USING (id)");
    assert!(client.query(&again, &[]).await.unwrap().is_empty());
}

/// As where the connection broke during a claim, and the server made it after all.
#[tokio::test]
async fn a_claim_that_its_own_node_has_given_up_keeps_nobody_out() {
    let home = Home::new();
    let [first, second] = two_nodes(&home.schema()).await;
    for operation in [operation("a"), operation("b").durable()] {
        let Outcome::Execute(permit) = first.begin(&operation).await.unwrap() else {
            panic!("the key is free");
        };
        Database::shared().run(
            &"UPDATE SCHEMA.key SET attempt = gen_random_uuid() WHERE state < 2"
                .replace("SCHEMA", &home.schema()),
        );
        assert!(matches!(permit.release().await, Err(refrain::Error::Fenced)));

        let elsewhere = outcome_at_once(&second, &operation).await;
        assert!(matches!(elsewhere, Outcome::InFlight { .. }), "{elsewhere:?}");
        match first.begin(&operation).await.unwrap() {
            Outcome::Execute(permit) => permit.release().await,
            // Whether a durable one ran is for the caller to find out.
            Outcome::Interrupted(attempt) => attempt.release().await,
            other => panic!("the key is this node's: {other:?}"),
        }
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_served_on_the_runtime_that_is_given() {
    let home = Home::new();
    let address = Database::shared().address();
    let builder = Postgres::builder().schema(home.schema());
    builder.clone().migrate(&address).await.unwrap();
    let guest = builder.runtime(tokio::runtime::Handle::current());
    let store = guest.connect(&address).await.unwrap();
    let Outcome::Execute(permit) = store.begin(&operation("a")).await.unwrap() else {
        panic!("the key is free");
    };
    permit.complete(&Response::new(Bytes::from("done"))).await.unwrap();

    // A thread without a runtime waits all the same.
    let (reply, replayed) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .spawn(move || reply.send(store.begin(&operation("a")).wait().unwrap()).unwrap())
        .unwrap();
    let replayed = replayed.await.unwrap();
    assert!(matches!(replayed, Outcome::Replay(_)), "{replayed:?}");
}
