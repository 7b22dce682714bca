//! Why a store could not be opened.

use std::sync::Arc;

/// Why a store could not be opened or set up. What goes wrong afterwards is a [`refrain::Error`].
///
/// `Display` describes one level; the database's own message is in
/// [`source`](std::error::Error::source).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one of PostgreSQL's.
    #[error("the address is not a postgres:// address")]
    Address(#[source] Arc<tokio_postgres::Error>),

    /// A setting of the builder is out of bounds.
    #[error("setting {name} must be {allowed}")]
    #[non_exhaustive]
    Setting {
        /// The builder's method.
        name: &'static str,
        /// The values that it takes.
        allowed: String,
    },

    /// The schema holds no store. Run [`Postgres::migrate`](crate::Postgres::migrate), or apply
    /// [`SCHEMA`](crate::SCHEMA).
    #[error("there is no store in schema {schema}")]
    #[non_exhaustive]
    Missing {
        /// The schema that was looked in.
        schema: String,
    },

    /// The schema is of a version that this crate cannot use. If it is older, run
    /// [`Postgres::migrate`](crate::Postgres::migrate); if it is newer, upgrade this crate.
    #[error(
        "the schema has version {found}, which serves crates of schema version {oldest_reader} to \
         {found}, and this crate's is {supported}"
    )]
    #[non_exhaustive]
    Version {
        /// The schema's.
        found: i32,
        /// The oldest whose crates may use the schema.
        oldest_reader: i32,
        /// The one that this crate sets up.
        supported: i32,
    },

    /// A setting of the server breaks a promise.
    #[error("the server's {setting} is {value}, under which {consequence}")]
    #[non_exhaustive]
    Unsafe {
        /// PostgreSQL's setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The damage that the setting allows.
        consequence: &'static str,
    },

    /// The server cannot be reached, or refuses: a right is missing, or it takes no writes. Its
    /// message is the source.
    #[error("the database cannot be used")]
    Database(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl From<crate::trouble::Trouble> for Error {
    fn from(trouble: crate::trouble::Trouble) -> Self {
        Self::Database(Arc::new(trouble))
    }
}
