//! A backend as a stranger would write it: a map behind a mutex, which never waits.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use refrain::backend::{
    self, Answer, Asked, Backend, Completion, Cursor, Granted, Hold, Past, Rules, Table, Ticket,
};
use refrain::clock::{Clock, SimulatedClock};
use refrain::{Error, Key, Record, Result, Scope, Stats};

#[derive(Clone, Debug)]
pub(crate) struct Toy(Arc<(Arc<Table>, SimulatedClock, Mutex<State>)>);

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<Cursor, Row>,
    claims: u64,
    is_closed: bool,
}

#[derive(Clone, Debug)]
enum Row {
    Open { past: Past, ttl: Duration, expires_at: SystemTime, seed: [u8; 24] },
    Done(Record),
}

/// A durable claim has a row and a seed, a volatile one has neither.
#[derive(Debug)]
pub(crate) struct Claim(Toy, Hold, Past, Duration, Option<[u8; 24]>);

impl Toy {
    pub(crate) fn new(table: &Arc<Table>, clock: &SimulatedClock) -> Self {
        Self(Arc::new((Arc::clone(table), clock.clone(), Mutex::default())))
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.1.read().wall
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.0.2.lock().unwrap();
        if state.is_closed { Err(Error::stopped()) } else { Ok(state) }
    }

    fn row(&self, scope: Scope, key: &Key) -> Result<Option<Row>> {
        let row = self.state()?.rows.get(&Cursor { scope, key: key.clone() }).cloned();
        Ok(row.filter(|row| match row {
            Row::Open { expires_at, .. } => *expires_at > self.now(),
            Row::Done(record) => self.is_live(record),
        }))
    }

    fn grant(&self, asked: Asked, hold: Hold) -> Result<Answer> {
        let (scope, key) = (hold.scope(), hold.key().clone());
        let Asked { fingerprint, request_id, ttl, durable, .. } = asked;
        let past = Past { scope, key, fingerprint, request_id, attempt: 1, checkpoints: vec![] };
        let mut claim = Claim(self.clone(), hold, past, ttl, None);
        if durable {
            claim.store()?;
        }
        Ok(Answer::Claimed(Granted::new(Box::new(claim))))
    }

    fn answer(&self, asked: Asked, hold: Hold) -> Result<Answer> {
        Ok(match self.row(hold.scope(), hold.key())? {
            None => self.grant(asked, hold)?,
            Some(Row::Done(record)) => {
                hold.answer(&record);
                Answer::Recorded(record)
            }
            Some(Row::Open { past, ttl, seed, .. }) => {
                Answer::Interrupted(Box::new(Claim(self.clone(), hold, past, ttl, Some(seed))))
            }
        })
    }
}

impl Backend for Toy {
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        Ticket::ready(self.answer(asked, hold))
    }

    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        Ticket::ready(self.row(scope, key).map(|row| match row {
            Some(Row::Done(record)) => Some(record),
            _ => None,
        }))
    }

    fn forget(&self, hold: Hold) -> Ticket<()> {
        let place = Cursor { scope: hold.scope(), key: hold.key().clone() };
        Ticket::ready(self.state().map(|mut state| drop(state.rows.remove(&place))))
    }

    fn table(&self) -> &Arc<Table> {
        &self.0.0
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ticket::ready(self.state().map(|state| {
            let open = |(_, row): (_, &Row)| match row {
                Row::Open { past, expires_at, .. } => (*expires_at > self.now()
                    && !self.0.0.is_held(past.scope, &past.key))
                .then(|| past.clone()),
                Row::Done(_) => None,
            };
            state.rows.range((from, Bound::Unbounded)).filter_map(open).take(max).collect()
        }))
    }

    fn is_live(&self, record: &Record) -> bool {
        record.expires_at() > self.now()
    }

    fn rules(&self) -> Rules {
        Rules { ttl: crate::kit::DAY, max_response_bytes: 64 * 1024 }
    }

    fn check(&self) -> Result<()> {
        self.state().map(drop)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn close(&self, within: Duration) -> Ticket<usize> {
        let left = self.0.0.close(within, &Error::stopped());
        self.0.2.lock().unwrap().is_closed = true;
        Ticket::ready(Ok(left))
    }
}

impl Claim {
    fn store(&mut self) -> Result<()> {
        let Self(toy, _, past, ttl, seed) = self;
        let mut state = toy.state()?;
        state.claims += 1;
        let mut new = [0; 24];
        new[..8].copy_from_slice(&state.claims.to_le_bytes());
        let seed = *seed.get_or_insert(new);
        let expires_at = toy.now() + *ttl;
        let row = Row::Open { past: past.clone(), ttl: *ttl, expires_at, seed };
        state.rows.insert(past.cursor(), row);
        Ok(())
    }

    fn record(self, response: Option<Response<Bytes>>) -> Result<Record> {
        let Self(toy, hold, past, ttl, _) = self;
        let Past { fingerprint, ref request_id, .. } = past;
        let completion = Completion { fingerprint, request_id: request_id.clone(), ttl, response };
        let record = Record::new(completion, toy.now());
        toy.state()?.rows.insert(past.cursor(), Row::Done(record.clone()));
        hold.answer(&record);
        Ok(record)
    }
}

impl backend::Claim for Claim {
    fn past(&self) -> &Past {
        &self.2
    }

    fn complete(self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record> {
        Ticket::ready(self.record(response))
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        Ticket::ready(self.0.state().map(|mut state| drop(state.rows.remove(&self.2.cursor()))))
    }

    fn interrupt(mut self: Box<Self>) -> Ticket<()> {
        Ticket::ready(if self.4.is_none() { self.store() } else { Ok(()) })
    }

    fn abandon(self: Box<Self>) {
        if self.4.is_none() {
            self.1.keep();
        }
    }

    fn checkpoint(&mut self, data: Bytes) -> Ticket<()> {
        if self.4.is_none() {
            return Ticket::ready(Err(Error::Volatile));
        }
        self.2.checkpoints.push(data);
        Ticket::ready(self.store())
    }

    fn retry(mut self: Box<Self>, asked: Asked) -> Ticket<Box<dyn backend::Claim>> {
        self.2.request_id = asked.request_id;
        self.2.attempt += 1;
        self.3 = asked.ttl;
        let stored = self.store();
        Ticket::ready(stored.map(|()| -> Box<dyn backend::Claim> { self }))
    }

    fn seed(&self) -> Option<[u8; 24]> {
        self.4
    }
}
