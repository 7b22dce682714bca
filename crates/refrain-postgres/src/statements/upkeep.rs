//! Statements of the session, of those who wait, and of the sweeper.

use tokio_postgres::types::Type;

use super::{NOW_MS, Sql, Texts, VERSION};

impl Texts<'_> {
    /// The tables of `m` are still those that this node has opened, and serve this version.
    fn same(&self) -> String {
        let Self { store, slot_ms, .. } = self;
        format!("m.store = '{store}' AND m.slot_ms = {slot_ms} AND m.oldest_reader <= {VERSION}")
    }

    /// Opens a session, unless its number is taken or the schema no longer serves this node.
    pub(super) fn open_session(&self) -> Sql {
        let (schema, same) = (self.schema, self.same());
        Sql {
            text: format!(
                "INSERT INTO {schema}.session (id, node, lease_until) \
                 SELECT $1, $2, statement_timestamp() + $3 * interval '1 millisecond' \
                 FROM {schema}.meta m WHERE {same} \
                 ON CONFLICT (id) DO NOTHING RETURNING id, {NOW_MS}"
            ),
            types: vec![Type::INT8, Type::TEXT, Type::INT8],
        }
    }

    /// Renews the lease, unless the schema no longer serves this node.
    pub(super) fn renew(&self) -> Sql {
        let (schema, same) = (self.schema, self.same());
        Sql {
            text: format!(
                "UPDATE {schema}.session s \
                 SET lease_until = statement_timestamp() + $2 * interval '1 millisecond' \
                 FROM {schema}.meta m WHERE s.id = $1 AND NOT s.dead \
                 AND {same} RETURNING s.id, {NOW_MS}"
            ),
            types: vec![Type::INT8, Type::INT8],
        }
    }

    /// Marks a session dead whose lease has lapsed, unless that of the node which says so has too, or
    /// has been renewed since the renewal that the node knows of: it may have stood still before.
    pub(super) fn bury(&self) -> Sql {
        let (schema, alive) = (self.schema, self.alive(2));
        Sql {
            text: format!(
                "UPDATE {schema}.session SET dead = true \
                 WHERE id = $1 AND NOT dead AND lease_until <= statement_timestamp() \
                 AND {alive} AND EXISTS (SELECT 1 FROM {schema}.session own WHERE own.id = $2 \
                 AND (extract(epoch FROM own.lease_until) * 1000)::int8 = $3)"
            ),
            types: vec![Type::INT8, Type::INT8, Type::INT8],
        }
    }

    /// Who has the keys, for those who wait.
    pub(super) fn holders(&self) -> Sql {
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
    pub(super) fn mark_waited(&self) -> Sql {
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

    /// Takes a piece of background work for a while, if no other node has it. One that seems to
    /// have it for much longer took it while the database's clock was ahead.
    pub(super) fn take_duty(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "INSERT INTO {schema}.duty AS d (name, held_until) \
                 VALUES ($1, statement_timestamp() + $2 * interval '1 millisecond') \
                 ON CONFLICT (name) DO UPDATE SET held_until = excluded.held_until \
                 WHERE d.held_until NOT BETWEEN statement_timestamp() \
                 AND statement_timestamp() + interval '10 minutes' \
                 RETURNING held_until"
            ),
            types: vec![Type::TEXT, Type::INT8],
        }
    }

    /// Keeps it for another while, unless another node has taken it in between.
    pub(super) fn keep_duty(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "UPDATE {schema}.duty \
                 SET held_until = statement_timestamp() + $2 * interval '1 millisecond' \
                 WHERE name = $1 AND held_until = $3 RETURNING held_until"
            ),
            types: vec![Type::TEXT, Type::INT8, Type::TIMESTAMPTZ],
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

    pub(super) fn sweepable(&self) -> Sql {
        let Self { schema, slot_ms, .. } = self;
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
    pub(super) fn sweep(&self) -> Sql {
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

    /// Marks the sessions dead whose leases lapsed a day ago, and which nobody has asked about. As
    /// with one, the node that says so has a lease itself.
    pub(super) fn bury_lapsed(&self) -> Sql {
        let (schema, alive) = (self.schema, self.alive(1));
        Sql {
            text: format!(
                "UPDATE {schema}.session SET dead = true \
                 WHERE NOT dead AND lease_until <= statement_timestamp() - interval '1 day' \
                 AND {alive}"
            ),
            types: vec![Type::INT8],
        }
    }

    /// Deletes dead sessions whose leases lapsed a day ago. A claim without its session is a dead
    /// one's.
    pub(super) fn clear_sessions(&self) -> Sql {
        let schema = self.schema;
        Sql {
            text: format!(
                "DELETE FROM {schema}.session \
                 WHERE dead AND lease_until <= statement_timestamp() - interval '1 day'"
            ),
            types: vec![],
        }
    }
}
