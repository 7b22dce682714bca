//! The future of an answer, which outlives its client once the handler runs.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tower_service::Service;

use crate::http::BoxError;

use super::passing::Passing;

pin_project! {
    /// The future of [`Idempotent`](super::Idempotent).
    ///
    /// It runs the handler in the caller's task. Dropped while the handler of a request with a key
    /// runs, as when its client hangs up, it goes on in a task of its own, until the outcome is
    /// durable.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Answering<S>
    where
        S: Service<Request<Body>>,
        S::Error: Send,
        S::Error: 'static,
    {
        #[pin]
        kind: Kind<S>,
    }

    impl<S> PinnedDrop for Answering<S>
    where
        S: Service<Request<Body>>,
        S::Error: Send,
        S::Error: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            if let KindProj::Once { once } = this.project().kind.project() {
                once.detach();
            }
        }
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<S>
    where
        S: Service<Request<Body>>,
    {
        Passing { #[pin] passing: Passing<S> },
        Once { once: Kept<S::Error> },
    }
}

/// An answer under way, in a box so that a task can take it over.
pub(super) type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// The answer to a request with a key.
struct Kept<E> {
    /// `None` once it has ended.
    answer: Option<Answer<E>>,
    started: Started,
    /// The runtime that polls it; `None` before the first poll, and outside any.
    runtime: Option<Handle>,
}

/// Notes that the handler has started, so that its run must not be cut off.
#[derive(Clone, Debug, Default)]
pub(super) struct Started(Arc<AtomicBool>);

impl Started {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Notes that what had started has ended, and that something else is to follow.
    pub(super) fn take_back(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<S> Answering<S>
where
    S: Service<Request<Body>, Error: Send + 'static>,
{
    /// Returns an answer that ends with its client.
    pub(super) fn passing(passing: Passing<S>) -> Self {
        Self { kind: Kind::Passing { passing } }
    }

    /// Returns an answer that goes on without its client once it has `started`.
    pub(super) fn once(answer: Answer<S::Error>, started: Started) -> Self {
        let once = Kept { answer: Some(answer), started, runtime: None };
        Self { kind: Kind::Once { once } }
    }
}

impl<E> Kept<E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, E>> {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
        // Taken, so that what has panicked is not polled again.
        let mut answer = self.answer.take().expect("it is not polled after its end");
        let poll = answer.as_mut().poll(cx);
        if poll.is_pending() {
            self.answer = Some(answer);
        }
        poll
    }
}

impl<E: Send + 'static> Kept<E> {
    fn detach(&mut self) {
        let has_started = self.started.0.load(Ordering::Relaxed);
        if let (Some(answer), Some(runtime), true) =
            (self.answer.take(), &self.runtime, has_started)
        {
            // A runtime that shuts down drops it, and the key stays claimed.
            runtime.spawn(answer);
        }
    }
}

impl<S, R> Future for Answering<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: Send + 'static>,
    R: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Passing { passing } => passing.poll(cx),
            KindProj::Once { once } => once.poll(cx),
        }
    }
}

impl<S> fmt::Debug for Answering<S>
where
    S: Service<Request<Body>, Error: Send + 'static>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}
