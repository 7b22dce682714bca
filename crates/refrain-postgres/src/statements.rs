//! The statements, and the rows that they return.
//!
//! Each may be sent again after an ambiguous end: a claim names its attempt, and every change is
//! conditional on (address, attempt). Time is the database's: `statement_timestamp()`.

use bytes::Bytes;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

/// The tables in the ring of bodies.
pub(crate) const SLOTS: i64 = 12;
/// The slots that a TTL spans: the ring has one each for the start and the end of the TTL, one for
/// a clock that a node has guessed, and one that is empty.
pub(crate) const SLOTS_PER_TTL: i64 = SLOTS - 4;

pub(crate) mod state {
    pub(crate) const CLAIMED: i16 = 0;
    pub(crate) const DURABLE: i16 = 1;
    pub(crate) const INTERRUPTED: i16 = 2;
    pub(crate) const DONE: i16 = 3;
}

/// A statement with the types of its parameters, so that it can be sent without being prepared.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) claim: Sql,
    pub(crate) claims: Sql,
    pub(crate) find: Sql,
    /// As `find`, and fails while a transaction has the row.
    pub(crate) find_settled: Sql,
    /// One for each slot.
    pub(crate) complete: Vec<Sql>,
    pub(crate) completions: Vec<Sql>,
    pub(crate) both: Vec<Sql>,
    pub(crate) release: Sql,
    pub(crate) give_up: Sql,
    pub(crate) interrupt: Sql,
    pub(crate) checkpoint: Sql,
    pub(crate) retry: Sql,
    pub(crate) take: Sql,
    pub(crate) judge: Sql,
    pub(crate) forget: Sql,
    pub(crate) forget_body: Vec<Sql>,
    pub(crate) interrupted: Sql,
    pub(crate) open_session: Sql,
    pub(crate) renew: Sql,
    pub(crate) bury: Sql,
    pub(crate) holders: Sql,
    pub(crate) mark_waited: Sql,
    pub(crate) notify: Sql,
    pub(crate) take_duty: Sql,
    pub(crate) sweepable: Sql,
    pub(crate) sweep: Sql,
    pub(crate) clear_sessions: Sql,
}

const NOW_MS: &str = "(extract(epoch FROM statement_timestamp()) * 1000)::int8";
/// Of row `k`.
const EXPIRES_MS: &str = "(extract(epoch FROM k.expires_at) * 1000)::int8";
const IN_TTL: &str = "statement_timestamp() + u.ttl * interval '1 millisecond'";

const CLAIM_ONE: &[Type] = &[
    Type::UUID,
    Type::UUID,
    Type::INT2,
    Type::INT8,
    Type::BYTEA,
    Type::TEXT,
    Type::BYTEA,
    Type::TEXT,
    Type::INT8,
];
const CLAIM_MANY: &[Type] = &[
    Type::UUID_ARRAY,
    Type::UUID_ARRAY,
    Type::INT2_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8,
];
const COMPLETE_ONE: &[Type] =
    &[Type::UUID, Type::UUID, Type::INT8, Type::BYTEA, Type::TEXT, Type::BYTEA, Type::INT8];
const COMPLETE_MANY: &[Type] = &[
    Type::UUID_ARRAY,
    Type::UUID_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8,
];

impl Statements {
    pub(crate) fn new(schema: &str, slot_ms: i64) -> Self {
        let texts = Texts { schema, slot_ms };
        let slots = || 0..SLOTS;
        Self {
            claim: Sql { text: texts.claim_one(), types: CLAIM_ONE.to_vec() },
            claims: Sql { text: texts.claims(), types: CLAIM_MANY.to_vec() },
            find: Sql { text: texts.seen("k.address = ANY($1)"), types: vec![Type::UUID_ARRAY] },
            find_settled: texts.find_settled(),
            complete: slots()
                .map(|slot| Sql { text: texts.complete(slot), types: COMPLETE_ONE.to_vec() })
                .collect(),
            completions: slots()
                .map(|slot| Sql { text: texts.completions(slot), types: COMPLETE_MANY.to_vec() })
                .collect(),
            both: slots()
                .map(|slot| Sql {
                    text: texts.both(slot),
                    types: [CLAIM_MANY, COMPLETE_MANY].concat(),
                })
                .collect(),
            release: texts.release(),
            give_up: texts.give_up(),
            interrupt: texts.interrupt(),
            checkpoint: texts.checkpoint(),
            retry: texts.retry(),
            take: texts.take(),
            judge: texts.judge(),
            forget: texts.forget(),
            forget_body: slots().map(|slot| texts.forget_body(slot)).collect(),
            interrupted: texts.interrupted(),
            open_session: texts.open_session(),
            renew: texts.renew(),
            bury: texts.bury(),
            holders: texts.holders(),
            mark_waited: texts.mark_waited(),
            notify: Sql {
                text: "SELECT pg_notify($1, $2)".into(),
                types: vec![Type::TEXT, Type::TEXT],
            },
            take_duty: texts.take_duty(),
            sweepable: texts.sweepable(),
            sweep: texts.sweep(),
            clear_sessions: texts.clear_sessions(),
        }
    }
}

struct Texts<'a> {
    schema: &'a str,
    slot_ms: i64,
}

impl Texts<'_> {
    /// Claims the rows of `u(address, attempt, state, ttl, scope, key, fingerprint, request_id)`
    /// for the session in parameter `session`. A key that is there is not tried: the insertion would
    /// wait for a transaction of a caller's that has it.
    fn claim(&self, u: &str, session: usize) -> String {
        let Self { schema, slot_ms } = self;
        let alive = self.alive(session);
        format!(
            "INSERT INTO {schema}.key (address, attempt, session, sweep, state, expires_at, first, \
             ttl_ms, scope, key, fingerprint, request_id) \
             SELECT u.address, u.attempt, ${session}, ({NOW_MS} + u.ttl) / {slot_ms} + 1, u.state, \
             CASE WHEN u.state = 1 THEN {IN_TTL} END, CASE WHEN u.state = 1 THEN u.attempt END, \
             CASE WHEN u.state = 1 THEN u.ttl END, u.scope, u.key, u.fingerprint, u.request_id \
             FROM {u} WHERE {alive} \
             AND NOT EXISTS (SELECT 1 FROM {schema}.key h WHERE h.address = u.address) \
             ON CONFLICT (address) DO NOTHING RETURNING attempt"
        )
    }

    /// The session in parameter `own` is this node's still: what is claimed under one that is over
    /// is anybody's at once.
    fn alive(&self, own: usize) -> String {
        let schema = self.schema;
        format!(
            "EXISTS (SELECT 1 FROM {schema}.session own WHERE own.id = ${own} AND NOT own.dead \
             AND own.lease_until > statement_timestamp())"
        )
    }

    fn claim_one(&self) -> String {
        self.claim(
            "(VALUES ($1::uuid, $2::uuid, $3::int2, $4::int8, $5::bytea, $6::text, $7::bytea, \
             $8::text)) AS u(address, attempt, state, ttl, scope, key, fingerprint, request_id)",
            9,
        )
    }

    fn claim_rows(&self) -> String {
        self.claim(
            "unnest($1, $2, $3, $4, $5, $6, $7, $8) \
             AS u(address, attempt, state, ttl, scope, key, fingerprint, request_id)",
            9,
        )
    }

    fn claims(&self) -> String {
        let (won, seen) = (self.claim_rows(), self.seen("k.address = ANY($1)"));
        format!("WITH won AS ({won}) {WON} UNION ALL SELECT 2::int2, s.* FROM ({seen}) s")
    }

    /// Completes the rows of `u(address, attempt, ttl, scope, key, payload)` into a slot, which
    /// must be the one after a TTL from now, or the next: parameter `guess` is the client's guess
    /// of it. A statement that a pooler mixes up with that of another slot completes nothing.
    fn completed(&self, u: &str, slot: i64, guess: usize) -> (String, String) {
        let Self { schema, slot_ms } = self;
        let done = format!(
            "UPDATE {schema}.key k SET state = 3, slot = {slot}, expires_at = {IN_TTL}, \
             first = NULL, ttl_ms = NULL, scope = NULL, key = NULL, checkpoints = NULL FROM {u} \
             WHERE k.address = u.address AND k.attempt = u.attempt AND k.state < 3 \
             AND ${guess} - ({NOW_MS} + u.ttl) / {slot_ms} BETWEEN 0 AND 1 \
             AND ${guess} % {SLOTS} = {slot} \
             RETURNING k.attempt, k.address, k.waited, {EXPIRES_MS} AS expires_ms, u.scope, u.key, \
             u.payload"
        );
        let kept = format!(
            "INSERT INTO {schema}.body_{slot:02} (attempt, address, scope, key, payload) \
             SELECT attempt, address, scope, key, payload FROM done"
        );
        (done, kept)
    }

    fn complete(&self, slot: i64) -> String {
        let (done, kept) = self.completed(
            "(VALUES ($1::uuid, $2::uuid, $3::int8, $4::bytea, $5::text, $6::bytea)) \
             AS u(address, attempt, ttl, scope, key, payload)",
            slot,
            7,
        );
        format!(
            "WITH done AS ({done}), kept AS ({kept}) SELECT attempt, expires_ms, waited FROM done"
        )
    }

    fn completions(&self, slot: i64) -> String {
        let (done, kept) = self.completed(
            "unnest($1, $2, $3, $4, $5, $6) AS u(address, attempt, ttl, scope, key, payload)",
            slot,
            7,
        );
        format!("WITH done AS ({done}), kept AS ({kept}) {DONE}")
    }

    fn both(&self, slot: i64) -> String {
        let (won, seen) = (self.claim_rows(), self.seen("k.address = ANY($1)"));
        let (done, kept) = self.completed(
            "unnest($10, $11, $12, $13, $14, $15) \
             AS u(address, attempt, ttl, scope, key, payload)",
            slot,
            16,
        );
        format!(
            "WITH won AS ({won}), done AS ({done}), kept AS ({kept}) {WON} UNION ALL {DONE} \
             UNION ALL SELECT 2::int2, s.* FROM ({seen}) s"
        )
    }

    /// All that is known about the keys that meet the condition.
    fn seen(&self, condition: &str) -> String {
        let schema = self.schema;
        let bodies: Vec<String> = (0..SLOTS)
            .map(|slot| {
                format!(
                    "SELECT payload FROM {schema}.body_{slot:02} \
                     WHERE k.slot = {slot} AND attempt = k.attempt"
                )
            })
            .collect();
        let bodies = bodies.join(" UNION ALL ");
        format!(
            "SELECT k.address, k.attempt, k.session, k.slot, k.state, k.run, k.first, k.ttl_ms, \
             k.fingerprint, k.request_id, k.checkpoints, {EXPIRES_MS} AS expires_ms, \
             coalesce(k.expires_at <= statement_timestamp(), false) AS expired, \
             coalesce(s.dead, true) AS dead, \
             coalesce(s.lease_until <= statement_timestamp(), true) AS lapsed, \
             k.waited, b.payload \
             FROM {schema}.key k LEFT JOIN {schema}.session s ON s.id = k.session \
             LEFT JOIN LATERAL ({bodies}) b ON true WHERE {condition}"
        )
    }

    fn find_settled(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "SELECT attempt, waited, state FROM {schema}.key WHERE address = $1 \
                 FOR UPDATE NOWAIT"
            ),
            types: vec![Type::UUID],
        }
    }

    fn release(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "DELETE FROM {schema}.key WHERE address = $1 AND attempt = $2 AND state < 3 \
                 RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID],
        }
    }

    /// Leaves a durable claim to whoever asks next.
    fn give_up(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.key SET state = 2 \
                 WHERE address = $1 AND attempt = $2 AND state IN (1, 2) RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID],
        }
    }

    fn interrupt(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.key SET state = 2, first = coalesce(first, attempt), \
                 ttl_ms = $3, scope = $4, key = $5, \
                 expires_at = statement_timestamp() + $3 * interval '1 millisecond' \
                 WHERE address = $1 AND attempt = $2 AND state < 3 RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID, Type::INT8, Type::BYTEA, Type::TEXT],
        }
    }

    /// Adds checkpoint number `$3`, counted from 1.
    fn checkpoint(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.key SET checkpoints = array_append(checkpoints, $4) \
                 WHERE address = $1 AND attempt = $2 AND state = 1 \
                 AND coalesce(cardinality(checkpoints), 0) = $3 - 1 RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID, Type::INT4, Type::BYTEA],
        }
    }

    /// Begins the next attempt of a run that is being judged.
    fn retry(&self) -> Sql {
        let Self { schema, slot_ms } = self;
        Sql {
            text: format!(
                "UPDATE {schema}.key SET attempt = $3, run = run + 1, request_id = $4, \
                 ttl_ms = $5, expires_at = statement_timestamp() + $5 * interval '1 millisecond', \
                 sweep = ({NOW_MS} + $5) / {slot_ms} + 1 \
                 WHERE address = $1 AND attempt = $2 AND state = 1 RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID, Type::UUID, Type::TEXT, Type::INT8],
        }
    }

    /// Takes over a key whose record has expired, or whose holder died with nothing said.
    fn take(&self) -> Sql {
        let Self { schema, slot_ms } = self;
        let (dead, alive) = (self.dead(), self.alive(9));
        Sql {
            text: format!(
                "UPDATE {schema}.key k SET attempt = u.attempt, session = $9, state = u.state, \
                 run = 1, slot = -1, waited = false, sweep = ({NOW_MS} + u.ttl) / {slot_ms} + 1, \
                 expires_at = CASE WHEN u.state = 1 THEN {IN_TTL} END, \
                 first = CASE WHEN u.state = 1 THEN u.attempt END, \
                 ttl_ms = CASE WHEN u.state = 1 THEN u.ttl END, \
                 scope = u.scope, key = u.key, checkpoints = NULL, \
                 fingerprint = u.fingerprint, request_id = u.request_id \
                 FROM (VALUES ($1::uuid, $2::uuid, $3::int2, $4::int8, $5::bytea, $6::text, \
                 $7::bytea, $8::text)) \
                 AS u(address, attempt, state, ttl, scope, key, fingerprint, request_id) \
                 WHERE k.address = u.address AND k.attempt = $10 AND {alive} AND ( \
                 k.state = 3 AND k.expires_at <= statement_timestamp() \
                 OR k.state = 0 AND {dead} \
                 OR k.state = 1 AND k.expires_at <= statement_timestamp() AND {dead} \
                 OR k.state = 2 AND k.expires_at <= statement_timestamp()) RETURNING k.attempt"
            ),
            types: [CLAIM_ONE, &[Type::UUID]].concat(),
        }
    }

    /// Takes an interrupted run in order to judge it.
    fn judge(&self) -> Sql {
        let schema = self.schema;
        let (dead, alive) = (self.dead(), self.alive(4));
        Sql {
            text: format!(
                "UPDATE {schema}.key k SET attempt = $3, session = $4, state = 1, waited = false \
                 WHERE k.address = $1 AND k.attempt = $2 AND {alive} \
                 AND (k.state = 2 OR k.state = 1 AND {dead}) \
                 AND k.expires_at > statement_timestamp() RETURNING k.attempt"
            ),
            types: vec![Type::UUID, Type::UUID, Type::UUID, Type::INT8],
        }
    }

    /// The session of row `k` is dead, or so long dead that its row is gone.
    fn dead(&self) -> String {
        let schema = self.schema;
        format!(
            "NOT EXISTS (SELECT 1 FROM {schema}.session s WHERE s.id = k.session AND NOT s.dead)"
        )
    }

    fn forget(&self) -> Sql {
        let schema = self.schema;
        let dead = self.dead();
        Sql {
            text: format!(
                "DELETE FROM {schema}.key k WHERE k.address = $1 AND k.attempt = $2 \
                 AND (k.state > 1 OR {dead}) RETURNING k.attempt"
            ),
            types: vec![Type::UUID, Type::UUID],
        }
    }

    fn forget_body(&self, slot: i64) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!("DELETE FROM {schema}.body_{slot:02} WHERE attempt = $1"),
            types: vec![Type::UUID],
        }
    }

    fn interrupted(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "SELECT k.scope, k.key, k.fingerprint, k.request_id, k.run, k.checkpoints, k.first \
                 FROM {schema}.key k LEFT JOIN {schema}.session s ON s.id = k.session \
                 WHERE k.scope IS NOT NULL AND (k.scope, k.key) > ($1, $2) \
                 AND (k.state = 2 OR k.state = 1 AND (coalesce(s.dead, true) \
                 OR s.lease_until <= statement_timestamp())) \
                 AND k.expires_at > statement_timestamp() ORDER BY k.scope, k.key LIMIT $3"
            ),
            types: vec![Type::BYTEA, Type::TEXT, Type::INT8],
        }
    }

    fn open_session(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "INSERT INTO {schema}.session (node, lease_until) \
                 VALUES ($1, statement_timestamp() + $2 * interval '1 millisecond') \
                 RETURNING id, {NOW_MS}"
            ),
            types: vec![Type::TEXT, Type::INT8],
        }
    }

    fn renew(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.session \
                 SET lease_until = statement_timestamp() + $2 * interval '1 millisecond' \
                 WHERE id = $1 AND NOT dead RETURNING id, {NOW_MS}"
            ),
            types: vec![Type::INT8, Type::INT8],
        }
    }

    /// Marks a session dead whose lease has lapsed, unless that of the node which says so has too.
    fn bury(&self) -> Sql {
        let (schema, alive) = (self.schema, self.alive(2));
        Sql {
            text: format!(
                "UPDATE {schema}.session SET dead = true \
                 WHERE id = $1 AND NOT dead AND lease_until <= statement_timestamp() \
                 AND {alive}"
            ),
            types: vec![Type::INT8, Type::INT8],
        }
    }
}

impl Texts<'_> {
    /// Who has the keys, for those who wait.
    fn holders(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "SELECT k.address, k.attempt, k.state, \
                 coalesce(s.lease_until <= statement_timestamp(), true), coalesce(s.dead, true) \
                 FROM {schema}.key k LEFT JOIN {schema}.session s ON s.id = k.session \
                 WHERE k.address = ANY($1)"
            ),
            types: vec![Type::UUID_ARRAY],
        }
    }

    /// Marks the rows that somebody waits for. A row that a transaction has is left: a poll finds out
    /// what becomes of it.
    fn mark_waited(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.key k SET waited = true \
                 FROM (SELECT h.address, h.attempt FROM {schema}.key h \
                 JOIN unnest($1, $2) AS w(address, attempt) USING (address, attempt) \
                 FOR UPDATE OF h SKIP LOCKED) AS u \
                 WHERE k.address = u.address AND k.attempt = u.attempt AND k.state < 2 \
                 AND NOT k.waited"
            ),
            types: vec![Type::UUID_ARRAY, Type::UUID_ARRAY],
        }
    }

    /// Takes a piece of background work for a while, if no other node has it.
    fn take_duty(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "INSERT INTO {schema}.duty AS d (name, held_until) \
                 VALUES ($1, statement_timestamp() + $2 * interval '1 millisecond') \
                 ON CONFLICT (name) DO UPDATE SET held_until = excluded.held_until \
                 WHERE d.held_until <= statement_timestamp() RETURNING {NOW_MS}"
            ),
            types: vec![Type::TEXT, Type::INT8],
        }
    }

    /// Row `k` says nothing that anybody may still want to know.
    fn over(&self) -> String {
        let dead = self.dead();
        format!(
            "(k.state > 1 AND k.expires_at <= statement_timestamp() \
             OR k.state = 1 AND k.expires_at <= statement_timestamp() AND {dead} \
             OR k.state = 0 AND {dead})"
        )
    }

    fn sweepable(&self) -> Sql {
        let Self { schema, slot_ms } = self;
        let over = self.over();
        Sql {
            text: format!(
                "SELECT k.address, k.attempt FROM {schema}.key k \
                 WHERE k.sweep <= {NOW_MS} / {slot_ms} AND {over} ORDER BY k.sweep LIMIT $1"
            ),
            types: vec![Type::INT8],
        }
    }

    /// Deletes rows that are still as they were read: one that was claimed again in between has
    /// another attempt.
    fn sweep(&self) -> Sql {
        let schema = self.schema;
        let over = self.over();
        Sql {
            text: format!(
                "DELETE FROM {schema}.key k USING unnest($1, $2) AS u(address, attempt) \
                 WHERE k.address = u.address AND k.attempt = u.attempt AND {over} \
                 RETURNING k.attempt"
            ),
            types: vec![Type::UUID_ARRAY, Type::UUID_ARRAY],
        }
    }

    /// Deletes sessions that have been dead for a day. A claim without its session is a dead one's.
    fn clear_sessions(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "DELETE FROM {schema}.session \
                 WHERE lease_until <= statement_timestamp() - interval '1 day'"
            ),
            types: vec![],
        }
    }
}

/// In the shape of a seen row, behind the kind of the row.
const WON: &str = "SELECT 0::int2, NULL::uuid, attempt, NULL::int8, NULL::int2, NULL::int2, \
    NULL::int4, NULL::uuid, NULL::int8, NULL::bytea, NULL::text, NULL::bytea[], NULL::int8, \
    NULL::boolean, NULL::boolean, NULL::boolean, NULL::boolean, NULL::bytea FROM won";
const DONE: &str = "SELECT 1::int2, NULL::uuid, attempt, NULL::int8, NULL::int2, NULL::int2, \
    NULL::int4, NULL::uuid, NULL::int8, NULL::bytea, NULL::text, NULL::bytea[], expires_ms, \
    NULL::boolean, NULL::boolean, NULL::boolean, waited, NULL::bytea FROM done";

/// All that is known about a key.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) address: Uuid,
    pub(crate) attempt: Uuid,
    pub(crate) session: i64,
    pub(crate) slot: i16,
    pub(crate) state: i16,
    pub(crate) run: i32,
    pub(crate) first: Option<Uuid>,
    pub(crate) ttl_ms: Option<i64>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) request_id: String,
    pub(crate) checkpoints: Vec<Bytes>,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) expired: bool,
    /// Set if the holder's session was marked dead.
    pub(crate) dead: bool,
    /// Set if the lease of the holder's session is over.
    pub(crate) lapsed: bool,
    pub(crate) waited: bool,
    pub(crate) payload: Option<Bytes>,
}

impl Seen {
    /// Reads the columns from `at` on.
    fn read(row: &Row, at: usize) -> Result<Self, Error> {
        let checkpoints: Option<Vec<Vec<u8>>> = row.try_get(at + 10)?;
        let payload: Option<Vec<u8>> = row.try_get(at + 16)?;
        Ok(Self {
            address: row.try_get(at)?,
            attempt: row.try_get(at + 1)?,
            session: row.try_get(at + 2)?,
            slot: row.try_get(at + 3)?,
            state: row.try_get(at + 4)?,
            run: row.try_get(at + 5)?,
            first: row.try_get(at + 6)?,
            ttl_ms: row.try_get(at + 7)?,
            fingerprint: row.try_get(at + 8)?,
            request_id: row.try_get(at + 9)?,
            checkpoints: checkpoints.unwrap_or_default().into_iter().map(Bytes::from).collect(),
            expires_ms: row.try_get(at + 11)?,
            expired: row.try_get(at + 12)?,
            dead: row.try_get(at + 13)?,
            lapsed: row.try_get(at + 14)?,
            waited: row.try_get(at + 15)?,
            payload: payload.map(Bytes::from),
        })
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        Self::read(row, 0)
    }
}

/// A row of a batch.
#[derive(Debug)]
pub(crate) enum Line {
    /// The attempt has its key.
    Won(Uuid),
    Done(Done),
    /// A key that was asked for, and was there before.
    Seen(Seen),
}

/// A completion that took effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) attempt: Uuid,
    pub(crate) expires_ms: i64,
    /// Set if a request on another node waits for it.
    pub(crate) waited: bool,
}

impl Line {
    pub(crate) fn read(row: &Row) -> Result<Self, Error> {
        Ok(match row.try_get::<_, i16>(0)? {
            0 => Self::Won(row.try_get(2)?),
            1 => Self::Done(Done {
                attempt: row.try_get(2)?,
                expires_ms: row.try_get(12)?,
                waited: row.try_get(16)?,
            }),
            _ => Self::Seen(Seen::read(row, 1)?),
        })
    }
}

impl Done {
    /// Reads the row of a lone completion.
    pub(crate) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self { attempt: row.try_get(0)?, expires_ms: row.try_get(1)?, waited: row.try_get(2)? })
    }
}
