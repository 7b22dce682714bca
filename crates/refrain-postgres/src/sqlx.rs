//! Completing an operation inside a transaction of sqlx 0.8.

use bytes::{Bytes, BytesMut};
use http::Response;
use refrain::{Error, Permit, Result};
use sqlx_core::encode::{Encode, IsNull};
use sqlx_core::error::BoxDynError;
use sqlx_core::query::query;
use sqlx_core::row::Row;
use sqlx_core::transaction::Transaction;
use sqlx_core::types::Type;
use sqlx_postgres::types::Oid;
use sqlx_postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, Postgres};
use tokio_postgres::types::{self, ToSql};

use crate::statements::Sql;
use crate::transaction::{Draft, Found, Given, Theirs, elsewhere};

/// Completes an operation inside a transaction of sqlx, on the same database.
///
/// ```no_run
/// # mod sqlx {
/// #     pub(crate) use sqlx_core::{Error, pool::Pool, query::query};
/// #     pub(crate) type PgPool = Pool<sqlx_postgres::Postgres>;
/// # }
/// use bytes::Bytes;
/// use http::Response;
/// use refrain_postgres::sqlx::CompleteIn;
///
/// # async fn example(mut permit: refrain::Permit, pool: &sqlx::PgPool)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let response = Response::new(Bytes::from("paid"));
/// let mut transaction = pool.begin().await?;
/// sqlx::query("UPDATE account SET balance = balance - 5 WHERE id = 1")
///     .execute(&mut *transaction)
///     .await?;
/// permit.complete_in(&mut transaction, &response).await?;
/// transaction.commit().await?;
/// // Asks the database whether it committed.
/// permit.complete(&response).await?;
/// # Ok(())
/// # }
/// ```
pub trait CompleteIn {
    /// Writes the response as the operation's, in this transaction. All that is said of
    /// [`CompleteIn::complete_in`](crate::CompleteIn::complete_in) holds here.
    fn complete_in(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        response: &Response<Bytes>,
    ) -> impl Future<Output = Result<()>> + Send;
}

impl CompleteIn for Permit {
    async fn complete_in(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        response: &Response<Bytes>,
    ) -> Result<()> {
        let draft = Draft::of(self, response)?;
        draft.write(transaction).await
    }
}

#[cfg(feature = "server")]
impl CompleteIn for refrain::server::Execution {
    async fn complete_in(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        response: &Response<Bytes>,
    ) -> Result<()> {
        let draft = self.with_permit(|permit| Draft::of(permit, response))??;
        draft.write(transaction).await
    }
}

impl Theirs for &mut Transaction<'_, Postgres> {
    type Row = PgRow;

    async fn run(&mut self, sql: &Sql, given: Given<'_>) -> Result<Option<PgRow>> {
        let mut query = query::<Postgres>(&sql.text).persistent(false);
        for (value, kind) in given.iter().zip(&sql.types) {
            query = query.bind(Typed { value: *value, kind });
        }
        query.fetch_optional(&mut ***self).await.map_err(refused)
    }

    fn read(row: &PgRow) -> Result<Found> {
        let found = || {
            Ok(Found {
                store: row.try_get(0)?,
                attempt: row.try_get(1)?,
                state: row.try_get(2)?,
                now_ms: row.try_get(3)?,
            })
        };
        found().map_err(refused)
    }
}

fn refused(error: sqlx_core::Error) -> Error {
    const UNDEFINED_TABLE: &str = "42P01";
    match error.as_database_error().and_then(|database| database.code()) {
        Some(code) if code == UNDEFINED_TABLE => elsewhere(),
        _ => Error::unavailable(error),
    }
}

/// A parameter of a statement, in the bytes that both drivers send.
struct Typed<'a> {
    value: &'a (dyn ToSql + Sync),
    kind: &'a types::Type,
}

impl Type<Postgres> for Typed<'_> {
    /// Of any parameter; [`Encode::produces`] says which it is.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(types::Type::UNKNOWN.oid()))
    }
}

impl<'q> Encode<'q, Postgres> for Typed<'q> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut bytes = BytesMut::new();
        let is_null = self.value.to_sql_checked(self.kind, &mut bytes)?;
        buffer.extend_from_slice(&bytes);
        Ok(match is_null {
            types::IsNull::Yes => IsNull::Yes,
            types::IsNull::No => IsNull::No,
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.kind.oid())))
    }
}
