//! The idempotency store: a directory of this server's own, or a database that servers share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use refrain::Store;
#[cfg(feature = "postgres")]
use refrain_postgres::Postgres;

use crate::failure::Failure;

#[derive(Args)]
pub(crate) struct Storage {
    /// The directory of the idempotency store, or the postgres:// address of its database. A
    /// directory is created if it is missing; its parent must exist.
    #[arg(long)]
    store: PathBuf,
    /// The time for which a response is replayed.
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// The database's schema that the store is in. It is set up if it is missing, and its responses
    /// are replayed for this server's --ttl at most.
    #[arg(long, default_value = "refrain")]
    schema: String,
    /// The time after which a server that does not answer the database has lost its keys to others.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    lease: Duration,
}

impl Storage {
    pub(crate) async fn open(&self) -> Result<Store, Failure> {
        match self.address() {
            Some(address) => self.connect(address).await,
            None => Store::builder().ttl(self.ttl).open(&self.store).map_err(Failure::Open),
        }
    }

    /// The directory of the store, unless it is in a database.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.address().is_none().then_some(&self.store)
    }

    /// The address of the database, unless the store is a directory.
    fn address(&self) -> Option<&str> {
        let schemes = ["postgres://", "postgresql://"];
        self.store.to_str().filter(|text| schemes.iter().any(|scheme| text.starts_with(scheme)))
    }

    #[cfg(feature = "postgres")]
    async fn connect(&self, address: &str) -> Result<Store, Failure> {
        let builder = Postgres::builder().schema(&self.schema).lease(self.lease).ttl(self.ttl);
        builder.clone().migrate(address).await.map_err(Failure::Connect)?;
        builder.connect(address).await.map_err(Failure::Connect)
    }

    #[cfg(not(feature = "postgres"))]
    async fn connect(&self, _address: &str) -> Result<Store, Failure> {
        Err(Failure::NoDatabases)
    }
}
