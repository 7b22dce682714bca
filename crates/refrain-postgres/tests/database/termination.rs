//! Backends that are terminated, by an operator or by a server that shuts down.

use crate::kit::server::Server as Database;
use crate::load::{Load, assert_exact};
use crate::server::Home;

/// The number of times that half of the backends are terminated, and the calls between two of them.
const ROUNDS: usize = 60;
const CALLS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn terminated_backends_cost_no_effect_and_no_record() {
    let database = Database::shared();
    let home = Home::over(format!("{}&application_name=terminated", database.address()));
    let servers = [home.node(&[]), home.node(&[]), home.node(&[])];
    let mut load = Load::on(&servers, 64);
    for _ in 0..ROUNDS {
        load.until_placed(CALLS).await;
        database.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'terminated' AND random() < 0.5",
        );
    }
    let placed = load.stop().await;
    assert_exact(&home, database.port, &servers, &placed).await;
}
