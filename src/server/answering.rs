//! The future of an answer, which outlives its client once the handler runs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use http::Response;
use tokio::runtime::Handle;

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// The future of [`Idempotent`](super::Idempotent).
///
/// It runs the handler in the caller's task. Dropped while the handler runs, as when its client
/// hangs up, it goes on in a task of its own, until the outcome is durable.
#[must_use = "futures do nothing unless they are polled"]
pub struct Answering<E: Send + 'static> {
    /// `None` once it has ended.
    answer: Option<Answer<E>>,
    /// Present for a request with a key.
    handler: Option<(Started, Handle)>,
}

/// Notes that the handler has started, so that its run must not be cut off.
#[derive(Clone, Debug, Default)]
pub(super) struct Started(Arc<AtomicBool>);

impl Started {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<E: Send + 'static> Answering<E> {
    /// Returns an answer that ends with its client.
    pub(super) fn cancelled(
        answer: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
    ) -> Self {
        Self { answer: Some(Box::pin(answer)), handler: None }
    }

    /// Returns an answer that goes on without its client once it has `started`.
    pub(super) fn kept(
        answer: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
        started: Started,
    ) -> Self {
        let handler = Handle::try_current().ok().map(|runtime| (started, runtime));
        Self { answer: Some(Box::pin(answer)), handler }
    }
}

impl<E: Send + 'static> Future for Answering<E> {
    type Output = Result<Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken, so that what has panicked is not polled again.
        let mut answer = self.answer.take().expect("it is not polled after its end");
        let poll = answer.as_mut().poll(cx);
        if poll.is_pending() {
            self.answer = Some(answer);
        }
        poll
    }
}

impl<E: Send + 'static> Drop for Answering<E> {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        if let Some((started, runtime)) = &self.handler
            && started.0.load(Ordering::Relaxed)
        {
            // A runtime that shuts down drops it, and the key stays claimed.
            runtime.spawn(answer);
        }
    }
}

impl<E: Send + 'static> std::fmt::Debug for Answering<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}
