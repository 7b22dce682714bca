//! A store at a steady state: what its tables come to when as much expires as arrives.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::load;
use crate::refrain_store;
use crate::server::Server;

const SAMPLE_EVERY: Duration = Duration::from_secs(60);
const TABLES: &str = "SELECT \
    (SELECT count(*) FROM refrain.key), \
    (SELECT n_dead_tup FROM pg_stat_user_tables \
     WHERE schemaname = 'refrain' AND relname = 'key'), \
    pg_total_relation_size('refrain.key'), \
    (SELECT sum(pg_total_relation_size(relid))::int8 FROM pg_stat_user_tables \
     WHERE schemaname = 'refrain' AND relname LIKE 'body%'), \
    (SELECT wal_bytes::int8 FROM pg_stat_wal)";

/// Sends so many requests a second for so long, and prints the tables' sizes each minute.
pub async fn run(server: &Server, minutes: u64, rate: u32, ttl: Duration) -> Result<()> {
    let store = refrain_store::open_with_ttl(server, ttl).await?;
    let client = server.client().await?;
    let body = load::body();
    let mut due = interval(Duration::from_secs(1) / rate);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sample = interval(SAMPLE_EVERY);
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let (store, mut running) = (Arc::new(store), JoinSet::new());
    let (mut minute, mut sent, mut last) = (0, 0, (0, 0));
    println!("minute   requests   key rows   dead rows   key MB   body MB   WAL bytes a request");
    while Instant::now() < until {
        tokio::select! {
            _ = due.tick() => {
                let (store, body) = (Arc::clone(&store), body.clone());
                running.spawn(async move { refrain_store::run(&store, 0, sent, &body).await });
                sent += 1;
            }
            _ = sample.tick() => {
                last = print(&client, minute, sent, last).await?;
                minute += 1;
            }
            Some(ended) = running.join_next() => ended??,
        }
    }
    Ok(())
}

/// Prints a line, and returns the requests and the WAL bytes so far.
async fn print(
    client: &Client,
    minute: u64,
    sent: u64,
    (before, wal_before): (u64, i64),
) -> Result<(u64, i64)> {
    let row = client.query_one(TABLES, &[]).await?;
    let get = |at: usize| row.get::<_, i64>(at);
    let mb = |at: usize| get(at) as f64 / 1e6;
    let wal = get(4);
    let each = (wal - wal_before) as f64 / (sent - before).max(1) as f64;
    println!(
        "{minute:>6} {sent:>10} {:>10} {:>11} {:>8.1} {:>9.1} {each:>21.0}",
        get(0),
        get(1),
        mb(2),
        mb(3),
    );
    Ok((sent, wal))
}
