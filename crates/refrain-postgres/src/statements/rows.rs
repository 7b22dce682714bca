//! The rows that statements return.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::state;

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
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) expired: bool,
    /// Set if the key is claimed and the holder's session was marked dead.
    pub(crate) dead: bool,
    /// Set if the key is claimed and the lease of the holder's session is over.
    pub(crate) lapsed: bool,
    pub(crate) waited: bool,
    pub(crate) payload: Option<Bytes>,
}

impl Seen {
    /// Returns whether this is the row of a record that is replayed.
    pub(crate) fn is_live(&self) -> bool {
        self.state == state::DONE && !self.expired
    }

    pub(crate) fn read(row: &Row) -> Result<Self, Error> {
        let checkpoints: Option<Vec<Vec<u8>>> = row.try_get(10)?;
        let holder: i32 = row.try_get(13)?;
        let payload: Option<Vec<u8>> = row.try_get(15)?;
        Ok(Self {
            address: row.try_get(0)?,
            attempt: row.try_get(1)?,
            session: row.try_get(2)?,
            slot: row.try_get(3)?,
            state: row.try_get(4)?,
            run: row.try_get(5)?,
            first: row.try_get(6)?,
            ttl_ms: row.try_get(7)?,
            fingerprint: row.try_get(8)?,
            request_id: row.try_get(9)?,
            checkpoints: checkpoints.unwrap_or_default().into_iter().map(Bytes::from).collect(),
            expires_at: row.try_get::<_, Option<SystemTime>>(11)?.map(whole_ms),
            expired: row.try_get(12)?,
            dead: holder == 2,
            lapsed: holder > 0,
            waited: row.try_get(14)?,
            payload: payload.map(Bytes::from),
        })
    }
}

/// A row of a batch.
#[derive(Debug)]
pub(crate) enum Line {
    /// The attempt has its key.
    Won(Uuid),
    Done(Done),
}

/// A completion that took effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) attempt: Uuid,
    pub(crate) expires_at: SystemTime,
    /// Set if a request on another node waits for it.
    pub(crate) waited: bool,
}

impl Line {
    pub(crate) fn read(row: &Row) -> Result<Self, Error> {
        let attempt = row.try_get(0)?;
        Ok(match row.try_get(1)? {
            None => Self::Won(attempt),
            Some(expires_at) => Self::Done(Done {
                attempt,
                expires_at: whole_ms(expires_at),
                waited: row.try_get(2)?,
            }),
        })
    }
}

/// The next whole millisecond, since records count in them.
fn whole_ms(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let rest = since.subsec_nanos() % 1_000_000;
    match rest {
        0 => time,
        _ => time + Duration::from_nanos(u64::from(1_000_000 - rest)),
    }
}
