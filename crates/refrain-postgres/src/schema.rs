//! The schema: its text, its versions, and what a store in it has been set up with.

use std::time::Duration;

use uuid::Uuid;

use crate::Error;
use crate::link::Link;
use crate::ring::SLOTS_PER_TTL;
use crate::session::millis;
use crate::statements::VERSION;
use crate::trouble::Trouble;

/// The shortest time whose records share a body table.
const MIN_SLOT_MS: i64 = 1_000;

/// The statements that set up a store in the schema `refrain`, with a retention of 24 hours, for
/// those who apply their own migrations. [`Builder::migrate`](crate::Builder::migrate) runs the
/// same.
pub const SCHEMA: &str = include_str!("schema.sql");

/// A store's constants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) store: Uuid,
    pub(crate) retention_ms: i64,
    pub(crate) slot_ms: i64,
}

/// Returns whether a name can be a schema's, and stand between quotes. PostgreSQL has those in `pg_` for
/// itself.
pub(crate) fn is_plain(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 48
        && name.chars().all(is_word)
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && !name.starts_with("pg_")
}

/// The name of a schema in a statement, be it a keyword.
pub(crate) fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// Sets up a store, or leaves the one that is there.
pub(crate) async fn migrate(link: &Link, schema: &str, retention: Duration) -> Result<(), Error> {
    let quoted = quoted(schema);
    let apply = async {
        link.batch_execute("BEGIN").await?;
        // Two nodes that start together take turns. The role that owns a schema need not be one
        // that may create it.
        let known = format!("SELECT 1 WHERE to_regnamespace('{quoted}') IS NOT NULL");
        if link.query_text(&known).await?.is_empty() {
            link.batch_execute(&format!("CREATE SCHEMA {quoted}")).await?;
        }
        let known = format!("SELECT 1 WHERE to_regclass('{quoted}.meta') IS NOT NULL");
        if link.query_text(&known).await?.is_empty() {
            link.batch_execute(&text(&quoted, retention)).await?;
        }
        link.batch_execute("COMMIT").await
    };
    match apply.await {
        Ok(()) => read(link, schema).await.map(drop),
        Err(trouble) => {
            let _ = link.batch_execute("ROLLBACK").await;
            // Another node may have been first.
            match read(link, schema).await {
                Ok(_) => Ok(()),
                Err(Error::Missing { .. }) => Err(trouble.into()),
                Err(error) => Err(error),
            }
        }
    }
}

fn text(quoted: &str, retention: Duration) -> String {
    let retention_ms = millis(retention);
    // Rounded up.
    let slot_ms = ((retention_ms + SLOTS_PER_TTL - 1) / SLOTS_PER_TTL).max(MIN_SLOT_MS);
    SCHEMA
        .replace("CREATE SCHEMA refrain;", "")
        .replace("refrain.", &format!("{quoted}."))
        .replace("86400000, 10800000", &format!("{retention_ms}, {slot_ms}"))
}

/// Reads the constants of the store in a schema.
pub(crate) async fn read(link: &Link, schema: &str) -> Result<Meta, Error> {
    let quoted = quoted(schema);
    let known = format!("SELECT 1 WHERE to_regclass('{quoted}.meta') IS NOT NULL");
    if link.query_text(&known).await?.is_empty() {
        return Err(Error::Missing { schema: schema.to_owned() });
    }
    check_version(link, &quoted, schema).await?;
    let text = format!("SELECT store, retention_ms, slot_ms FROM {quoted}.meta");
    let rows = link.query_text(&text).await?;
    let row = rows.first().ok_or_else(|| Error::Missing { schema: schema.to_owned() })?;
    Ok(Meta {
        store: row.try_get(0).map_err(Trouble::from)?,
        retention_ms: row.try_get(1).map_err(Trouble::from)?,
        slot_ms: row.try_get(2).map_err(Trouble::from)?,
    })
}

/// Refuses a schema that this version cannot use. Later versions keep these two columns, whatever
/// becomes of the others.
async fn check_version(link: &Link, quoted: &str, schema: &str) -> Result<(), Error> {
    let text = format!("SELECT version, oldest_reader FROM {quoted}.meta");
    let rows = link.query_text(&text).await?;
    let row = rows.first().ok_or_else(|| Error::Missing { schema: schema.to_owned() })?;
    let found: i32 = row.try_get(0).map_err(Trouble::from)?;
    let oldest_reader: i32 = row.try_get(1).map_err(Trouble::from)?;
    if (oldest_reader..=found).contains(&VERSION) {
        return Ok(());
    }
    Err(Error::Version { found, oldest_reader, supported: VERSION })
}
