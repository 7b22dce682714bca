//! A backend as a stranger would write it: a map behind a mutex, which never waits.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use refrain::backend::{self, Answer, Asked, Backend, Cursor, Granted, Hold, Past, Rules};
use refrain::backend::{Table, Ticket};
use refrain::clock::{Clock, SimulatedClock};
use refrain::{Error, Key, Record, RequestId, Result, Scope};

/// A handle to the rows. Toys with the same rows are like nodes with the same database.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    pub(crate) table: Arc<Table>,
    pub(crate) clock: SimulatedClock,
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    rows: BTreeMap<Cursor, Row>,
    pub(crate) is_closing: bool,
    /// The error of every call, once the toy is closed or its house says so.
    pub(crate) refusal: Option<Error>,
}

/// The latest run for a key, which is open or interrupted until there is a record.
#[derive(Clone, Debug)]
struct Row {
    past: Past,
    ttl: Duration,
    expires_at: SystemTime,
    seed: Option<[u8; 24]>,
    record: Option<Record>,
}

/// A claim is volatile, and its row is not in the map, until the row has a seed.
#[derive(Debug)]
pub(crate) struct Claim {
    toy: Toy,
    hold: Hold,
    row: Row,
}

impl Toy {
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap();
        if let Some(error) = &state.refusal { Err(error.clone()) } else { Ok(state) }
    }

    fn row(&self, scope: Scope, key: &Key) -> Result<Option<Row>> {
        let row = self.state()?.rows.get(&Cursor { scope, key: key.clone() }).cloned();
        Ok(row.filter(|row| row.expires_at > self.now()))
    }

    fn answer(&self, asked: &Asked, hold: Hold) -> Result<Answer> {
        let toy = self.clone();
        match self.row(hold.scope(), hold.key())? {
            Some(Row { record: Some(record), .. }) => Ok(Answer::recorded(record, hold)),
            Some(row) => Ok(Answer::Interrupted(Box::new(Claim { toy, hold, row }))),
            None => {
                let (past, ttl) = (Past::first(asked, &hold), asked.ttl);
                let row = Row { past, ttl, expires_at: self.now() + ttl, seed: None, record: None };
                let mut claim = Box::new(Claim { toy, hold, row });
                if asked.durable {
                    claim.store()?;
                }
                Ok(Answer::Claimed(Granted::new(claim)))
            }
        }
    }
}

impl Backend for Toy {
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        Ticket::ready(self.answer(&asked, hold))
    }

    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        Ticket::ready(self.row(scope, key).map(|row| row?.record))
    }

    fn forget(&self, hold: Hold) -> Ticket<()> {
        let place = Cursor { scope: hold.scope(), key: hold.key().clone() };
        Ticket::ready(self.state().map(|mut state| drop(state.rows.remove(&place))))
    }

    fn table(&self) -> &Arc<Table> {
        &self.table
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        let from = after.map_or(Unbounded, Excluded);
        let is_listed = |row: &&Row| {
            let is_held = self.table.is_held(row.past.scope, &row.past.key);
            row.record.is_none() && row.expires_at > self.now() && !is_held
        };
        Ticket::ready(self.state().map(|state| {
            let rows = state.rows.range((from, Unbounded)).map(|(_, row)| row).filter(is_listed);
            rows.map(|row| row.past.clone()).take(max).collect()
        }))
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.clock.read().wall
    }

    fn rules(&self) -> Rules {
        Rules { ttl: crate::facts::kit::DAY, max_response_bytes: 64 * 1024 }
    }

    fn check(&self) -> Result<()> {
        if self.state()?.is_closing { Err(Error::stopped()) } else { Ok(()) }
    }

    fn close(&self, within: Duration) -> Ticket<usize> {
        self.state.lock().unwrap().is_closing = true;
        let left = self.table.close(within, &Error::stopped());
        self.state.lock().unwrap().refusal = Some(Error::stopped());
        Ticket::ready(Ok(left))
    }
}

impl Claim {
    fn store(&mut self) -> Result<()> {
        let mut state = self.toy.state()?;
        // The digits of a random request id, of which no two are the same.
        let seed = || *RequestId::random().as_str().as_bytes().last_chunk().expect("they are 32");
        self.row.seed.get_or_insert_with(seed);
        state.rows.insert(self.row.past.cursor(), self.row.clone());
        Ok(())
    }
}

impl backend::Claim for Claim {
    fn past(&self) -> &Past {
        &self.row.past
    }

    fn complete(mut self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record> {
        let record = Record::new(self.row.past.completion(self.row.ttl, response), self.toy.now());
        self.row.expires_at = record.expires_at();
        self.row.record = Some(record.clone());
        let stored = self.store();
        Ticket::ready(self.hold.answer_with(stored.map(|()| record)))
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        let place = self.row.past.cursor();
        Ticket::ready(self.toy.state().map(|mut state| drop(state.rows.remove(&place))))
    }

    fn interrupt(mut self: Box<Self>) -> Ticket<()> {
        let stored = self.store();
        Ticket::ready(self.hold.free_with(stored))
    }

    fn abandon(self: Box<Self>) {
        if self.row.seed.is_none() {
            self.hold.keep();
        }
    }

    fn checkpoint(&mut self, data: Bytes) -> Ticket<()> {
        self.row.past.checkpoints.push(data);
        Ticket::ready(self.store())
    }

    fn retry(mut self: Box<Self>, asked: Asked) -> Ticket<Box<dyn backend::Claim>> {
        self.row.past.request_id = asked.request_id;
        self.row.past.attempt += 1;
        self.row.ttl = asked.ttl;
        self.row.expires_at = self.toy.now() + asked.ttl;
        Ticket::ready(self.store().map(|()| -> Box<dyn backend::Claim> { self }))
    }

    fn seed(&self) -> Option<[u8; 24]> {
        self.row.seed
    }
}
