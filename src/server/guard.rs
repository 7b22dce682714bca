//! The guard around code that is not the layer's own: a panic in it is answered, and never an empty
//! connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// A panic was caught. The program's panic hook has reported it.
#[derive(Debug)]
pub(super) struct Panicked;

pin_project! {
    /// A future whose panic is its error.
    // Not an async function: that would hold the future twice.
    pub(super) struct Guarded<F> {
        #[pin]
        future: F,
    }
}

/// Runs a future, and returns its panic as an error.
pub(super) fn guarded<F: Future>(future: F) -> Guarded<F> {
    Guarded { future }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match guard(|| self.project().future.poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

/// Runs a function, and returns its panic as an error.
pub(super) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What a panic leaves half done is dropped with the request.
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        // A payload may panic too, and so may that panic's.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(payload);
        }
        Panicked
    })
}
