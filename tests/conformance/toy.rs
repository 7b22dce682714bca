//! A backend as a stranger would write it: a map behind a mutex, which never waits.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use refrain::backend::{self, Answer, Asked, Backend, Cursor, Granted, Hold, Past, Ticket};
use refrain::clock::{Clock, SimulatedClock};
use refrain::{Error, Key, Record, Result, Scope};

/// A handle to the rows. Toys with the same rows are like nodes with the same database.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    pub(crate) clock: SimulatedClock,
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    rows: BTreeMap<Cursor, Row>,
    /// The error of every call, once the toy is closed or its house says so.
    pub(crate) refusal: Option<Error>,
}

/// The latest run for a key, which is open or interrupted until there is a record.
#[derive(Clone, Debug)]
struct Row {
    past: Past,
    ttl: Duration,
    expires_at: SystemTime,
    record: Option<Record>,
}

/// A claim is volatile, and its row is not in the map, until its run has a seed.
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

    fn store(&self, row: &mut Row) -> Result<()> {
        row.past.ensure_seed();
        self.state()?.rows.insert(row.past.cursor(), row.clone());
        Ok(())
    }

    fn answer(&self, asked: &Asked, hold: Hold) -> Result<Answer> {
        let toy = self.clone();
        match self.row(hold.scope(), hold.key())? {
            Some(Row { record: Some(record), .. }) => Ok(Answer::recorded(record, hold)),
            Some(row) => Ok(Answer::Interrupted(Box::new(Claim { toy, hold, row }))),
            None => {
                let (past, ttl) = (Past::first(asked, &hold), asked.ttl);
                let mut row = Row { past, ttl, expires_at: self.now() + ttl, record: None };
                if asked.durable {
                    self.store(&mut row)?;
                }
                Ok(Answer::Claimed(Granted::new(Box::new(Claim { toy, hold, row }))))
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
        Ticket::ready(self.state().map(|mut state| drop(state.rows.remove(&hold.cursor()))))
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        let from = after.map_or(Unbounded, Excluded);
        let is_open = |row: &&Row| row.record.is_none() && row.expires_at > self.now();
        Ticket::ready(self.state().map(|state| {
            let rows = state.rows.range((from, Unbounded)).map(|(_, row)| row).filter(is_open);
            rows.map(|row| row.past.clone()).take(max).collect()
        }))
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.clock.read().wall
    }

    fn close(&self) -> Ticket<()> {
        self.state.lock().unwrap().refusal = Some(Error::stopped());
        Ticket::ready(Ok(()))
    }
}

impl backend::Claim for Claim {
    fn past(&self) -> &Past {
        &self.row.past
    }

    fn hold(&mut self) -> &mut Hold {
        &mut self.hold
    }

    fn complete(mut self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record> {
        let record = Record::new(self.row.past.completion(self.row.ttl, response), self.toy.now());
        self.row.expires_at = record.expires_at();
        self.row.record = Some(record.clone());
        let stored = self.toy.store(&mut self.row);
        Ticket::ready(self.hold.answer_with(stored.map(|()| record)))
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        let freed = self.toy.state().map(|mut state| drop(state.rows.remove(&self.hold.cursor())));
        Ticket::ready(self.hold.free_with(freed))
    }

    fn interrupt(mut self: Box<Self>) -> Ticket<()> {
        let stored = self.toy.store(&mut self.row);
        Ticket::ready(self.hold.free_with(stored))
    }

    fn checkpoint(&mut self, data: Bytes) -> Ticket<()> {
        self.row.past.checkpoints.push(data);
        Ticket::ready(self.toy.store(&mut self.row))
    }

    fn retry(mut self: Box<Self>, asked: Asked) -> Ticket<Box<dyn backend::Claim>> {
        self.row.past.advance(&asked);
        self.row.ttl = asked.ttl;
        self.row.expires_at = self.toy.now() + asked.ttl;
        Ticket::ready(self.toy.store(&mut self.row).map(|()| -> Box<dyn backend::Claim> { self }))
    }
}
