//! [`refrain`] over PostgreSQL: one key, one run, on any number of machines.
//!
//! ```no_run
//! # async fn example() -> Result<(), refrain_postgres::Error> {
//! let store = refrain_postgres::Postgres::connect("postgres://app@db/app").await?;
//! # Ok(())
//! # }
//! ```
//!
//! The store is a [`refrain::Store`]: the layers and the handlers stay as they are over a
//! directory. The schema must be there; [`Postgres::migrate`] makes it, and [`SCHEMA`] is its text.

mod address;
mod backend;
mod batch;
mod builder;
mod claim;
mod claiming;
mod columns;
mod elsewhere;
mod error;
mod job;
mod link;
mod queue;
mod ring;
mod schema;
mod session;
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
