//! A toy as one node of several. The house plays the other nodes, and the network.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use refrain::backend::{Answer, Asked, Backend, Cursor, Hold, Limits, Past, Promise, Ticket};
use refrain::{Error, Key, Operation, Record, RequestId, Scope, Store};

use crate::OnToy;
use crate::facts::kit::*;
use crate::facts::{House, Shared};
use crate::toy::Toy;

pub(crate) struct OnNodes {
    rows: OnToy,
    others: Arc<Others>,
    /// Another node's store over the same rows.
    other: OnceCell<Store>,
}

/// The keys that other nodes run, and those here who want to know when that changes.
#[derive(Debug, Default)]
struct Others {
    running: Mutex<BTreeMap<Cursor, RequestId>>,
    watching: Mutex<Vec<Promise<()>>>,
}

#[derive(Debug)]
struct Node {
    toy: Toy,
    others: Arc<Others>,
}

impl House for OnNodes {
    fn new() -> Self {
        Self { rows: OnToy::new(), others: Arc::default(), other: OnceCell::new() }
    }

    fn open_within(&self, limits: Limits) -> Store {
        Store::new(Node { toy: self.rows.toy(), others: Arc::clone(&self.others) }, limits)
    }

    fn pass_time(&self, by: Duration) {
        self.rows.pass_time(by);
    }
}

impl OnNodes {
    fn other(&self) -> &Store {
        self.other.get_or_init(|| self.rows.open())
    }

    fn refuse(&self, error: Option<Error>) {
        self.rows.state.lock().unwrap().lock().unwrap().refusal = error;
    }
}

impl Shared for OnNodes {
    fn run_elsewhere(&self, operation: &Operation) {
        let request_id = format!("req_{}", operation.key().as_str()).parse().unwrap();
        self.others.running.lock().unwrap().insert(place(operation), request_id);
    }

    fn complete_elsewhere(&self, operation: &Operation, response: &Response<Bytes>) {
        execute(self.other(), operation).complete(response).wait().unwrap();
        self.others.running.lock().unwrap().remove(&place(operation));
        for promise in self.others.watching.lock().unwrap().drain(..) {
            promise.fulfil(Ok(()));
        }
    }

    fn take_over(&self, operation: &Operation, response: &Response<Bytes>) {
        interrupted(self.other(), operation).complete(response).wait().unwrap();
        self.refuse(Some(Error::Fenced));
    }

    fn cut_off(&self) {
        self.refuse(Some(Error::unavailable("the network is down")));
    }

    fn reconnect(&self) {
        self.refuse(None);
    }
}

fn place(operation: &Operation) -> Cursor {
    Cursor { scope: operation.scope(), key: operation.key().clone() }
}

impl Backend for Node {
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        let place = hold.cursor();
        let Some(holder) = self.others.running.lock().unwrap().get(&place).cloned() else {
            return self.toy.claim(asked, hold);
        };
        let (changed, promise) = Ticket::new();
        self.others.watching.lock().unwrap().push(promise);
        Ticket::ready(Ok(Answer::Elsewhere { holder, hold, changed }))
    }

    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        self.toy.find(scope, key)
    }

    fn forget(&self, hold: Hold) -> Ticket<()> {
        self.toy.forget(hold)
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        self.toy.interrupted(after, max)
    }

    fn now(&self) -> SystemTime {
        self.toy.now()
    }

    fn close(&self) -> Ticket<()> {
        self.toy.close()
    }
}
