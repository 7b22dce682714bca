//! A database whose postmaster is killed.

use crate::client::CALL;
use crate::kit::server::Server as Database;
use crate::load::{Load, assert_exact, assert_unavailable, place_at_all};
use crate::node::within;
use crate::server::Home;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_database_loses_nothing_and_runs_nothing_twice() {
    let database = Database::start(&["max_connections=200"]);
    let home = Home::over(database.address());
    let servers = [home.node(&[]), home.node(&[]), home.node(&[])];
    let mut load = Load::on(&servers, 32);
    load.until_placed(200).await;
    // Its handler runs until long after the crash.
    let slow = home.node(&["--latency", "10s", "--wait", "1ms"]);
    let client = slow.hold("held", "held-1").await;
    home.until_claimed("held").await;

    database.crash();
    for answer in place_at_all(&servers, "during").await {
        assert_unavailable(&answer);
    }
    database.restart();

    load.until_placed(200).await;
    let held = within(client).await.unwrap().unwrap();
    assert_eq!(held.status, 201);
    assert!(!held.is_replay());
    assert_eq!(servers[0].place("held", CALL).await.body, held.body);
    let placed = load.stop().await;
    assert_exact(&home, database.port, &servers, &placed).await;
}
