//! Completing an operation inside the caller's own transaction.
//!
//! The record is written beside the caller's rows, and is there if and only if they are. Whether
//! the transaction has committed is not believed but asked, by the verdict that ends the claim.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use refrain::{Error, Permit, Result};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use crate::backend::{Fleet, unavailable};
use crate::claim::Claim;
use crate::job::Completion;
use crate::statements::{Sql, state};
use crate::trouble::{TransactionError, Trouble};

/// The tries of one record, each in the slot of time that the last one has named.
const TRIES: usize = 8;

/// The parameters of a statement.
pub(crate) type Given<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A transaction of the caller's, whatever its driver.
pub(crate) trait Theirs: Send {
    type Row: Send;

    /// Runs a statement and returns its first row. It is not prepared for good: the connection may
    /// be a pooler's.
    fn run(
        &mut self,
        sql: &Sql,
        given: Given<'_>,
    ) -> impl Future<Output = Result<Option<Self::Row>>> + Send;

    /// Reads a row that [`Draft::guess_again`] has asked for.
    fn read(row: &Self::Row) -> Result<Found>;
}

/// The state of the store and of a key, as a transaction sees them.
pub(crate) struct Found {
    pub(crate) store: Uuid,
    pub(crate) attempt: Option<Uuid>,
    pub(crate) state: Option<i16>,
    pub(crate) now_ms: i64,
}

/// A record that is to be written in a transaction.
pub(crate) struct Draft {
    fleet: Arc<Fleet>,
    completion: Completion,
}

impl Draft {
    /// Notes in the claim that a transaction may complete the operation, and returns what it is to
    /// write.
    pub(crate) fn of(permit: &mut Permit, response: &Response<Bytes>) -> Result<Self> {
        let claim = permit.claim_mut::<Claim>().ok_or(Error::Ended)?;
        let fleet = Arc::clone(&claim.fleet);
        let kept = fleet.rules.keep(response);
        let completion = claim.completion(kept.then(|| response.clone()));
        claim.has_draft = true;
        Ok(Self { completion: claim.encoded(&completion), fleet })
    }

    pub(crate) async fn write<T: Theirs>(&self, mut transaction: T) -> Result<()> {
        let mut guess = self.fleet.ring.guess(self.completion.ttl_ms);
        for _ in 0..TRIES {
            if self.write_once(&mut transaction, guess).await? {
                return Ok(());
            }
            guess = self.guess_again(&mut transaction).await?;
        }
        Err(unavailable(Trouble::Restless))
    }

    /// Writes the record into the table of a slot of time, if that is the one in which it expires,
    /// or the next.
    async fn write_once<T: Theirs>(&self, transaction: &mut T, guess: i64) -> Result<bool> {
        let ring = &self.fleet.ring;
        let sql = &self.fleet.statements.complete[ring.slot(guess)];
        let window = ring.window(guess);
        let given = self.completion.parameters(&guess, &window);
        Ok(transaction.run(sql, &given).await?.is_some())
    }

    /// Looks why nothing was written. Returns the slot of time, by the database's clock, if that
    /// was the reason.
    async fn guess_again<T: Theirs>(&self, transaction: &mut T) -> Result<i64> {
        let schema = &self.fleet.schema;
        let sql = Sql {
            text: format!(
                "SELECT m.store, k.attempt, k.state, \
                 (extract(epoch FROM statement_timestamp()) * 1000)::int8 \
                 FROM {schema}.meta m LEFT JOIN {schema}.key k ON k.address = $1"
            ),
            types: vec![Type::UUID],
        };
        let row = transaction.run(&sql, &[&self.completion.address]).await?;
        let found = T::read(&row.ok_or_else(elsewhere)?)?;
        if found.store != self.fleet.addresses.store() {
            return Err(elsewhere());
        }
        match (found.attempt, found.state) {
            (Some(attempt), _) if attempt != self.completion.attempt => Err(Error::Fenced),
            // By an earlier transaction.
            (Some(_), Some(state::DONE)) => Err(Error::Ended),
            (Some(_), _) => Ok(found.now_ms.saturating_add(self.completion.ttl_ms)
                / self.fleet.ring.slot_ms()
                + 1),
            // Another node's, and gone; or the transaction's snapshot is older than the claim.
            (None, _) => Err(Error::Fenced),
        }
    }
}

/// The error of a transaction in a database without the store.
pub(crate) fn elsewhere() -> Error {
    unavailable(Trouble::Transaction(TransactionError::Elsewhere))
}

impl Theirs for &Transaction<'_> {
    type Row = Row;

    async fn run(&mut self, sql: &Sql, given: Given<'_>) -> Result<Option<Row>> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            given.iter().copied().zip(sql.types.iter().cloned()).collect();
        match self.query_typed(&sql.text, &typed).await.map_err(Trouble::Database) {
            Ok(rows) => Ok(rows.into_iter().next()),
            Err(trouble) if trouble.is_no_table() => Err(elsewhere()),
            Err(trouble) => Err(unavailable(trouble)),
        }
    }

    fn read(row: &Row) -> Result<Found> {
        let found = || {
            Ok(Found {
                store: row.try_get(0)?,
                attempt: row.try_get(1)?,
                state: row.try_get(2)?,
                now_ms: row.try_get(3)?,
            })
        };
        found().map_err(Trouble::Database).map_err(unavailable)
    }
}

/// Completes an operation inside a transaction of the caller's, on the same database.
///
/// Leave the claims of such operations volatile: if the process dies, its transaction has committed
/// the record or is rolled back, so there is no run whose outcome an operator has to find out.
///
/// ```no_run
/// use bytes::Bytes;
/// use http::Response;
/// use refrain_postgres::CompleteIn;
///
/// # async fn example(mut permit: refrain::Permit, client: &mut tokio_postgres::Client)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let response = Response::new(Bytes::from("paid"));
/// let transaction = client.transaction().await?;
/// transaction.execute("UPDATE account SET balance = balance - 5 WHERE id = 1", &[]).await?;
/// permit.complete_in(&transaction, &response).await?;
/// transaction.commit().await?;
/// // Asks the database whether it committed.
/// permit.complete(&response).await?;
/// # Ok(())
/// # }
/// ```
pub trait CompleteIn {
    /// Writes the response as the operation's, in this transaction: on commit the operation is
    /// done, and on rollback its key is as it was before.
    ///
    /// The permit still wants its verdict, after the transaction has ended. The verdict asks the
    /// database: where the transaction has committed, the operation is done, whatever the verdict,
    /// with the response of the transaction. Where it has not, a verdict that says success fails
    /// with [`TransactionError::RolledBack`] and frees the key, because nothing happened; any other
    /// is as without a transaction. A verdict that comes before the transaction has ended waits for
    /// it, and after the store's [`patience`](crate::Builder::patience) fails with
    /// [`TransactionError::Open`]: the key then follows the transaction when it ends, and nobody
    /// runs before.
    ///
    /// # Errors
    ///
    /// After any of them the transaction must be rolled back.
    ///
    /// - [`Error::Fenced`]: another node has taken the key over; or the transaction is
    ///   `REPEATABLE READ` or `SERIALIZABLE`, and read its first row before the claim, so that it
    ///   does not see the claim. Nothing is written, and the key is as it was.
    /// - [`Error::Ended`]: the operation has its verdict, an earlier transaction has completed it,
    ///   or its store has another backend. After an earlier transaction whose commit was not
    ///   answered, this says that it has committed; the verdict returns its record.
    /// - [`Error::Unavailable`]: the database's error, or [`TransactionError::Elsewhere`]. One of
    ///   the database's is a serialization failure, where the transaction is not `READ COMMITTED`
    ///   and a request on another node has begun to wait for the key since its snapshot.
    ///
    /// # Durability
    ///
    /// That of the transaction.
    fn complete_in(
        &mut self,
        transaction: &Transaction<'_>,
        response: &Response<Bytes>,
    ) -> impl Future<Output = Result<()>> + Send;
}

impl CompleteIn for Permit {
    async fn complete_in(
        &mut self,
        transaction: &Transaction<'_>,
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
        transaction: &Transaction<'_>,
        response: &Response<Bytes>,
    ) -> Result<()> {
        let draft = self.with_permit(|permit| Draft::of(permit, response))??;
        draft.write(transaction).await
    }
}
