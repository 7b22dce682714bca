//! The primitives of [`sync`](super) under shuttle, for tests that choose the schedule of threads.
//!
//! No time passes here: the schedule decides whether a wait is over.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Add, Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::{RecvError, SendError, TryRecvError};
use shuttle::rand::{RngCore, thread_rng};
use shuttle::sync as shuttled;
pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread_local;

const HELD: &str = "a guard is without its lock only while it waits";

/// Decides by chance whether a wait is over: one time in four.
fn is_over() -> bool {
    thread_rng().next_u64().is_multiple_of(4)
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttled::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: Option<shuttled::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttled::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, held: Some(held) }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect(HELD)
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttled::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttled::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> shuttled::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> shuttled::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(shuttled::Condvar);

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(shuttled::Condvar::new())
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits while the condition holds. With a timeout of `Duration::MAX` only a notification ends
    /// the wait.
    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        while condition(guard) {
            if timeout == Duration::MAX {
                let held = self.0.wait(guard.held.take().expect(HELD));
                guard.held = Some(held.unwrap_or_else(PoisonError::into_inner));
            } else if timeout.is_zero() || is_over() {
                return WaitTimeoutResult(true);
            } else {
                guard.held = None;
                thread::yield_now();
                guard.held = guard.mutex.lock().held;
            }
        }
        WaitTimeoutResult(false)
    }
}

/// A value that is set once, by an initializer that meets no other thread.
#[derive(Debug)]
pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // Shuttle's sleep only lets others go first.
        shuttle::thread::sleep(Duration::ZERO);
        self.0.get()
    }

    pub(crate) fn get_or_init(&self, initialize: impl FnOnce() -> T) -> &T {
        shuttle::thread::sleep(Duration::ZERO);
        self.0.get_or_init(initialize)
    }
}

/// Creates a queue that behaves like crossbeam's: messages left when the receiver is dropped are
/// dropped at once.
pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), senders: 1, has_receiver: true };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    messages: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state.lock();
        if !state.has_receiver {
            return Err(SendError(message));
        }
        state.messages.push_back(message);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender { .. }")
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.state.lock();
        match state.messages.pop_front() {
            Some(message) => Ok(message),
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.state.lock();
        let nothing = |state: &mut State<T>| state.messages.is_empty() && state.senders > 0;
        self.0.changed.wait_while_for(&mut state, nothing, Duration::MAX);
        state.messages.pop_front().ok_or(RecvError)
    }

    /// Times out at once, or waits for as long as a message takes.
    pub(crate) fn recv_timeout(&self, _timeout: Duration) -> Result<T, RecvTimeoutError> {
        if is_over() {
            thread::yield_now();
            return self.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            });
        }
        self.recv().map_err(|RecvError| RecvTimeoutError::Disconnected)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.state.lock().messages.is_empty()
    }
}

impl<T> Iterator for Receiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.recv().ok()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_receiver = false;
        let rest = std::mem::take(&mut state.messages);
        drop(state);
        drop(rest);
    }
}

/// A moment of a clock that stands still, and by chance advances by a day when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn checked_add(self, by: Duration) -> Option<Self> {
        self.0.checked_add(by).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

/// Returns the current time, for measuring waits.
pub(crate) fn now() -> Instant {
    // All threads of a schedule are one thread to the system.
    std::thread_local!(static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) });
    if is_over() {
        NOW.set(NOW.get() + Duration::from_secs(24 * 60 * 60));
    }
    Instant(NOW.get())
}

pub(crate) mod thread {
    use std::io;
    use std::time::Duration;

    pub(crate) use shuttle::thread::{
        JoinHandle, Scope, ScopedJoinHandle, Thread, current, panicking, park, scope, yield_now,
    };

    /// Returns at any time, as the real one may.
    pub(crate) fn park_timeout(_timeout: Duration) {
        yield_now();
    }

    pub(crate) struct Builder(shuttle::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(shuttle::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            run: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            self.0.spawn(run)
        }

        /// Spawns a scoped thread, without its name: shuttle's have none.
        pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
            self,
            scope: &'scope Scope<'scope, '_>,
            run: impl FnOnce() -> T + Send + 'scope,
        ) -> io::Result<ScopedJoinHandle<'scope, T>> {
            Ok(scope.spawn(run))
        }
    }
}
