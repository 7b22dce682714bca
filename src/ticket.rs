//! A place in the next commit: a value that one thread owes another.
//!
//! A [`Ticket`] is a future, and has [`wait`](Ticket::wait) for threads without a runtime; both are
//! the same poll. [`Slot`] is the cell behind it, filled once and closed at most once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::error::Result;
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, now, thread_local};

/// The outcome of a commit that is under way.
///
/// Await it in a task, or [`wait`](Self::wait) for it on a thread. Dropping it does not undo the
/// commit; it only forgets to look.
#[must_use = "the commit is durable only once its ticket says so"]
#[derive(Debug)]
pub struct Ticket<T>(Arc<Slot<Result<T>>>);

impl<T> Ticket<T> {
    /// A ticket, and the slot that settles it.
    pub(crate) fn new() -> (Self, Arc<Slot<Result<T>>>) {
        let slot = Arc::new(Slot::new());
        (Self(Arc::clone(&slot)), slot)
    }

    /// A ticket that is settled already.
    pub(crate) fn ready(outcome: Result<T>) -> Self {
        Self(Arc::new(Slot(Mutex::new(State::Filled(outcome)))))
    }

    /// Blocks this thread until the outcome is known.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`](crate::Error::Stopped) if the store stopped; whether the commit took
    /// effect is then unknown until a new process opens the store.
    pub fn wait(self) -> Result<T> {
        block_on(self)
    }

    /// Blocks this thread until the outcome is known, or gives the ticket back after `timeout`.
    ///
    /// # Errors
    ///
    /// The ticket itself, if time ran out; the commit goes on.
    pub fn wait_timeout(mut self, timeout: Duration) -> std::result::Result<Result<T>, Self> {
        block_on_timeout(&mut self, timeout).ok_or(self)
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.poll(cx)
    }
}

/// A cell for one value, with at most one party waiting for it.
#[derive(Debug)]
pub(crate) struct Slot<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Empty,
    Awaited(Waker),
    Filled(T),
    /// Taken, or given up.
    Closed,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Empty))
    }

    /// Puts the value in, and returns whom to wake for it.
    ///
    /// # Errors
    ///
    /// The value itself, if nobody will take it.
    pub(crate) fn fill(&self, value: T) -> std::result::Result<Option<Waker>, T> {
        let mut state = self.0.lock();
        match &*state {
            State::Closed => Err(value),
            State::Filled(_) => unreachable!("a slot is filled once"),
            State::Empty | State::Awaited(_) => {
                match std::mem::replace(&mut *state, State::Filled(value)) {
                    State::Awaited(waker) => Ok(Some(waker)),
                    _ => Ok(None),
                }
            }
        }
    }

    /// Takes the value, or leaves word to be woken for it.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Empty => *state = State::Awaited(cx.waker().clone()),
            State::Awaited(waker) => waker.clone_from(cx.waker()),
            State::Filled(_) => {
                if let State::Filled(value) = std::mem::replace(&mut *state, State::Closed) {
                    return Poll::Ready(value);
                }
            }
            State::Closed => panic!("polled after the outcome was taken"),
        }
        Poll::Pending
    }

    /// Declines the value, and takes it if it is there already.
    pub(crate) fn close(&self) -> Option<T> {
        match std::mem::replace(&mut *self.0.lock(), State::Closed) {
            State::Filled(value) => Some(value),
            _ => None,
        }
    }
}

/// Polls a future on this thread until it is ready.
pub(crate) fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    with_parker(|cx| {
        loop {
            if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
                return output;
            }
            thread::park();
        }
    })
}

/// Polls a future on this thread until it is ready or `timeout` is over.
pub(crate) fn block_on_timeout<F: Future + Unpin>(
    future: &mut F,
    timeout: Duration,
) -> Option<F::Output> {
    let Some(deadline) = now().checked_add(timeout) else { return Some(block_on(future)) };
    with_parker(|cx| {
        loop {
            if let Poll::Ready(output) = Pin::new(&mut *future).poll(cx) {
                return Some(output);
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    })
}

/// Tries something again and again until it gives a result or `timeout` is over.
pub(crate) fn poll_until<T>(
    timeout: Duration,
    every: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    let start = now();
    loop {
        let outcome = attempt();
        let left = timeout.saturating_sub(now().saturating_duration_since(start));
        if outcome.is_some() || left.is_zero() {
            return outcome;
        }
        thread::park_timeout(every.min(left));
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Each thread keeps one waker, so that waiting allocates nothing.
fn with_parker<R>(f: impl FnOnce(&mut Context<'_>) -> R) -> R {
    thread_local!(static PARKER: Waker = Arc::new(Unpark(thread::current())).into());
    PARKER.with(|waker| f(&mut Context::from_waker(waker)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_crosses_threads() {
        let (ticket, slot) = Ticket::new();
        let waiter = thread::Builder::new().spawn(move || ticket.wait()).unwrap();
        if let Ok(Some(waker)) = slot.fill(Ok(7)) {
            waker.wake();
        }
        assert_eq!(waiter.join().unwrap().unwrap(), 7);
    }

    #[test]
    fn a_timed_out_ticket_can_be_waited_for_again() {
        let (ticket, slot) = Ticket::new();
        let ticket = ticket.wait_timeout(Duration::ZERO).unwrap_err();
        assert!(slot.fill(Ok(7)).is_ok());
        assert_eq!(ticket.wait().unwrap(), 7);
    }

    #[test]
    fn a_value_for_nobody_comes_back() {
        let slot = Slot::new();
        assert_eq!(slot.close(), None);
        assert_eq!(slot.fill(7).unwrap_err(), 7);
        let slot = Slot::new();
        assert!(slot.fill(7).is_ok());
        assert_eq!(slot.close(), Some(7));
    }
}
