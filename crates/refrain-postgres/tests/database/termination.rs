//! Backends that are terminated, by an operator or by a server that shuts down.

use crate::kit::bouncer::Bouncer;
use crate::kit::server::{Server as Database, address};
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
        terminate_half("application_name = 'terminated'");
    }
    let placed = load.stop().await;
    assert_exact(&home, database.port, &servers, &placed).await;
}

fn terminate_half(of: &str) {
    Database::shared().run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of} AND random() < 0.5"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_backends_of_a_pooler_cost_no_effect_and_no_record() {
    let database = Database::shared();
    database.run("CREATE ROLE pooled LOGIN SUPERUSER");
    let started = tokio::task::spawn_blocking(|| Bouncer::start("pooled"));
    let Some(bouncer) = started.await.unwrap() else { return };
    let home = Home::over(address(bouncer.port));
    let servers = [home.node(&[]), home.node(&[])];
    let mut load = Load::on(&servers, 32);
    for _ in 0..ROUNDS / 2 {
        load.until_placed(CALLS).await;
        terminate_half("usename = 'pooled'");
    }
    let placed = load.stop().await;
    assert_exact(&home, database.port, &servers, &placed).await;
}
