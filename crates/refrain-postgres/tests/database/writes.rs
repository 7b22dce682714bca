//! A database that can be read, and not written to.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::CALL;
use crate::kit::server::{Server as Database, connect};
use crate::load::{
    Load, Placed, assert_exact, assert_is_for_now, assert_unavailable, place_at_all,
};
use crate::node::Server;
use crate::server::Home;

/// What was recorded is replayed all the same.
async fn assert_replayed(servers: &[Server], placed: &Placed) {
    for again in place_at_all(servers, &placed.key).await {
        assert!(again.is_replay(), "{again:?}");
        assert_eq!(again.body, placed.answer.body);
    }
}

/// As an old primary is, or a new one before it is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_replays_and_runs_nothing() {
    let database = Database::shared();
    database.run("CREATE ROLE reader LOGIN SUPERUSER");
    let home = Home::over(database.address().replace("refrain@", "reader@"));
    let servers = [home.node(&[]), home.node(&[])];
    let before = place_one(&servers).await;
    let mut load = Load::on(&servers, 16);
    load.until_placed(100).await;
    database.run("ALTER ROLE reader SET default_transaction_read_only = on");
    database.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'reader'",
    );
    for answer in place_at_all(&servers, "during").await {
        assert_unavailable(&answer);
    }
    assert_replayed(&servers, &before).await;
    // The connections that are there stay as they are.
    database.run("ALTER ROLE reader RESET default_transaction_read_only");
    load.until_placed(100).await;
    let placed = load.stop().await;
    assert_exact(&home, database.port, &servers, &placed).await;
}

async fn place_one(servers: &[Server]) -> Placed {
    let key = "before".to_owned();
    let answer = servers[0].place(&key, CALL).await;
    assert_eq!(answer.status, 201);
    Placed { key, answer }
}

/// A file system in memory, of which there is little.
struct Small(PathBuf);

impl Small {
    /// None where none can be mounted.
    #[allow(clippy::print_stderr, reason = "what is skipped is said")]
    fn mount(megabytes: u32) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("refrain-small-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let owner = Command::new("id").args(["-u", "postgres"]).output().unwrap();
        let owner = String::from_utf8_lossy(&owner.stdout).trim().to_owned();
        let options = format!("size={megabytes}m,uid={owner},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&path)
            .status()
            .unwrap();
        if !mounted.success() {
            std::fs::remove_dir(&path).unwrap();
            eprintln!("skipped: no file system can be mounted");
            return None;
        }
        Some(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Rows of the filling, each about a page.
const PAGES: u32 = 10_000;
/// More calls than the pages that are there already have room for.
const CALLS: usize = 96;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_replays_and_records_once_there_is_room() {
    let Some(small) = Small::mount(16) else { return };
    let database = Database::start(&["max_connections=200"]);
    database.run(&format!("CREATE TABLESPACE small LOCATION '{}'", small.path().display()));
    database.run("ALTER DATABASE postgres SET default_tablespace = small");
    database.run("CREATE TABLE filling (page text)");
    database.run("ALTER TABLE filling ALTER page SET STORAGE PLAIN");
    let home = Home::over(database.address());
    let servers = [home.node(&[]), home.node(&[])];
    let before = place_one(&servers).await;
    fill(database.port).await;

    let keys: Vec<String> = (0..CALLS).map(|n| format!("during-{n}")).collect();
    let mut placing = tokio::task::JoinSet::new();
    for (key, server) in keys.iter().zip(servers.iter().cycle()) {
        let (door, key) = (**server, key.clone());
        placing.spawn(async move { door.place(&key, CALL).await });
    }
    let answers = placing.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 201).collect();
    refused.iter().for_each(|answer| assert_is_for_now(answer));
    assert!(refused.iter().any(|answer| answer.code() == "idempotency_unavailable"));
    assert_replayed(&servers, &before).await;

    database.run("DROP TABLE filling");
    let mut load = Load::on(&servers, 16);
    load.until_placed(100).await;
    let mut placed = load.stop().await;
    for (key, server) in keys.into_iter().zip(servers.iter().cycle().skip(1)) {
        let answer = server.place(&key, CALL).await;
        assert_eq!(answer.status, 201, "{key}: {answer:?}");
        placed.push(Placed { key, answer });
    }
    assert_exact(&home, database.port, &servers, &placed).await;
}

/// Fills the file system to its last page.
async fn fill(database: u16) {
    let client = connect(database).await.unwrap();
    for pages in [PAGES, 16, 1, 1] {
        let full = client
            .batch_execute(&format!(
                "INSERT INTO filling SELECT repeat('x', 7000) FROM generate_series(1, {pages})"
            ))
            .await;
        let code = full.unwrap_err().code().cloned();
        assert_eq!(code, Some(tokio_postgres::error::SqlState::DISK_FULL));
    }
}
