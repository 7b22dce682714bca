//! Space in allocated blocks: a key is admitted only while its verdict is sure to fit.
//!
//! A new key may wait for room; a verdict never does, because its room is reserved.
//!
//! Invariants:
//! - A reserved page is enough for any completion without a body, even in a batch of its own.
//! - All reservations fit in the next log while one is prepared, behind the open claims that it
//!   begins with, and otherwise in the rest of the active log. Bodies are stored only in space that
//!   is not reserved.
//! - A claim becomes one that is carried before its own reservation is given back.
//! - Every change that may let a key in answers those who wait, most of them through
//!   [`Space::change`]. So no wake-up is lost.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::engine::entry::MAX_BARE_ENTRY_BYTES;
use crate::engine::log::{BatchBuilder, Frame, PAGE, PAGE_BYTES};
use crate::error::{Error, Result};
use crate::key::Scope;
use crate::stats::Refusing;
use crate::sync::Mutex;
use crate::ticket::Slot;

use super::admission::{Granted, Wakers};
use super::backlog::Queued;
use super::room::{Counts, Decision, Next, Room};

const _: () =
    assert!(BatchBuilder::OVERHEAD + Frame::OVERHEAD + MAX_BARE_ENTRY_BYTES <= PAGE_BYTES);

/// The most pages that a new key needs: for its durable claim, and for its verdict.
pub(crate) const MAX_KEY_PAGES: u64 = 2;

/// The space of a store's logs, shared by the writer, the reaper and all reservations.
#[derive(Debug)]
pub(crate) struct Space {
    room: Mutex<Room>,
    queued: Queued,
}

/// Pages that are reserved for an entry, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
    /// The bytes of the entry, once it is queued for the writer.
    queued: u64,
}

/// The room for a new key, or a place in the queue for it.
#[derive(Debug)]
pub(crate) enum Admission {
    Granted(Reservation),
    Queued(Box<Turn>),
}

/// A place in the queue for room. Dropping it gives it up, and gives back room that had been
/// granted.
#[derive(Debug)]
pub(crate) struct Turn {
    space: Arc<Space>,
    scope: Scope,
    bytes: u64,
    slot: Arc<Slot<Granted>>,
    is_over: bool,
}

impl Space {
    /// The space of a store that opens with as many bytes in frozen logs.
    pub(super) fn new(log_bytes: u64, frozen: u64) -> Self {
        Self { room: Mutex::new(Room::new(log_bytes, frozen)), queued: Queued::default() }
    }

    /// Reserves so many pages for a new key of a scope, or queues for them.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Unavailable`] or [`Error::Limit`] if waiting brings no room, and
    /// the error that the space was stopped with.
    pub(crate) fn admit(self: &Arc<Self>, scope: Scope, pages: u64) -> Result<Admission> {
        let bytes = pages * PAGE;
        let mut room = self.room.lock();
        if room.is_free(bytes, &self.queued) {
            room.reserved += bytes;
            drop(room);
            return Ok(Admission::Granted(Reservation::new(Arc::clone(self), bytes)));
        }
        let slot = room.join(scope, bytes, &self.queued)?;
        drop(room);
        let space = Arc::clone(self);
        Ok(Admission::Queued(Box::new(Turn { space, scope, bytes, slot, is_over: false })))
    }

    /// Reserves a page for an entry of an operation that was admitted before, and further pages for
    /// `content` bytes. It does not wait, and a backlog does not keep it out.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Unavailable`], [`Error::Limit`] or [`Error::Behind`] if there is
    /// too little space.
    pub(crate) fn reserve(self: &Arc<Self>, content: u64) -> Result<Reservation> {
        let bytes = PAGE + content.next_multiple_of(PAGE);
        let mut room = self.room.lock();
        if !room.has_space(bytes) {
            return Err(match room.decide_without_space(bytes, &self.queued) {
                Decision::Refuse(refusal) => refusal.into(),
                Decision::Grant | Decision::Wait => Error::Behind,
            });
        }
        room.reserved += bytes;
        Ok(Reservation::new(Arc::clone(self), bytes))
    }

    /// Sets the most bytes of a log, in which the bytes that are not sealed are measured.
    pub(super) fn set_log_bytes(&self, log_bytes: u64) {
        self.change(|room| room.backlog.set_log_bytes(log_bytes)).wake();
    }

    /// Returns the most bytes of a log, as the backlog measures it.
    pub(super) fn log_bytes(&self) -> u64 {
        self.room.lock().backlog.log_bytes()
    }

    /// Updates the active log, with the bytes that are in it and those that are left.
    pub(super) fn measure(&self, written: u64, left: u64) -> Wakers {
        self.change(|room| {
            room.active = left;
            room.backlog.set_written(written);
        })
    }

    /// Makes the space of the next log available, once it is prepared. Returns `None`, and leaves
    /// all as it was, if it is too small for what is carried and reserved by now.
    pub(super) fn offer(&self, next: Next) -> Option<Wakers> {
        let mut room = self.room.lock();
        if room.needed() > next.usable {
            return None;
        }
        room.next = Some(next);
        room.preparing = None;
        Some(room.serve(&self.queued))
    }

    /// Makes the next log, with so many usable bytes, the active one.
    pub(super) fn take_next(&self, usable: u64) {
        let mut room = self.room.lock();
        room.active = usable.saturating_sub(room.carried);
        room.next = None;
    }

    /// Answers those who wait for a next log, or for a larger one: none could be prepared.
    pub(super) fn fall_back(&self, trouble: Error) {
        self.change(|room| room.preparing = Some(trouble)).wake();
    }

    /// Answers those who wait, as far as there is room.
    pub(super) fn serve(&self) -> Wakers {
        self.change(|_| ())
    }

    /// Sets the most bytes of the open claims in a new log.
    pub(super) fn set_carried(&self, bytes: u64) {
        self.room.lock().carried = bytes;
    }

    /// Returns the bytes of the open claims in a new log, and those that it needs altogether: for
    /// them, for what is reserved, and for those who wait.
    pub(super) fn demand(&self) -> (u64, u64) {
        let room = self.room.lock();
        (room.carried, room.needed() + room.queue.bytes())
    }

    /// Returns true if a next log, or a larger one, would make room for all who wait, and for so many
    /// bytes more.
    pub(crate) fn is_short(&self, bytes: u64) -> bool {
        let room = self.room.lock();
        let may_prepare = room.next.map_or(room.preparing.is_none(), |next| room.may_replace(next));
        may_prepare && !room.has_space(room.queue.bytes() + bytes)
    }

    /// Returns true if a next log is prepared that has room for all who wait, and for so many bytes
    /// more.
    pub(super) fn is_prepared(&self, bytes: u64) -> bool {
        let room = self.room.lock();
        let is_trouble_over = room.preparing.is_none();
        room.next.is_some() && is_trouble_over && room.has_space(room.queue.bytes() + bytes)
    }

    /// Returns true if a next log is prepared.
    pub(crate) fn has_next(&self) -> bool {
        self.room.lock().next.is_some()
    }

    /// Returns true if no next log is prepared, and no error is known to be in the way.
    pub(crate) fn lacks_next(&self) -> bool {
        self.room.lock().lacks_next()
    }

    /// Returns true if no log, or no larger one, could be prepared.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.room.lock().preparing.is_some()
    }

    /// Counts the active log, of so many bytes, as frozen.
    pub(super) fn freeze(&self, bytes: u64) {
        self.change(|room| room.backlog.freeze(bytes)).wake();
    }

    /// Counts further bytes of frozen logs as sealed, for the time being.
    pub(super) fn advance(&self, bytes: u64) {
        self.change(|room| room.backlog.advance(bytes)).wake();
    }

    /// Counts logs of so many bytes as sealed for good, or none of them, because of this error.
    pub(super) fn finish(&self, sealed: Result<u64>) {
        self.change(|room| {
            room.backlog.finish(*sealed.as_ref().unwrap_or(&0));
            room.sealing = sealed.err();
        })
        .wake();
    }

    /// Admits no more keys, and answers those that wait with `error`.
    pub(crate) fn stop(&self, error: &Error) {
        self.change(|room| {
            room.stopped.get_or_insert_with(|| error.clone());
        })
        .wake();
    }

    /// Returns the bytes of frozen logs that are not sealed.
    pub(super) fn frozen(&self) -> u64 {
        self.room.lock().backlog.frozen()
    }

    /// Returns the numbers of keys that did not find room at once, and the reason for which the next
    /// one would not find any, if so: one that needs the most.
    pub(crate) fn figures(&self) -> (Counts, Option<Refusing>) {
        let room = self.room.lock();
        (room.counts, room.refusing(MAX_KEY_PAGES * PAGE, &self.queued))
    }

    /// Takes space for a batch out of the `left` bytes of the active log. `fit` gets the bytes not
    /// reserved by others and returns how many the batch uses, or `None` if it is not to be written
    /// there; `own` are the batch's reservations. Returns whether the space was taken.
    ///
    /// The bytes count as used from then on, though they are not written yet.
    pub(crate) fn take(&self, left: u64, own: u64, fit: impl FnOnce(u64) -> Option<u64>) -> bool {
        let mut room = self.room.lock();
        let others = room.reserved.saturating_sub(own);
        let Some(taken) = fit(left.saturating_sub(others)) else { return false };
        room.active = left.saturating_sub(taken.next_multiple_of(PAGE));
        true
    }

    /// Gives up a place in the queue, and returns the answer that had arrived.
    fn leave(&self, scope: Scope, slot: &Arc<Slot<Granted>>) -> Option<Granted> {
        let mut answer = None;
        self.change(|room| {
            answer = room.queue.leave(scope, slot);
            room.counts.refused += u64::from(answer.is_none());
        })
        .wake();
        answer
    }

    /// Changes the room, and answers those who wait as far as the change allows.
    fn change(&self, change: impl FnOnce(&mut Room)) -> Wakers {
        let mut room = self.room.lock();
        change(&mut room);
        room.serve(&self.queued)
    }
}

impl Reservation {
    /// Bytes that are counted as reserved already.
    fn new(space: Arc<Space>, bytes: u64) -> Self {
        Self { space, bytes, queued: 0 }
    }

    /// Returns the bytes that are reserved.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a page out of this reservation, which has more than one.
    pub(crate) fn split(&mut self) -> Self {
        debug_assert!(self.bytes > PAGE && self.queued == 0, "there is a page to spare");
        self.bytes -= PAGE;
        Self::new(Arc::clone(&self.space), PAGE)
    }

    /// Counts the entry, of so many bytes, as queued for the writer.
    pub(crate) fn queue(&mut self, bytes: u64) {
        self.queued = bytes;
        self.space.queued.add(self.queued, self.bytes);
    }

    /// Gives the room back, before the reservation is dropped.
    pub(crate) fn give_back(&mut self) {
        let (bytes, queued) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.queued));
        if queued > 0 {
            self.space.queued.remove(queued, bytes);
        }
        if bytes == 0 {
            return;
        }
        let mut room = self.space.room.lock();
        room.reserved -= bytes;
        if !room.queue.is_empty() {
            let wakers = room.serve(&self.space.queued);
            drop(room);
            wakers.wake();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Turn {
    /// Returns the room once it is granted.
    ///
    /// # Errors
    ///
    /// Those of [`Space::admit`], once waiting brings no room any more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reservation>> {
        self.slot.poll(cx).map(|answer| self.accept(answer))
    }

    fn accept(&mut self, answer: Granted) -> Result<Reservation> {
        self.is_over = true;
        answer.map(|()| Reservation::new(Arc::clone(&self.space), self.bytes))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            let answer = self.space.leave(self.scope, &self.slot);
            drop(answer.map(|answer| self.accept(answer)));
        }
    }
}

#[cfg(all(test, shuttle))]
mod schedules;
#[cfg(test)]
mod tests;
