//! A key that this node has: the verdicts on it.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::backend::{self, Asked, Hold, Past, Ticket};
use refrain::{Error, Record, Result, codec};
use uuid::Uuid;

use crate::backend::{Fleet, Undo, attempt, fingerprint, request_id, unavailable};
use crate::job::Completion;
use crate::link::Parameters;
use crate::session::millis;
use crate::statements::Seen;
use crate::trouble::Trouble;
use crate::verdict::{Completing, Ending, answer_or_free, resolve};

/// A claim under one attempt. Dropped without a verdict, it gives the key up in the background.
pub(crate) struct Claim {
    pub(crate) fleet: Arc<Fleet>,
    /// None once a verdict has the key in its own hands.
    hold: Option<Hold>,
    pub(crate) address: Uuid,
    pub(crate) attempt: Uuid,
    pub(crate) ttl: Duration,
    pub(crate) past: Past,
    /// Set if a transaction of the caller's may have completed the operation.
    pub(crate) has_draft: bool,
    /// Set if that transaction was open when the database was last asked.
    pub(crate) is_open: AtomicBool,
    /// The last answer of the database that was no outcome.
    pub(crate) last_trouble: Mutex<Option<String>>,
}

impl Claim {
    pub(crate) fn first(
        fleet: &Arc<Fleet>,
        asked: &Asked,
        hold: Hold,
        address: Uuid,
        attempt: Uuid,
    ) -> Self {
        Self {
            fleet: Arc::clone(fleet),
            past: Past {
                seed: asked.durable.then(|| fleet.addresses.seed(attempt)),
                ..Past::first(asked, &hold)
            },
            hold: Some(hold),
            address,
            attempt,
            ttl: asked.ttl,
            has_draft: false,
            is_open: AtomicBool::new(false),
            last_trouble: Mutex::default(),
        }
    }

    /// The claim of a run that was interrupted, taken under this attempt.
    pub(crate) fn interrupted(
        fleet: &Arc<Fleet>,
        hold: Hold,
        under: Uuid,
        seen: Seen,
    ) -> Result<Self, Trouble> {
        let (Some(first), Some(ttl_ms)) = (seen.first, seen.ttl_ms) else {
            return Err(Trouble::Damaged("an interrupted run has no beginning"));
        };
        let past = Past {
            scope: hold.scope(),
            key: hold.key().clone(),
            fingerprint: fingerprint(&seen.fingerprint)?,
            request_id: request_id(&seen.request_id)?,
            attempt: attempt(seen.run),
            checkpoints: seen.checkpoints,
            seed: Some(fleet.addresses.seed(first)),
        };
        Ok(Self {
            fleet: Arc::clone(fleet),
            hold: Some(hold),
            address: seen.address,
            attempt: under,
            ttl: Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default()),
            past,
            has_draft: false,
            is_open: AtomicBool::new(false),
            last_trouble: Mutex::default(),
        })
    }

    pub(crate) fn take_hold(&mut self) -> Hold {
        self.hold.take().expect("one verdict ends a claim")
    }

    /// Returns the operation's completion with this response.
    pub(crate) fn completion(&self, response: Option<Response<Bytes>>) -> backend::Completion {
        self.past.completion(self.ttl, response)
    }

    /// Returns a completion in the shape in which it is recorded.
    pub(crate) fn encoded(&self, completion: &backend::Completion) -> Completion {
        Completion {
            address: self.address,
            attempt: self.attempt,
            ttl_ms: millis(self.ttl),
            scope: self.past.scope.as_bytes().to_vec(),
            key: self.past.key.as_str().to_owned(),
            payload: codec::encode(completion),
        }
    }

    /// Stores all checkpoints of the run: an earlier one may not have arrived.
    async fn store_checkpoints(
        fleet: Arc<Fleet>,
        (address, attempt): (Uuid, Uuid),
        checkpoints: Vec<Bytes>,
    ) -> Result<()> {
        let number = checkpoints.len();
        let data: Vec<&[u8]> = checkpoints.iter().map(|data| &data[..]).collect();
        let sql = &fleet.statements.checkpoint;
        let given: Parameters<'_> = &[&address, &attempt, &data];
        let rows = fleet.query(sql, given).await.map_err(unavailable)?;
        if !rows.is_empty() {
            return Ok(());
        }
        // A later one may have been stored meanwhile.
        let seen = fleet.find(address).await.map_err(unavailable)?;
        match seen {
            Some(seen) if seen.attempt == attempt && seen.checkpoints.len() >= number => Ok(()),
            _ => Err(Error::Fenced),
        }
    }

    /// Begins the next attempt, however long that takes. Dropped, it is given up.
    async fn next(mut self: Box<Self>, asked: Asked) -> Result<Box<dyn backend::Claim>> {
        let (old, new, ttl) = (self.attempt, Uuid::now_v7(), millis(asked.ttl));
        let request_id = asked.request_id.as_str();
        let given: Parameters<'_> = &[&self.address, &old, &new, &request_id, &ttl];
        let begun = self.fleet.until_known(&self.fleet.statements.retry, given).await;
        let begun = begun.inspect_err(|_| {
            // It may have begun all the same, and nothing runs under it.
            self.fleet.undo(Undo::GiveUp, self.address, new);
        });
        if begun.map_err(unavailable)?.rows.is_empty() {
            // An earlier try may have begun it.
            let seen = self.fleet.find_until(self.address, None).await.map_err(unavailable)?;
            if seen.is_none_or(|seen| seen.attempt != new) {
                self.hold = None;
                return Err(Error::Fenced);
            }
        }
        self.attempt = new;
        self.ttl = asked.ttl;
        self.past.advance(&asked);
        Ok(self)
    }
}

impl backend::Claim for Claim {
    fn past(&self) -> &Past {
        &self.past
    }

    fn hold(&mut self) -> &mut Hold {
        self.hold.as_mut().expect("one verdict ends a claim")
    }

    fn complete(mut self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record> {
        let hold = self.take_hold();
        if *self.fleet.closing.borrow() {
            return Ticket::ready(hold.answer_with(Err(Error::stopped())));
        }
        if !self.has_draft {
            return Completing::start(self, response, hold);
        }
        let (ticket, promise) = Ticket::new();
        self.fleet.runtime.clone().spawn(async move {
            let recorded = self.recorded(response);
            resolve(recorded, promise, hold, &self, answer_or_free).await;
        });
        ticket
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        self.end(Ending::Release)
    }

    fn interrupt(self: Box<Self>) -> Ticket<()> {
        self.end(Ending::Interrupt)
    }

    fn checkpoint(&mut self, data: Bytes) -> Ticket<()> {
        self.past.checkpoints.push(data);
        let checkpoints = self.past.checkpoints.clone();
        let (ticket, promise) = Ticket::new();
        let fleet = Arc::clone(&self.fleet);
        let stored =
            Self::store_checkpoints(Arc::clone(&fleet), (self.address, self.attempt), checkpoints);
        fleet.runtime.clone().spawn(async move {
            let stored = tokio::time::timeout(fleet.patience, stored).await;
            promise.fulfil(stored.unwrap_or_else(|_| Err(unavailable(Trouble::Slow))));
        });
        ticket
    }

    fn retry(self: Box<Self>, asked: Asked) -> Ticket<Box<dyn backend::Claim>> {
        let (ticket, promise) = Ticket::new();
        let (runtime, patience) = (self.fleet.runtime.clone(), self.fleet.patience);
        runtime.spawn(async move {
            let mut next = std::pin::pin!(self.next(asked));
            match tokio::time::timeout(patience, &mut next).await {
                Ok(next) => promise.fulfil(next),
                Err(_) => {
                    promise.fulfil(Err(unavailable(Trouble::Slow)));
                    // Given up only once it is known under which attempt.
                    drop(next.await);
                }
            }
        });
        ticket
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let is_durable = self.past.seed.is_some();
        if hold.is_retained() && !is_durable {
            // The row stays claimed too, for as long as this process's session lives.
            return;
        }
        let undo = if is_durable { Undo::GiveUp } else { Undo::Release };
        let (fleet, address, attempt) = (Arc::clone(&self.fleet), self.address, self.attempt);
        self.fleet.runtime.spawn(async move {
            // The next in line asks the database, whatever came of this.
            fleet.undo_now(undo, address, attempt).await;
            hold.free();
        });
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("request_id", &self.past.request_id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
