//! Statements about one key: other verdicts, and take-over.

use tokio_postgres::types::Type;

use super::{CLAIM_ONE, CLAIM_ROW, IN_TTL, NOW_MS, Sql, Texts};

impl Texts<'_> {
    pub(super) fn find_settled(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "SELECT attempt, waited, state FROM {schema}.key WHERE address = $1 \
                 FOR UPDATE NOWAIT"
            ),
            types: vec![Type::UUID],
        }
    }

    pub(super) fn release(&self) -> Sql {
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
    pub(super) fn give_up(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.key SET state = 2 \
                 WHERE address = $1 AND attempt = $2 AND state IN (1, 2) RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID],
        }
    }

    pub(super) fn interrupt(&self) -> Sql {
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

    /// Stores all checkpoints of a run, unless a later statement has stored more.
    pub(super) fn checkpoint(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.key SET checkpoints = $3 \
                 WHERE address = $1 AND attempt = $2 AND state = 1 \
                 AND coalesce(cardinality(checkpoints), 0) <= cardinality($3) RETURNING waited"
            ),
            types: vec![Type::UUID, Type::UUID, Type::BYTEA_ARRAY],
        }
    }

    /// Begins the next attempt of a run that is being judged.
    pub(super) fn retry(&self) -> Sql {
        let Self { schema, slot_ms, .. } = self;
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

    /// Takes over a key whose record has expired, or whose holder died with nothing said, or whose
    /// claim this node has made and nothing runs under.
    pub(super) fn take(&self) -> Sql {
        let schema = self.schema;
        let (dead, alive) = (self.dead(), self.alive(10));
        Sql {
            text: format!(
                "UPDATE {schema}.key k SET attempt = u.attempt, session = $10, state = u.state, \
                 run = 1, slot = -1, waited = false, sweep = u.sweep, \
                 expires_at = CASE WHEN u.state = 1 THEN {IN_TTL} END, \
                 first = CASE WHEN u.state = 1 THEN u.attempt END, \
                 ttl_ms = CASE WHEN u.state = 1 THEN u.ttl END, \
                 scope = u.scope, key = u.key, checkpoints = NULL, \
                 fingerprint = u.fingerprint, request_id = u.request_id \
                 FROM {CLAIM_ROW} \
                 WHERE k.address = u.address AND k.attempt = $11 AND {alive} AND ( \
                 k.state = 3 AND k.expires_at <= statement_timestamp() \
                 OR k.state = 0 AND (k.session = $10 OR {dead}) \
                 OR k.state = 1 AND k.expires_at <= statement_timestamp() AND {dead} \
                 OR k.state = 2 AND k.expires_at <= statement_timestamp()) RETURNING k.attempt"
            ),
            types: [CLAIM_ONE, &[Type::UUID]].concat(),
        }
    }

    /// Takes an interrupted run in order to judge it, also where an earlier try has taken it: the
    /// run must not be mistaken for a first one.
    pub(super) fn judge(&self) -> Sql {
        let schema = self.schema;
        let (dead, alive) = (self.dead(), self.alive(4));
        Sql {
            text: format!(
                "UPDATE {schema}.key k SET attempt = $3, session = $4, state = 1, waited = false \
                 WHERE k.address = $1 AND {alive} AND (k.attempt = $3 AND k.state = 1 \
                 OR k.attempt = $2 \
                 AND (k.state = 2 OR k.state = 1 AND (k.session = $4 OR {dead}))) \
                 AND k.expires_at > statement_timestamp() RETURNING k.attempt"
            ),
            types: vec![Type::UUID, Type::UUID, Type::UUID, Type::INT8],
        }
    }

    pub(super) fn forget(&self) -> Sql {
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

    /// The same for a key whose body is in a slot: both go, or neither.
    pub(super) fn forget_with_body(&self, slot: i64) -> Sql {
        let schema = self.schema;
        let Sql { text, types } = self.forget();
        Sql {
            text: format!(
                "WITH gone AS ({text}), body AS (DELETE FROM {schema}.body_{slot:02} b USING gone \
                 WHERE b.attempt = gone.attempt) SELECT attempt FROM gone"
            ),
            types,
        }
    }

    pub(super) fn interrupted(&self) -> Sql {
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
}
