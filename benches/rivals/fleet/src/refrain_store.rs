//! refrain, as a server would use it.

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Response;
use refrain::backend::Limits;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
use refrain_postgres::Postgres;

use crate::server::Server;

const LIMITS: Limits = Limits { in_flight: 4096, per_scope: 4096, waiters: 1024 };

pub async fn open(server: &Server) -> Result<Store> {
    Postgres::migrate(&server.address()).await?;
    Ok(Postgres::builder().limits(LIMITS).connect(&server.address()).await?)
}

fn operation(key: u64) -> Result<Operation> {
    let scope = Scope::from_api_key("sk_live_51");
    Ok(Operation::new(
        scope,
        format!("key-{key:x}").parse()?,
        Fingerprint::of(["POST", "/v1/calls"]),
    ))
}

/// Claims a fresh key and completes it. As with the pooled statements, the claim is a row by then,
/// and another node takes the key over once the lease is over.
pub async fn run(store: &Store, key: u64, body: &Bytes) -> Result<()> {
    let Outcome::Execute(permit) = store.begin(&operation(key)?).await? else {
        bail!("the key is known")
    };
    permit.complete(&Response::new(body.clone())).await?;
    Ok(())
}

/// Begins with a key that is done.
pub async fn replay(store: &Store, key: u64) -> Result<()> {
    match store.begin(&operation(key)?).await? {
        Outcome::Replay(record) if record.response().is_some() => Ok(()),
        other => bail!("not replayed: {other:?}"),
    }
}
