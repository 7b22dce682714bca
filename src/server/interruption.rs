//! The policy for keys whose last run was interrupted, and the functions that find out what it did.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request};

use crate::{Attempt, Key, RequestId};

type Recovering = Pin<Box<dyn Future<Output = Recovery> + Send>>;

/// The policy for keys whose last run was interrupted, as by a crash in mid-handler.
///
/// | policy | claims | the next request with the key |
/// | --- | --- | --- |
/// | [`Rerun`](Self::Rerun) | volatile | runs the handler |
/// | [`Refuse`](Self::Refuse) | durable | gets 409 `idempotency_interrupted` |
/// | [`Recover`](Self::Recover) | durable | gets the finding of a function |
///
/// With [`durable`](super::IdempotencyLayer::durable), claims are durable under `Rerun` too.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OnInterrupted {
    /// The handler runs again.
    #[default]
    Rerun,
    /// 409 `idempotency_interrupted`, until the claim expires or is resolved.
    Refuse,
    /// A function finds out what the run did; made by [`recover`](Self::recover).
    Recover(Hook),
}

/// The function of [`OnInterrupted::Recover`]; made by [`OnInterrupted::recover`].
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn(Interruption) -> Recovering + Send + Sync>);

impl OnInterrupted {
    /// Returns a policy that asks a function for the outcome of an interrupted run. The function
    /// holds the key, so other requests with the key wait for it, and it goes on if its client hangs
    /// up.
    ///
    /// ```
    /// use refrain::server::{IdempotencyLayer, OnInterrupted};
    /// # async fn find_call(_downstream: refrain::Key) -> Option<String> { None }
    /// # fn main() -> refrain::Result<()> {
    /// # let store = refrain::Store::builder().open_in_memory()?;
    ///
    /// let ask_the_carrier = OnInterrupted::recover(|interruption| async move {
    ///     match find_call(interruption.downstream_key("carrier")).await {
    ///         Some(call) => interruption.respond(http::Response::new(call.into())),
    ///         None => interruption.rerun(),
    ///     }
    /// });
    /// let layer = IdempotencyLayer::new(store).on_interrupted(ask_the_carrier);
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn recover<F, R>(hook: F) -> Self
    where
        F: Fn(Interruption) -> R + Send + Sync + 'static,
        R: Future<Output = Recovery> + Send + 'static,
    {
        Self::Recover(Hook(Arc::new(move |interruption| Box::pin(hook(interruption)))))
    }
}

impl Hook {
    pub(super) async fn ask(&self, interruption: Interruption) -> Recovery {
        (self.0)(interruption).await
    }
}

impl fmt::Debug for OnInterrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rerun => "Rerun",
            Self::Refuse => "Refuse",
            Self::Recover(_) => "Recover",
        })
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// An interrupted run, and the request that asks again; the argument of a recovery function.
///
/// One of [`rerun`](Self::rerun), [`respond`](Self::respond), [`done`](Self::done) and
/// [`refuse`](Self::refuse) ends it. See [`OnInterrupted::recover`] for an example.
#[derive(Debug)]
#[must_use = "an interruption ends in a Recovery"]
pub struct Interruption {
    pub(super) attempt: Attempt,
    pub(super) key: Key,
    pub(super) request: request::Parts,
}

impl Interruption {
    /// Returns the head of the request that asks again.
    pub fn request(&self) -> &request::Parts {
        &self.request
    }

    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the id of the request that was interrupted.
    pub fn request_id(&self) -> &RequestId {
        self.attempt.request_id()
    }

    /// Returns the number of the interrupted run, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt.number()
    }

    /// Returns the checkpoints of the interrupted run, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        self.attempt.checkpoints()
    }

    /// Returns the key that the run handed to another service under a label.
    pub fn downstream_key(&self, label: &str) -> Key {
        self.attempt.downstream_key(label)
    }

    /// Runs the handler as the next attempt, because the run did nothing or is safe to repeat.
    ///
    /// # Durability
    ///
    /// The new attempt is durable before the handler runs.
    pub fn rerun(self) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Rerun }
    }

    /// Answers with this response, because the run succeeded. It is recorded, sent, and replayed
    /// from now on.
    ///
    /// # Durability
    ///
    /// The record is durable before the response is sent.
    pub fn respond(self, response: Response<Bytes>) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Respond(Box::new(response)) }
    }

    /// Records that the run succeeded and that its response is lost. The answer is 409
    /// `idempotency_result_unavailable`, from now on.
    pub fn done(self) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Done }
    }

    /// Leaves the outcome unknown. The answer is 409 `idempotency_interrupted`, and the next
    /// request calls the function again.
    pub fn refuse(self) -> Recovery {
        Recovery { attempt: self.attempt, finding: Finding::Refuse }
    }
}

/// The finding of a recovery function; made by an [`Interruption`].
#[derive(Debug)]
#[must_use = "a Recovery is the answer of the function"]
pub struct Recovery {
    pub(super) attempt: Attempt,
    pub(super) finding: Finding,
}

#[derive(Debug)]
pub(super) enum Finding {
    Rerun,
    Respond(Box<Response<Bytes>>),
    Done,
    Refuse,
}
