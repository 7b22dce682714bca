//! refrain, as a server would use it.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Response;
use refrain::backend::Limits;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
use refrain_postgres::Postgres;

use crate::server::Server;

const LIMITS: Limits = Limits { in_flight: 4096, per_scope: 4096, waiters: 1024 };

/// Opens a store whose statements have a thread of their own, or are served on this runtime.
pub async fn open(server: &Server, is_guest: bool) -> Result<Store> {
    Postgres::migrate(&server.address()).await?;
    let mut builder = Postgres::builder().limits(LIMITS);
    if is_guest {
        builder = builder.runtime(tokio::runtime::Handle::current());
    }
    Ok(builder.connect(&server.address()).await?)
}

/// Opens a store whose records expire after this time.
pub async fn open_with_ttl(server: &Server, ttl: Duration) -> Result<Store> {
    let builder = Postgres::builder().limits(LIMITS).ttl(ttl);
    builder.clone().migrate(&server.address()).await?;
    Ok(builder.connect(&server.address()).await?)
}

fn operation(salt: u8, key: u64) -> Result<Operation> {
    let scope = Scope::from_api_key("sk_live_51");
    Ok(Operation::new(
        scope,
        format!("key-{salt}-{key:x}").parse()?,
        Fingerprint::of(["POST", "/v1/calls"]),
    ))
}

/// Claims a fresh key and completes it. As with the pooled statements, the claim is a row by then,
/// and another node takes the key over once the lease is over.
pub async fn run(store: &Store, salt: u8, key: u64, body: &Bytes) -> Result<()> {
    let Outcome::Execute(permit) = store.begin(&operation(salt, key)?).await? else {
        bail!("the key is known")
    };
    permit.complete(&Response::new(body.clone())).await?;
    Ok(())
}

/// Begins with a key that is done.
pub async fn replay(store: &Store, salt: u8, key: u64) -> Result<()> {
    match store.begin(&operation(salt, key)?).await? {
        Outcome::Replay(record) if record.response().is_some() => Ok(()),
        other => bail!("not replayed: {other:?}"),
    }
}
