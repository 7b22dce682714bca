//! Expiry: body tables are truncated whole, and key rows are swept in bounded batches, by one node
//! at a time and never in the way of commits.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::backend::Fleet;
use crate::link::Parameters;
use crate::ring::SLOTS;
use crate::session::millis;
use crate::trouble::Trouble;

/// The name of the duty.
const SWEEP: &str = "sweep";
/// Key rows in one deletion.
const BATCH: usize = 500;
/// The longest wait for a body table's lock, which commits would have to wait behind.
const LOCK_WITHIN: &str = "50ms";
/// The pauses between two rounds, whatever the TTL.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The outcome of a round.
enum Round {
    Swept,
    /// Another node has the duty.
    Elsewhere,
}

impl Fleet {
    /// Sweeps round after round until the store closes.
    pub(crate) async fn sweep_forever(&self) {
        let slot = Duration::from_millis(u64::try_from(self.ring.slot_ms()).unwrap_or_default());
        let (shortest, longest) = PAUSES;
        let pause = (slot / 4).clamp(shortest, longest);
        let mut closing = self.closing.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
            let trouble = match self.sweep_if_free(pause).await {
                Ok(Round::Elsewhere) => continue,
                Ok(Round::Swept) => None,
                Err(trouble) => Some(trouble.to_string()),
            };
            *self.last_trouble.lock().expect("nobody panics here") = trouble;
        }
    }

    /// Sweeps unless another node does. The duty is held for a pause at a time, batch by batch.
    async fn sweep_if_free(&self, pause: Duration) -> Result<Round, Trouble> {
        let pause = millis(pause);
        let duty = self.query(&self.statements.take_duty, &[&SWEEP, &pause]).await?;
        let Some(row) = duty.first() else { return Ok(Round::Elsewhere) };
        let mut held_until: SystemTime = row.try_get(0)?;
        while self.sweep_batch().await? == BATCH {
            let given: Parameters<'_> = &[&SWEEP, &pause, &held_until];
            let duty = self.query(&self.statements.keep_duty, given).await?;
            let Some(row) = duty.first() else { return Ok(Round::Swept) };
            held_until = row.try_get(0)?;
        }
        self.sweep_the_rest().await?;
        Ok(Round::Swept)
    }

    /// Does all that is due.
    pub(crate) async fn sweep_once(&self) -> Result<(), Trouble> {
        while self.sweep_batch().await? == BATCH {}
        self.sweep_the_rest().await
    }

    /// Does what comes after the key rows.
    async fn sweep_the_rest(&self) -> Result<(), Trouble> {
        if self.session.may_judge() {
            self.query(&self.statements.bury_lapsed, &[&self.session.id()]).await?;
        }
        self.query(&self.statements.clear_sessions, &[]).await?;
        for slot in 0..SLOTS {
            if self.is_full(slot).await? {
                self.truncate(slot).await?;
            }
        }
        Ok(())
    }

    /// Deletes a batch of key rows, and returns how many were found.
    async fn sweep_batch(&self) -> Result<usize, Trouble> {
        let max = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let rows = self.query(&self.statements.sweepable, &[&max]).await?;
        let mut found: Vec<(Uuid, Uuid)> = Vec::with_capacity(rows.len());
        for row in &rows {
            found.push((row.try_get(0)?, row.try_get(1)?));
        }
        if found.is_empty() {
            return Ok(0);
        }
        // In the order of commits, which would deadlock otherwise.
        found.sort_unstable();
        let (addresses, attempts): (Vec<Uuid>, Vec<Uuid>) = found.into_iter().unzip();
        self.query(&self.statements.sweep, &[&addresses, &attempts]).await?;
        Ok(addresses.len())
    }

    async fn is_full(&self, slot: i64) -> Result<bool, Trouble> {
        let link = self.pool.take_aside().await?;
        let text = format!("SELECT 1 FROM {}.body_{slot:02} LIMIT 1", self.schema);
        Ok(!link.query_text(&text).await?.is_empty())
    }

    /// Truncates a body table if none of the records that may be in it is live. That is looked at
    /// again with the table locked, so no commit comes in between. A table that is in use is not
    /// locked at all: commits and replays would wait for the lock, and it cancels the queries of
    /// standbys.
    async fn truncate(&self, slot: i64) -> Result<(), Trouble> {
        let mut link = self.pool.take_aside().await?;
        let schema = &self.schema;
        let slot_ms = self.ring.slot_ms();
        let retention_ms = self.retention_ms;
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = '{LOCK_WITHIN}'; \
             LOCK TABLE {schema}.body_{slot:02} IN ACCESS EXCLUSIVE MODE"
        );
        // From the slot of time that is passing to the one that a commit's guess may name.
        let is_free = format!(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM generate_series( \
             (extract(epoch FROM clock_timestamp()) * 1000)::int8 / {slot_ms}, \
             ((extract(epoch FROM clock_timestamp()) * 1000)::int8 + {retention_ms}) / {slot_ms} + 1) \
             AS live WHERE live % {SLOTS} = {slot})"
        );
        // A clock that was set back has left live records in slots of time to come.
        let has_live = format!(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM {schema}.body_{slot:02} b \
             JOIN {schema}.key k ON k.address = b.address AND k.attempt = b.attempt \
             WHERE k.slot = {slot} AND k.expires_at > statement_timestamp())"
        );
        if link.query_text(&is_free).await?.is_empty()
            || !link.query_text(&has_live).await?.is_empty()
        {
            return Ok(());
        }
        let truncated = async {
            link.batch_execute(&begin).await?;
            if !link.query_text(&is_free).await?.is_empty() {
                link.batch_execute(&format!("TRUNCATE {schema}.body_{slot:02}")).await?;
            }
            link.batch_execute("COMMIT").await
        };
        if let Err(trouble) = truncated.await {
            // The transaction ends here, or else with its connection.
            if trouble.wants_new_link() || link.batch_execute("ROLLBACK").await.is_err() {
                link.discard();
            }
            // A table that commits are writing to is truncated another time.
            if !trouble.is_transient() {
                return Err(trouble);
            }
        }
        Ok(())
    }
}
