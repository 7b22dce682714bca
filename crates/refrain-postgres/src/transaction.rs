//! Completing an operation inside the caller's own transaction.
//!
//! The record is written beside the caller's rows, and is there if and only if they are. Whether
//! the transaction has committed is not believed but asked, by the verdict that ends the claim.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use refrain::{Error, Permit, Result};
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

use crate::claim::Claim;
use crate::queue::{Completion, slot};
use crate::statements::Statements;

/// A record that is to be written in a transaction.
struct Draft {
    completion: Completion,
    /// The slot of time in which the record expires, as this node's clock has it.
    guess: i64,
    statements: Arc<Statements>,
}

impl Draft {
    /// Notes in the claim that a transaction may complete the operation, and returns what it is to
    /// write.
    fn of(permit: &mut Permit, response: &Response<Bytes>) -> Result<Self> {
        let claim = permit.claim_mut::<Claim>().ok_or(Error::Ended)?;
        let fleet = Arc::clone(&claim.fleet);
        let kept = response.body().len() <= fleet.rules.max_response_bytes;
        let payload = claim.encode(kept.then(|| response.clone()));
        claim.note_draft(payload.clone());
        let completion = claim.completion(payload);
        let guess = fleet.queue.guess(completion.ttl_ms);
        Ok(Self { completion, guess, statements: Arc::clone(&fleet.statements) })
    }

    async fn write(&self, transaction: &Transaction<'_>) -> Result<()> {
        let Completion { address, attempt, ttl_ms, scope, key, payload } = &self.completion;
        let sql = &self.statements.complete[slot(self.guess)];
        let payload = &payload[..];
        let given: [&(dyn ToSql + Sync); 7] =
            [address, attempt, ttl_ms, scope, key, &payload, &self.guess];
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            given.into_iter().zip(sql.types.iter().cloned()).collect();
        let rows = transaction.query_typed(&sql.text, &typed).await.map_err(Error::unavailable)?;
        if rows.is_empty() { Err(Error::Fenced) } else { Ok(()) }
    }
}

/// Completes an operation inside a transaction of the caller's, on the same database.
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
/// // Asks whether it was.
/// permit.complete(&response).await?;
/// # Ok(())
/// # }
/// ```
pub trait CompleteIn {
    /// Writes the response as the operation's, in this transaction: on commit the operation is
    /// done, and on rollback its key is as it was.
    ///
    /// The permit still wants its verdict, after the transaction has ended. The verdict asks the
    /// database: where the transaction has committed, the operation is done, whatever the verdict.
    /// Where it has not, a verdict that says success fails and frees the key, because nothing
    /// happened; any other is as without a transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] if another node has taken the key over: roll back.
    /// [`Error::Unavailable`] with the database's error, after which the transaction can only be
    /// rolled back. [`Error::Ended`] if the operation has its verdict, or its store another
    /// backend.
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
