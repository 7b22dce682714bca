//! A value that one thread owes another: the [`Ticket`] waits for it, the [`Promise`] fills it.
//!
//! A ticket is a future, and has [`wait`](Ticket::wait) for threads without a runtime; both are the
//! same poll. [`Slot`] is the cell between the two ends, filled once and closed at most once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, now, thread_local};

/// A result that is on its way: of a commit, or of a question to the store.
///
/// Await a ticket in a task, or [`wait`](Self::wait) for it on a thread. It needs no particular
/// runtime.
///
/// # Durability
///
/// If the ticket belongs to a commit, the commit is durable once the ticket is ready with `Ok`.
/// Dropping a ticket does not undo the commit; only the outcome is discarded.
#[must_use = "the commit is durable only once its ticket says so"]
pub struct Ticket<T>(Source<T>);

enum Source<T> {
    /// Known from the start, or taken already.
    Ready(Option<Result<T>>),
    Promised(Arc<Slot<Result<T>>>),
    /// Behind a mutex that nobody ever locks: with it, a ticket may be shared between threads.
    Polling(Mutex<Box<Polling<T>>>),
}

type Polling<T> = dyn FnMut(&mut Context<'_>) -> Poll<Result<T>> + Send;

impl<T> Ticket<T> {
    /// Returns a ticket and the promise that fills it, for backends.
    ///
    /// ```
    /// use refrain::Ticket;
    ///
    /// let (ticket, promise) = Ticket::new();
    /// promise.fulfil(Ok(7));
    /// assert_eq!(ticket.wait()?, 7);
    /// # Ok::<(), refrain::Error>(())
    /// ```
    pub fn new() -> (Self, Promise<T>) {
        let slot = Arc::new(Slot::new());
        (Self(Source::Promised(Arc::clone(&slot))), Promise(Some(slot)))
    }

    /// Returns a ticket that is ready at once with this outcome. It allocates nothing.
    pub fn ready(outcome: Result<T>) -> Self {
        Self(Source::Ready(Some(outcome)))
    }

    /// Returns a ticket that is ready when `poll` is.
    pub(crate) fn polling(
        poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T>> + Send + 'static,
    ) -> Self {
        Self(Source::Polling(Mutex::new(Box::new(poll))))
    }

    /// Converts the value once it is there.
    pub(crate) fn map<U>(mut self, convert: impl FnOnce(T) -> U + Send + 'static) -> Ticket<U>
    where
        T: Send + 'static,
    {
        if let Source::Ready(outcome) = &mut self.0 {
            let outcome = outcome.take().expect("nobody has polled it");
            return Ticket::ready(outcome.map(convert));
        }
        let mut convert = Some(convert);
        Ticket::polling(move |cx| {
            Pin::new(&mut self).poll(cx).map(|outcome| {
                let convert = convert.take().expect("polled after the outcome was taken");
                outcome.map(convert)
            })
        })
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
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<T>, Self> {
        block_on_timeout(&mut self, timeout).ok_or(self)
    }
}

impl<T: Send + 'static> Ticket<Ticket<T>> {
    /// Returns a ticket that is ready when the ticket in this one is.
    pub(crate) fn unnest(self) -> Ticket<T> {
        let mut outer = Some(self);
        let mut inner = None;
        Ticket::polling(move |cx| {
            if let Some(ticket) = &mut outer {
                inner = Some(ready!(Pin::new(ticket).poll(cx))?);
                outer = None;
            }
            let inner = inner.as_mut().expect("polled after the outcome was taken");
            Pin::new(inner).poll(cx)
        })
    }
}

/// The value of a ticket is moved out of it and never pinned.
impl<T> Unpin for Ticket<T> {}

impl<T> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.0 {
            Source::Ready(outcome) => {
                Poll::Ready(outcome.take().expect("polled after the outcome was taken"))
            }
            Source::Promised(slot) => slot.poll(cx),
            Source::Polling(poll) => poll.get_mut()(cx),
        }
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// The sending end of a [`Ticket`], for backends: whoever holds it must fill the ticket.
///
/// A promise that is dropped without a value, as by a thread that ends, fills the ticket with
/// [`Error::Stopped`](crate::Error::Stopped), so that no caller waits for ever.
#[must_use = "a promise that is dropped answers that the store has stopped"]
pub struct Promise<T>(Option<Arc<Slot<Result<T>>>>);

impl<T> Promise<T> {
    /// Fills the ticket, and wakes the task or thread that waits for it.
    ///
    /// If nobody holds the ticket any more, the value is dropped on this thread.
    pub fn fulfil(mut self, outcome: Result<T>) {
        self.fill(outcome);
    }

    /// Returns whether somebody still holds the ticket.
    pub fn is_wanted(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| Arc::strong_count(slot) > 1)
    }

    fn fill(&mut self, outcome: Result<T>) {
        let waker = self.0.take().and_then(|slot| slot.fill(outcome).ok().flatten());
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.fill(Err(Error::Stopped { source: None }));
        }
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").finish_non_exhaustive()
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

    /// Puts the value in, and returns the waker of the task that waits for it.
    ///
    /// # Errors
    ///
    /// The value itself, if nobody will take it.
    pub(crate) fn fill(&self, value: T) -> Result<Option<Waker>, T> {
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

    /// Takes the value, or registers the waker of the task that waits for it.
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
        let (ticket, promise) = Ticket::new();
        let waiter = thread::Builder::new().spawn(move || ticket.wait()).unwrap();
        promise.fulfil(Ok(7));
        assert_eq!(waiter.join().unwrap().unwrap(), 7);
    }

    #[test]
    fn a_timed_out_ticket_can_be_waited_for_again() {
        let (ticket, promise) = Ticket::new();
        let ticket = ticket.wait_timeout(Duration::ZERO).unwrap_err();
        promise.fulfil(Ok(7));
        assert_eq!(ticket.wait().unwrap(), 7);
    }

    #[test]
    fn a_broken_promise_is_answered() {
        let (ticket, promise) = Ticket::<u8>::new();
        drop(promise);
        assert!(matches!(ticket.wait(), Err(Error::Stopped { source: None })));
    }

    #[test]
    fn a_converted_ticket_waits_as_the_first_did() {
        let (ticket, promise) = Ticket::new();
        let ticket = ticket.map(|n: u8| n.to_string());
        let ticket = ticket.wait_timeout(Duration::ZERO).unwrap_err();
        promise.fulfil(Ok(7));
        assert_eq!(ticket.wait().unwrap(), "7");
        assert_eq!(Ticket::ready(Ok(7)).map(|n| n + 1).wait().unwrap(), 8);
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
