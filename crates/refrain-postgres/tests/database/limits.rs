//! A database that has no connection left.

use crate::kit::server::Server as Database;
use crate::load::{Load, assert_exact, assert_unavailable, place_at_all};
use crate::server::Home;

/// Fewer than the servers would have.
const FEW: i64 = 8;

/// A role of the test's own that the limit holds for: not a superuser.
fn home(role: &str) -> Home {
    let database = Database::shared();
    database.run(&format!("CREATE ROLE {role} LOGIN IN ROLE refrain"));
    Home::over(database.address().replace("refrain@", &format!("{role}@")))
}

fn limit(role: &str, connections: i64) {
    Database::shared().run(&format!("ALTER ROLE {role} CONNECTION LIMIT {connections}"));
}

fn terminate(role: &str) {
    let of_role = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename =";
    Database::shared().run(&format!("{of_role} '{role}'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_servers_are_unavailable_until_there_is_one() {
    let home = home("refused");
    let servers = [home.node(&[]), home.node(&[])];
    let mut load = Load::on(&servers, 16);
    load.until_placed(100).await;
    limit("refused", 0);
    terminate("refused");
    for answer in place_at_all(&servers, "during").await {
        assert_unavailable(&answer);
    }
    limit("refused", -1);
    load.until_placed(100).await;
    let placed = load.stop().await;
    assert_exact(&home, Database::shared().port, &servers, &placed).await;
}

/// The servers' idle connections took what their leases needed, and all of them were unavailable
/// for as long as the limit was there.
#[tokio::test(flavor = "multi_thread")]
async fn servers_keep_their_leases_where_they_have_fewer_connections_than_they_want() {
    let home = home("rationed");
    let servers = [home.node(&[]), home.node(&[])];
    let mut load = Load::on(&servers, 64);
    load.until_placed(100).await;
    limit("rationed", FEW);
    terminate("rationed");
    load.until_placed(300).await;
    limit("rationed", -1);
    load.until_placed(100).await;
    let placed = load.stop().await;
    assert_exact(&home, Database::shared().port, &servers, &placed).await;
}
