//! Prepared single statements on a pool of connections: a table with the body in the row.

use anyhow::{Result, ensure};
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::server::Server;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS idempotency (address bytea PRIMARY KEY, \
    fingerprint bytea NOT NULL, state int2 NOT NULL, attempt uuid NOT NULL, holder text NOT NULL, \
    lease_until timestamptz NOT NULL, expires_at timestamptz NOT NULL, response bytea); \
    CREATE INDEX IF NOT EXISTS idempotency_expires ON idempotency (expires_at)";
const CLAIM: &str = "INSERT INTO idempotency \
    (address, fingerprint, state, attempt, holder, lease_until, expires_at) \
    VALUES ($1, $2, 0, $3, $4, now() + interval '30 s', now() + interval '1 day') \
    ON CONFLICT (address) DO NOTHING RETURNING 1";
const COMPLETE: &str = "UPDATE idempotency \
    SET state = 1, response = $3, expires_at = now() + interval '1 day' \
    WHERE address = $1 AND attempt = $2 AND state = 0 RETURNING 1";
const FIND: &str = "SELECT fingerprint, response FROM idempotency \
    WHERE address = $1 AND state = 1 AND expires_at > now()";

pub struct Pooled {
    pool: Pool,
    /// Keys of their own for each contender, on the table that they share.
    salt: u8,
}

impl Pooled {
    pub async fn open(server: &Server, connections: usize) -> Result<Self> {
        server.client().await?.batch_execute(SCHEMA).await?;
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(server.address().parse()?, NoTls, config);
        let pool = Pool::builder(manager).max_size(connections).build()?;
        Ok(Self { pool, salt: u8::try_from(connections)? })
    }

    fn address(&self, key: u64) -> [u8; 32] {
        let mut address = [self.salt; 32];
        // Spread over the index, as a hash is.
        address[..8].copy_from_slice(&key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        address
    }

    pub async fn run(&self, key: u64, body: &Bytes) -> Result<()> {
        let (address, attempt) = (self.address(key), Uuid::now_v7());
        let (address, holder) = (&address[..], "req_0123456789abcdef");
        let client = self.pool.get().await?;
        let claim = client.prepare_cached(CLAIM).await?;
        let won = client.query(&claim, &[&address, &address, &attempt, &holder]).await?;
        ensure!(!won.is_empty(), "the key is known");
        // The handler runs here, and keeps no connection.
        drop(client);
        let client = self.pool.get().await?;
        let complete = client.prepare_cached(COMPLETE).await?;
        let done = client.query(&complete, &[&address, &attempt, &&body[..]]).await?;
        ensure!(!done.is_empty(), "the claim is lost");
        Ok(())
    }

    pub async fn replay(&self, key: u64) -> Result<()> {
        let address = self.address(key);
        let client = self.pool.get().await?;
        let find = client.prepare_cached(FIND).await?;
        let row = client.query_one(&find, &[&&address[..]]).await?;
        ensure!(!row.get::<_, &[u8]>(1).is_empty(), "no body");
        Ok(())
    }
}
