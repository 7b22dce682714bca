//! The guard around code that is not the layer's own: a panic in it is answered, and never an empty
//! connection.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// A panic was caught. The program's panic hook has reported it.
#[derive(Debug)]
pub(super) struct Panicked;

/// Runs a future, and returns its panic as an error.
pub(super) async fn guarded<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| match guard(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

/// Runs a function, and returns its panic as an error.
pub(super) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What a panic leaves half done is dropped with the request.
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}
