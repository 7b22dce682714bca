//! [`refrain`] over PostgreSQL: one key, one run, on any number of machines.
//!
//! ```no_run
//! use refrain_postgres::Postgres;
//!
//! # async fn example() -> Result<(), refrain_postgres::Error> {
//! let database = "postgres://app@db.example.com/app?sslmode=require";
//! Postgres::migrate(database).await?; // a store that is there stays
//! let store = Postgres::connect(database).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The store is a [`refrain::Store`]: the layers and the handlers stay as they are over a
//! directory. The promises P1 to P8 hold across its nodes, and P17: a node whose key was taken over
//! records nothing. A node holds its keys under one lease, which it renews in the database by the
//! database's clock; after [`Builder::lease`] without a renewal its keys may be taken over.
//!
//! [`CompleteIn`] writes a record in the caller's own transaction; [`sqlx::CompleteIn`] does so in
//! one of sqlx (feature `sqlx`). Feature `server` has both for handlers under refrain's layer.
//!
//! `docs/fleet.md` is the guide: the promises in full, settings of the server, size, faults,
//! upgrades.

mod address;
mod backend;
mod batch;
mod builder;
mod claim;
mod claiming;
mod columns;
mod deadlines;
mod elsewhere;
mod error;
mod job;
mod lanes;
mod link;
mod pool;
mod queue;
mod ring;
mod schema;
mod session;
mod share;
#[cfg(feature = "sqlx")]
pub mod sqlx;
mod statements;
mod sweep;
mod transaction;
mod trouble;
mod verdict;

pub use builder::{Builder, Postgres};
pub use error::Error;
pub use schema::SCHEMA;
pub use transaction::CompleteIn;
pub use trouble::TransactionError;

/// The example of `docs/fleet.md`.
#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../../../docs/fleet.md")]
mod document {}
