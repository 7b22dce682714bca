//! The statements, and the rows that they return.
//!
//! Each may be sent again after an ambiguous end: a claim names its attempt, and every change is
//! conditional on (address, attempt). Time is the database's: `statement_timestamp()`.

mod commits;
mod rows;
mod upkeep;
mod verdicts;

use tokio_postgres::types::Type;
use uuid::Uuid;

pub(crate) use rows::{Done, Line, Seen};

use crate::ring::SLOTS;

/// The version of the schema that these statements are for, and that this crate makes.
pub(crate) const VERSION: i32 = 1;

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

impl Sql {
    pub(crate) fn is_read(&self) -> bool {
        self.text.starts_with("SELECT")
    }
}

#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) claim: Sql,
    pub(crate) claims: Sql,
    pub(crate) confirm: Sql,
    /// One for each slot: with the bodies that are in it.
    pub(crate) find: Vec<Sql>,
    /// Bodies alone, one for each slot.
    pub(crate) bodies: Vec<Sql>,
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
    /// One for each slot.
    pub(crate) forget_with_body: Vec<Sql>,
    pub(crate) interrupted: Sql,
    pub(crate) open_session: Sql,
    pub(crate) renew: Sql,
    pub(crate) bury: Sql,
    pub(crate) holders: Sql,
    pub(crate) mark_waited: Sql,
    pub(crate) notify: Sql,
    pub(crate) take_duty: Sql,
    pub(crate) keep_duty: Sql,
    pub(crate) sweepable: Sql,
    pub(crate) sweep: Sql,
    pub(crate) bury_lapsed: Sql,
    pub(crate) clear_sessions: Sql,
}

const NOW_MS: &str = "(extract(epoch FROM statement_timestamp()) * 1000)::int8";
const IN_TTL: &str = "statement_timestamp() + u.ttl * interval '1 millisecond'";

/// One claim, as a row of nine parameters.
const CLAIM_ROW: &str = "(VALUES ($1::uuid, $2::uuid, $3::int2, $4::int8, $5::int8, $6::bytea, \
    $7::text, $8::bytea, $9::text)) \
    AS u(address, attempt, state, ttl, sweep, scope, key, fingerprint, request_id)";
/// The claims that were made, in the shape of [`Line`].
const WON: &str = "SELECT attempt, NULL::timestamptz, NULL::boolean FROM won";
/// The completions that took effect, in the same shape.
const DONE: &str = "SELECT attempt, expires_at, waited FROM done";

/// The rows of parameters that are columns, from parameter `first` on.
///
/// `FROM unnest($1, $2)` says the same, and first puts each column into a store of its own, so large
/// that its memory is returned to the system and taken from it again with every statement.
fn rows(first: usize, columns: &[&str]) -> String {
    let column = |(at, name)| format!("unnest(${}) AS {name}", first + at);
    let columns: Vec<String> = columns.iter().enumerate().map(column).collect();
    format!("(SELECT {}) AS u", columns.join(", "))
}

const CLAIM_ONE: &[Type] = &[
    Type::UUID,
    Type::UUID,
    Type::INT2,
    Type::INT8,
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
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8,
];
const COMPLETE_ONE: &[Type] = &[
    Type::UUID,
    Type::UUID,
    Type::INT8,
    Type::BYTEA,
    Type::TEXT,
    Type::BYTEA,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
];
const COMPLETE_MANY: &[Type] = &[
    Type::UUID_ARRAY,
    Type::UUID_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
];

impl Statements {
    pub(crate) fn new(schema: &str, slot_ms: i64, store: Uuid) -> Self {
        let texts = Texts { schema, slot_ms, store };
        let slots = || 0..SLOTS;
        Self {
            claim: Sql { text: texts.claim_one(), types: CLAIM_ONE.to_vec() },
            claims: Sql { text: texts.claims(), types: CLAIM_MANY.to_vec() },
            find: slots().map(|slot| texts.find(slot)).collect(),
            bodies: slots().map(|slot| texts.bodies(slot)).collect(),
            confirm: texts.confirm(),
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
            forget_with_body: slots().map(|slot| texts.forget_with_body(slot)).collect(),
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
            keep_duty: texts.keep_duty(),
            sweepable: texts.sweepable(),
            sweep: texts.sweep(),
            bury_lapsed: texts.bury_lapsed(),
            clear_sessions: texts.clear_sessions(),
        }
    }
}

struct Texts<'a> {
    schema: &'a str,
    slot_ms: i64,
    store: Uuid,
}

impl Texts<'_> {
    /// The session in parameter `own` is this node's still: what is claimed under one that is over
    /// is anybody's at once.
    fn alive(&self, own: usize) -> String {
        let schema = self.schema;
        format!(
            "EXISTS (SELECT 1 FROM {schema}.session own WHERE own.id = ${own} AND NOT own.dead \
             AND own.lease_until > statement_timestamp())"
        )
    }

    /// The session of row `k` is dead, or so long dead that its row is gone.
    fn dead(&self) -> String {
        let schema = self.schema;
        format!(
            "NOT EXISTS (SELECT 1 FROM {schema}.session s WHERE s.id = k.session AND NOT s.dead)"
        )
    }
}
