//! The operation that a handler runs, as the handler sees it.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use http::request::Parts;
use parking_lot::{Mutex, MutexGuard};

use crate::{Error, Key, Permit, RequestId, Result, Ticket};

use super::envelope::Envelope;
use super::observe;
use super::policy::Verdict;

/// The operation that a handler runs: an entry in the request's extensions, and an extractor in
/// axum and, with feature `actix`, in actix-web.
///
/// The extractor refuses a request without a key, in the contract's words; `Option<Execution>` is
/// `None` for it.
///
/// ```
/// use axum::{Router, routing::post};
/// use refrain::server::{Envelope, Execution, IdempotencyLayer, OnInterrupted, Verdict};
/// # async fn place(_carrier_key: &refrain::Key) -> Result<(), ()> { Ok(()) }
///
/// async fn place_call(execution: Execution) -> Result<&'static str, (Verdict, Envelope)> {
///     let failed = |error: refrain::Error| (Verdict::Release, Envelope::from(error));
///     let carrier_key = execution.downstream_key("carrier").map_err(failed)?;
///     execution.checkpoint("asked the carrier").await.map_err(failed)?;
///     if place(&carrier_key).await.is_err() {
///         // It may have placed the call, and the next attempt must come with the same carrier key.
///         let status = http::StatusCode::GATEWAY_TIMEOUT;
///         let envelope = Envelope::new(status, "carrier_failed", "the carrier did not answer");
///         return Err((Verdict::Interrupt, envelope));
///     }
///     Ok("placed")
/// }
///
/// # fn main() -> refrain::Result<()> {
/// # let store = refrain::Store::builder().open_in_memory()?;
/// let strict = IdempotencyLayer::new(store).durable(true).on_interrupted(OnInterrupted::Rerun);
/// let app: Router = Router::new().route("/v1/calls", post(place_call).layer(strict));
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Execution(Arc<ExecutionState>);

struct ExecutionState {
    key: Key,
    request_id: RequestId,
    attempt: u32,
    checkpoints: Vec<Bytes>,
    /// The header that the key was read from.
    header: Option<HeaderValue>,
    /// `None` once the operation has its verdict.
    permit: Mutex<Option<Permit>>,
    verdicts: Mutex<Verdicts>,
}

/// The verdicts of an operation, before one is recorded.
#[derive(Default)]
struct Verdicts {
    /// The handler's, for an answer that has none.
    given: Option<Verdict>,
    /// The handler's, for an answer that never comes.
    if_cut_off: Option<Verdict>,
    /// Set once the handler has answered: with success, or not.
    answered: Option<bool>,
    /// The handler has used the claim: it has started, whatever becomes of it.
    used: bool,
}

impl Execution {
    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Returns the id of the request that runs the operation.
    pub fn request_id(&self) -> &RequestId {
        &self.0.request_id
    }

    /// Returns the number of this run, counted from 1. A number above 1 means that an earlier run
    /// was interrupted.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Returns the recovery points that earlier attempts stored, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.0.checkpoints
    }

    /// Stores a recovery point for later attempts: up to 16 for one operation, of up to 16 KiB
    /// each.
    ///
    /// # Durability
    ///
    /// The recovery point survives a power cut once the ticket is ready.
    ///
    /// # Errors
    ///
    /// Those of [`Permit::checkpoint`], and [`Error::Ended`] after the handler has answered.
    pub fn checkpoint(&self, data: impl Into<Bytes>) -> Ticket<()> {
        match self.use_permit().as_mut() {
            Some(permit) => permit.checkpoint(data),
            None => Ticket::ready(Err(Error::Ended)),
        }
    }

    /// Returns the idempotency key for a call to another service. All attempts of this operation
    /// get the same key; different labels give different keys.
    ///
    /// A client's key that was released or has expired starts a new operation, with new downstream
    /// keys. A plain 4xx of the first run releases the client's key. So once the other service may
    /// have acted, answer with [`Verdict::Interrupt`](super::Verdict::Interrupt).
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if claims are not durable (see
    /// [`durable`](super::IdempotencyLayer::durable)), and [`Error::Ended`] after the handler has
    /// answered.
    pub fn downstream_key(&self, label: &str) -> Result<Key> {
        self.use_permit().as_ref().ok_or(Error::Ended)?.downstream_key(label)
    }

    /// Gives the operation its verdict, for a framework whose responses carry no extensions, such as
    /// tonic. The last one counts, unless the response has a [`Verdict`] of its own. Once the handler
    /// has answered, this does nothing.
    pub fn give_verdict(&self, verdict: Verdict) {
        let mut verdicts = self.0.verdicts.lock();
        if verdicts.answered.is_none() {
            verdicts.given = Some(verdict);
        }
    }

    /// Sets the verdict for a handler that is cut off by a panic, or by an error of the service
    /// inside, such as that of tower's `Timeout`. By default a volatile key is freed then, and a
    /// durable one interrupted.
    ///
    /// [`Verdict::Complete`] is without a response. Any response makes this void, also that of a
    /// layer inside which turns the error into one, such as tower-http's `TimeoutLayer`.
    pub fn if_cut_off(&self, verdict: Verdict) {
        self.0.verdicts.lock().if_cut_off = Some(verdict);
    }

    /// Returns what a handler that asks for its operation gets, by the request's extensions.
    pub(super) fn found(
        execution: Option<&Self>,
        id: Option<&RequestId>,
    ) -> std::result::Result<Self, Envelope> {
        if id.is_none() {
            let message = "the handler needs an idempotency layer, and there is none";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(Envelope::new(status, "internal_error", message));
        }
        execution.cloned().ok_or_else(|| {
            let message = "an idempotency key is required";
            Envelope::new(StatusCode::BAD_REQUEST, "idempotency_key_missing", message)
                .field("idempotency-key", "Expected the header")
        })
    }

    /// Returns true if a request with this key header is a part of the operation, which has no
    /// verdict yet.
    pub(super) fn covers(&self, key: Option<&HeaderValue>) -> bool {
        let is_same = key.is_none() || key == self.0.header.as_ref();
        is_same && self.0.permit.lock().is_some()
    }

    /// Notes that the handler uses the claim, and returns the permit.
    fn use_permit(&self) -> MutexGuard<'_, Option<Permit>> {
        self.0.verdicts.lock().used = true;
        self.0.permit.lock()
    }

    /// Lends the permit, for what only the store's backend can do; see [`Permit::claim_mut`]. The
    /// function must not use this execution, which waits until the permit is back.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] after the handler has answered.
    pub fn with_permit<T>(&self, work: impl FnOnce(&mut Permit) -> T) -> Result<T> {
        self.use_permit().as_mut().ok_or(Error::Ended).map(work)
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("request_id", &self.0.request_id)
            .field("attempt", &self.0.attempt)
            .finish_non_exhaustive()
    }
}

/// The permit of a handler that has not started. Dropped, it frees the key, because nothing was run;
/// but the key of an attempt after the first is interrupted again, because an earlier one may have
/// acted.
pub(super) struct Unstarted(Option<Permit>);

impl Unstarted {
    pub(super) fn new(permit: Permit) -> Self {
        Self(Some(permit))
    }

    /// Returns the permit, for the handler that starts now.
    pub(super) fn start(mut self) -> Permit {
        self.0.take().expect("it is taken once")
    }

    /// Gives up the key. The answer stands even if the release cannot be recorded.
    pub(super) async fn give_up(mut self) {
        if let Some(release) = self.release() {
            let _ = release.await;
        }
    }

    fn release(&mut self) -> Option<Ticket<()>> {
        let permit = self.0.take().filter(|permit| permit.attempt() == 1)?;
        Some(permit.release())
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        // Nobody is left to wait for it.
        drop(self.release());
    }
}

/// The layer's end of an [`Execution`]: the owner of the permit, which the handler borrows.
///
/// A lender that is dropped belonged to a handler that its runtime has killed: the key stays claimed.
pub(super) struct Lender(Arc<ExecutionState>);

impl Lender {
    /// Takes the permit of a request with this key header.
    pub(super) fn new(permit: Permit, header: Option<HeaderValue>) -> Self {
        Self(Arc::new(ExecutionState {
            key: permit.key().clone(),
            request_id: permit.request_id().clone(),
            attempt: permit.attempt(),
            checkpoints: permit.checkpoints().to_vec(),
            header,
            permit: Mutex::new(Some(permit)),
            verdicts: Mutex::default(),
        }))
    }

    pub(super) fn execution(&self) -> Execution {
        Execution(Arc::clone(&self.0))
    }

    pub(super) fn request_id(&self) -> &RequestId {
        &self.0.request_id
    }

    /// Returns the number of the run.
    pub(super) fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Notes that the handler has answered, before its answer is judged, and returns its verdict: the
    /// answer's own, or the one that was given before. After a success, neither a function that
    /// judges the answer nor a broken body has it run again.
    pub(super) fn answered(&self, own: Option<Verdict>, is_success: bool) -> Option<Verdict> {
        let mut verdicts = self.0.verdicts.lock();
        let verdict = own.or(verdicts.given).map(|verdict| self.in_this_run(verdict));
        verdicts.answered = Some(verdict.map_or(is_success, Verdict::is_done));
        verdict
    }

    /// Returns what a verdict on this run is for the operation. That nothing happened in a later run
    /// does not say that nothing did in the earlier ones.
    fn in_this_run(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Release if self.0.attempt > 1 => Verdict::Interrupt,
            verdict => verdict,
        }
    }

    /// Returns the permit, for a verdict to end it.
    pub(super) fn end(self) -> Permit {
        self.0.permit.lock().take().expect("only the layer takes it, and once")
    }

    /// Ends the permit of a handler that its service has refused before it ran: the key is free. If
    /// the handler has run all the same, or another attempt has, this is as when it is cut off.
    pub(super) async fn shed(self) {
        if self.0.attempt == 1 && !self.0.verdicts.lock().has_run() {
            // Nothing ran, so the answer stands even if the release cannot be recorded.
            let _ = self.end().release().await;
        } else {
            self.cut_off().await;
        }
    }

    /// Ends the permit of a handler that was cut off by an error of its service, such as a timeout,
    /// or by a panic. Without a verdict a volatile key is free, and a durable one interrupted.
    pub(super) async fn cut_off(self) {
        let verdict = self.0.verdicts.lock().of_a_cut_off();
        let verdict = verdict.map(|verdict| self.in_this_run(verdict));
        let permit = self.end();
        let ended = match verdict {
            None => return,
            Some(verdict) if verdict.is_done() => {
                permit.complete_without_response().await.map(drop)
            }
            Some(Verdict::Release) => permit.release().await,
            Some(_) => permit.interrupt().await,
        };
        if let Err(error) = ended {
            observe::unrecorded(&error);
        }
    }
}

impl Verdicts {
    /// Returns true if it is certain that the handler has run.
    fn has_run(&self) -> bool {
        self.used || self.given.is_some() || self.if_cut_off.is_some() || self.answered.is_some()
    }

    /// Returns the verdict where the answer was cut off.
    fn of_a_cut_off(&self) -> Option<Verdict> {
        match self.answered {
            Some(true) => Some(Verdict::CompleteWithoutResponse),
            Some(false) => self.given,
            None => self.if_cut_off.or(self.given),
        }
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if let Some(permit) = self.0.permit.lock().take() {
            permit.abandon();
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Execution {
    type Rejection = Envelope;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Envelope> {
        Self::found(parts.extensions.get(), parts.extensions.get())
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Execution {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}
