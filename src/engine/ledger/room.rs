//! The room in a store's logs, and the decision about each key that asks for some.
//!
//! | the obstacle | a new key |
//! | --- | --- |
//! | the writer or sealing is behind, or a next log, or a larger one, is about to be prepared | waits |
//! | the disk is full | is refused: [`Error::Full`] |
//! | another error keeps a log from being prepared or sealed | is refused: [`Error::Unavailable`] |
//! | other operations have reserved all of a log | is refused: [`Error::Limit`] |
//!
//! Invariant: a key waits only for the store's own work, so that no wait depends on another caller.

use std::sync::Arc;

use crate::error::{Error, Limit};
use crate::key::Scope;
use crate::stats::Refusing;
use crate::ticket::Slot;

use super::admission::{Granted, Queue, Wakers};
use super::backlog::{Backlog, Queued};

/// The room, under the mutex of its [`Space`](super::Space).
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes that reservations have taken.
    pub(super) reserved: u64,
    /// The most bytes of the open claims in a new log.
    pub(super) carried: u64,
    /// Bytes left in the active log, less those of a batch that is being written.
    pub(super) active: u64,
    /// The space of the next log, while one is prepared.
    pub(super) next: Option<Next>,
    pub(super) backlog: Backlog,
    pub(super) queue: Queue,
    pub(super) counts: Counts,
    /// The error that kept the next log, or a larger one, from being prepared, the last time.
    pub(super) preparing: Option<Error>,
    /// The error that kept a log from being sealed, the last time.
    pub(super) sealing: Option<Error>,
    /// Set once no key is admitted any more.
    pub(super) stopped: Option<Error>,
}

/// The space of the next log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// The bytes for open claims and reservations.
    pub(super) usable: u64,
    /// The most usable bytes of a log that takes its place, unless the open claims need more.
    pub(super) ceiling: u64,
    /// The bytes that it may have beside twice those of the open claims.
    pub(super) spare: u64,
}

/// The numbers of keys, since the store was opened, that did not find room at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Those that waited.
    pub(crate) waited: u64,
    /// Those that were refused, at once or while they waited, or gave up.
    pub(crate) refused: u64,
}

/// The answer to a key that asks for room.
pub(super) enum Decision {
    Grant,
    Wait,
    Refuse(Refusal),
}

/// The reason for which a key neither gets room nor waits for it.
pub(super) enum Refusal {
    Stopped(Error),
    /// The work that would make room does not succeed.
    Trouble(Error),
    /// Other operations have reserved all of so many bytes.
    Reserved(u64),
}

impl Room {
    /// The room of a store that opens with as many bytes in frozen logs. None is available yet.
    pub(super) fn new(log_bytes: u64, frozen: u64) -> Self {
        Self {
            reserved: 0,
            carried: 0,
            active: 0,
            next: None,
            backlog: Backlog::new(log_bytes, frozen),
            queue: Queue::default(),
            counts: Counts::default(),
            preparing: None,
            sealing: None,
            stopped: None,
        }
    }

    /// Returns the bytes that a new log needs for the open claims and for what is reserved.
    pub(super) fn needed(&self) -> u64 {
        self.carried + self.reserved
    }

    /// Returns the bytes that reservations may take altogether.
    fn available(&self) -> u64 {
        self.next.map_or(self.active, |next| next.usable.saturating_sub(self.carried))
    }

    /// Returns true if no next log is prepared, and no error is known to be in the way.
    pub(super) fn lacks_next(&self) -> bool {
        self.next.is_none() && self.preparing.is_none()
    }

    /// Returns true if a larger log may take the place of the next one.
    pub(super) fn may_replace(&self, next: Next) -> bool {
        next.usable < next.ceiling.max(2 * self.carried + next.spare)
    }

    /// Returns true if so many bytes are left for reservations.
    pub(super) fn has_space(&self, bytes: u64) -> bool {
        self.reserved + bytes <= self.available()
    }

    /// Decides about a new key that asks for so many bytes.
    pub(super) fn decide(&self, bytes: u64, queued: &Queued) -> Decision {
        if let Some(error) = &self.stopped {
            return Decision::Refuse(Refusal::Stopped(error.clone()));
        }
        if !self.has_space(bytes) {
            return self.decide_without_space(bytes, queued);
        }
        if !self.backlog.is_behind(queued, self.reserved + bytes) {
            return Decision::Grant;
        }
        match &self.sealing {
            Some(trouble) => Decision::Refuse(Refusal::Trouble(trouble.clone())),
            None => Decision::Wait,
        }
    }

    /// Decides about a key for which there is too little space.
    pub(super) fn decide_without_space(&self, bytes: u64, queued: &Queued) -> Decision {
        if let Some(trouble) = &self.preparing {
            return Decision::Refuse(Refusal::Trouble(trouble.clone()));
        }
        // The writer gives back the room of the entries that are queued.
        let in_use = self.reserved.saturating_sub(queued.reserved());
        let is_full = in_use + bytes > self.available();
        match self.next {
            Some(next) if is_full && !self.may_replace(next) => {
                Decision::Refuse(Refusal::Reserved(self.available()))
            }
            _ => Decision::Wait,
        }
    }

    /// Returns true if a new key gets so many bytes at once: those who wait have asked before.
    pub(super) fn is_free(&self, bytes: u64, queued: &Queued) -> bool {
        self.queue.is_empty()
            && self.stopped.is_none()
            && self.has_space(bytes)
            && !self.backlog.is_behind(queued, self.reserved + bytes)
    }

    /// Queues a new key of a scope for so many bytes, which are not free, and returns the slot for
    /// the answer.
    ///
    /// # Errors
    ///
    /// The reason for which waiting brings no room.
    pub(super) fn join(
        &mut self,
        scope: Scope,
        bytes: u64,
        queued: &Queued,
    ) -> Result<Arc<Slot<Granted>>, Error> {
        if let Decision::Refuse(refusal) = self.decide(bytes, queued) {
            self.counts.refused += 1;
            return Err(refusal.into());
        }
        self.counts.waited += 1;
        Ok(self.queue.push(scope, bytes))
    }

    /// Answers those who wait, in their order, until one has to go on waiting.
    pub(super) fn serve(&mut self, queued: &Queued) -> Wakers {
        let mut wakers = Wakers::default();
        while let Some(bytes) = self.queue.next() {
            let answer = match self.decide(bytes, queued) {
                Decision::Wait => break,
                Decision::Grant => {
                    self.reserved += bytes;
                    Ok(())
                }
                Decision::Refuse(refusal) => {
                    self.counts.refused += 1;
                    Err(refusal.into())
                }
            };
            self.queue.serve(answer, &mut wakers);
        }
        wakers
    }

    /// Returns the reason for which a new key would be refused or held up, if it would.
    pub(super) fn refusing(&self, bytes: u64, queued: &Queued) -> Option<Refusing> {
        if self.is_free(bytes, queued) {
            return None;
        }
        match self.decide(bytes, queued) {
            Decision::Grant | Decision::Wait => Some(Refusing::Behind),
            // A store that is closed or has failed says so in other ways.
            Decision::Refuse(Refusal::Stopped(_)) => None,
            Decision::Refuse(Refusal::Reserved(_)) => Some(Refusing::Reserved),
            Decision::Refuse(Refusal::Trouble(trouble)) if trouble.is_full() => {
                Some(Refusing::Full)
            }
            Decision::Refuse(Refusal::Trouble(_)) => Some(Refusing::Unavailable),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Stopped(error) => error,
            Refusal::Trouble(trouble) if trouble.is_full() => Self::Full,
            Refusal::Trouble(trouble) => Self::unavailable(trouble),
            Refusal::Reserved(max) => Self::Limit { limit: Limit::ReservedBytes, max },
        }
    }
}
