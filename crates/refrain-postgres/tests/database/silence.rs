//! A database that says nothing: its host has lost its power, or the network drops what is sent.

use crate::client::CALL;
use crate::kit::proxy::Proxy;
use crate::kit::server::Server as Database;
use crate::load::{Load, assert_exact, assert_unavailable};
use crate::server::Home;

/// No server loses its keys to the other.
const PATIENT: [&str; 2] = ["--lease", "5m"];

/// Connections that nothing more came of kept their requests waiting for ever, and no other was
/// opened in their place.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_says_nothing_is_given_up_on_and_found_again() {
    let database = Database::shared();
    let home = Home::over(database.address());
    let network = Proxy::to(database.port);
    let servers = [home.node_behind(&network, &PATIENT), home.node(&PATIENT)];
    let mut load = Load::on(&servers, 32);
    load.until_placed(200).await;
    network.fall_silent();
    assert_unavailable(&servers[0].place("during", CALL).await);
    network.mend();
    load.until_placed(200).await;
    // Of those, half would do if they were the other server's.
    while servers[0].place("after", CALL).await.status != 201 {}
    let placed = load.stop().await;
    assert_exact(&home, database.port, &servers, &placed).await;
}
