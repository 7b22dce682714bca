//! Statements that claim keys, complete operations and read what is known.

use tokio_postgres::types::Type;

use super::{CLAIM_ROW, DONE, IN_TTL, Sql, Texts, WON, rows};
use crate::ring::SLOTS;

const CLAIM_COLUMNS: &[&str] =
    &["address", "attempt", "state", "ttl", "sweep", "scope", "key", "fingerprint", "request_id"];
const COMPLETION_COLUMNS: &[&str] = &["address", "attempt", "ttl", "scope", "key", "payload"];

impl Texts<'_> {
    /// Claims the rows of `u(address, attempt, state, ttl, sweep, scope, key, fingerprint,
    /// request_id)` for the session in parameter 10. A key that is there is not tried: the insertion
    /// would wait for a transaction of a caller's that has it.
    fn claim(&self, u: &str) -> String {
        let schema = self.schema;
        let alive = self.alive(10);
        format!(
            "INSERT INTO {schema}.key (address, attempt, session, sweep, state, expires_at, first, \
             ttl_ms, scope, key, fingerprint, request_id) \
             SELECT u.address, u.attempt, $10, u.sweep, u.state, \
             CASE WHEN u.state = 1 THEN {IN_TTL} END, CASE WHEN u.state = 1 THEN u.attempt END, \
             CASE WHEN u.state = 1 THEN u.ttl END, u.scope, u.key, u.fingerprint, u.request_id \
             FROM {u} WHERE {alive} \
             AND NOT EXISTS (SELECT 1 FROM {schema}.key h WHERE h.address = u.address) \
             ON CONFLICT (address) DO NOTHING RETURNING attempt"
        )
    }

    pub(super) fn claim_one(&self) -> String {
        self.claim(CLAIM_ROW)
    }

    fn claim_rows(&self) -> String {
        self.claim(&rows(1, CLAIM_COLUMNS))
    }

    pub(super) fn claims(&self) -> String {
        let won = self.claim_rows();
        format!("WITH won AS ({won}) {WON}")
    }

    /// Completes the rows of `u(address, attempt, ttl, scope, key, payload)` into a slot, with three
    /// parameters from `guess` on: the client's guess of the slot of time, and the window in which
    /// the records must expire that go there. A statement that a pooler mixes up with that of
    /// another slot completes nothing.
    fn completed(&self, u: &str, slot: i64, guess: usize) -> (String, String) {
        let schema = self.schema;
        let (start, end) = (guess + 1, guess + 2);
        let done = format!(
            "UPDATE {schema}.key k SET state = 3, slot = {slot}, expires_at = {IN_TTL}, \
             first = NULL, ttl_ms = NULL, scope = NULL, key = NULL, checkpoints = NULL FROM {u} \
             WHERE k.address = u.address AND k.attempt = u.attempt AND k.state < 3 \
             AND {IN_TTL} >= ${start} AND {IN_TTL} < ${end} AND ${guess} % {SLOTS} = {slot} \
             RETURNING k.attempt, k.address, k.waited, k.expires_at, u.scope, u.key, u.payload"
        );
        let kept = format!(
            "INSERT INTO {schema}.body_{slot:02} (attempt, address, scope, key, payload) \
             SELECT attempt, address, scope, key, payload FROM done"
        );
        (done, kept)
    }

    pub(super) fn complete(&self, slot: i64) -> String {
        let (done, kept) = self.completed(
            "(VALUES ($1::uuid, $2::uuid, $3::int8, $4::bytea, $5::text, $6::bytea)) \
             AS u(address, attempt, ttl, scope, key, payload)",
            slot,
            7,
        );
        format!("WITH done AS ({done}), kept AS ({kept}) {DONE}")
    }

    pub(super) fn completions(&self, slot: i64) -> String {
        let (done, kept) = self.completed(&rows(1, COMPLETION_COLUMNS), slot, 7);
        format!("WITH done AS ({done}), kept AS ({kept}) {DONE}")
    }

    pub(super) fn both(&self, slot: i64) -> String {
        let won = self.claim_rows();
        let (done, kept) = self.completed(&rows(11, COMPLETION_COLUMNS), slot, 17);
        format!("WITH won AS ({won}), done AS ({done}), kept AS ({kept}) {WON} UNION ALL {DONE}")
    }

    /// All that is known about keys, with the bodies of those that are in a slot. The holder's
    /// session is looked at where there is one: 0 alive, 1 past its lease, 2 dead.
    pub(super) fn find(&self, slot: i64) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "SELECT k.address, k.attempt, k.session, k.slot, k.state, k.run, k.first, \
                 k.ttl_ms, k.fingerprint, k.request_id, k.checkpoints, k.expires_at, \
                 coalesce(k.expires_at <= statement_timestamp(), false), \
                 CASE WHEN k.state < 2 THEN coalesce((SELECT CASE WHEN s.dead THEN 2 \
                 WHEN s.lease_until <= statement_timestamp() THEN 1 ELSE 0 END \
                 FROM {schema}.session s WHERE s.id = k.session), 2) ELSE 0 END, \
                 k.waited, b.payload FROM {schema}.key k LEFT JOIN {schema}.body_{slot:02} b \
                 ON b.attempt = k.attempt AND k.slot = {slot} WHERE k.address = ANY($1)"
            ),
            types: vec![Type::UUID_ARRAY],
        }
    }

    pub(super) fn bodies(&self, slot: i64) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "SELECT attempt, payload FROM {schema}.body_{slot:02} WHERE attempt = ANY($1)"
            ),
            types: vec![Type::UUID_ARRAY],
        }
    }

    /// Writes something. A commit that was cut off while it waited for a standby may not have got
    /// there, and this one waits for both.
    pub(super) fn confirm(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!("UPDATE {schema}.session SET node = node WHERE id = $1 RETURNING id"),
            types: vec![Type::INT8],
        }
    }
}
