//! The service: one request from its first header to its last byte.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower_service::Service;

use crate::begin::Outcome;
use crate::error::Result;
use crate::key::RequestId;
use crate::operation::Operation;
use crate::permit::Permit;
use crate::store::Store;

use super::Options;
use super::body::{Body, BoxError, pass};
use super::envelope::Envelope;
use super::request::{Keyed, REQUEST_ID, is_keyed, request_id};
use super::response::{Verdict, judge, replay};

/// A service that runs each request with a key once; see the [module](super).
#[derive(Clone, Debug)]
pub struct Idempotent<S> {
    inner: S,
    store: Store,
    options: Arc<Options>,
}

impl<S> Idempotent<S> {
    pub(super) fn new(inner: S, store: Store, options: Options) -> Self {
        Self { inner, store, options: Arc::new(options) }
    }
}

impl<S, B, R> Service<Request<B>> for Idempotent<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, S::Error>> + Send>>;

    /// Always ready: the inner service is made ready only for a request that it executes, so that
    /// those that wait or are replayed take none of its concurrency.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let id = request_id(request.headers(), this.options.trust_request_ids);
            request.extensions_mut().insert(id.clone());
            let mut response = if is_keyed(request.method(), request.headers()) {
                this.once(request, id.clone()).await?
            } else {
                run(this.inner, request.map(pass)).await?.map(pass)
            };
            let value = HeaderValue::from_str(id.as_str()).expect("request ids are header values");
            response.headers_mut().insert(REQUEST_ID, value);
            Ok(response)
        })
    }
}

impl<S, R> Idempotent<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// Answers a request with a key: by running it, from the record, or with a refusal.
    async fn once<B>(
        self,
        request: Request<B>,
        id: RequestId,
    ) -> std::result::Result<Response<Body>, S::Error>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let keyed = match Keyed::read(request, self.options.max_request_bytes).await {
            Ok(keyed) => keyed,
            Err(envelope) => return Ok(envelope.into_response()),
        };
        let Keyed { scope, key, fingerprint, request } = keyed;
        let mut operation = Operation::new(scope, key, fingerprint).request_id(id);
        if let Some(ttl) = self.options.ttl {
            operation = operation.ttl(ttl);
        }
        if self.options.durable {
            operation = operation.durable();
        }
        let refusal = match begin(&self.store, &operation, self.options.wait).await {
            Ok(Outcome::Execute(permit)) => return self.execute(permit, request).await,
            Ok(Outcome::Interrupted(attempt)) if !self.options.durable => {
                match attempt.retry().await {
                    Ok(permit) => return self.execute(permit, request).await,
                    Err(error) => Envelope::refused(&error),
                }
            }
            Ok(Outcome::Replay(record)) => match replay(&record) {
                Some(response) => return Ok(response),
                None => Envelope::result_unavailable(record.request_id()),
            },
            Ok(Outcome::Conflict { original }) => Envelope::conflict(&original),
            Ok(Outcome::Interrupted(attempt)) => Envelope::interrupted(attempt.request_id()),
            Ok(Outcome::InFlight { holder }) => Envelope::in_progress(&holder),
            Err(error) => Envelope::refused(&error),
        };
        Ok(refusal.into_response())
    }

    /// Runs the handler in a task of its own, which goes on if the client hangs up.
    async fn execute(
        self,
        permit: Permit,
        request: Request<Body>,
    ) -> std::result::Result<Response<Body>, S::Error> {
        let task = tokio::spawn(async move {
            let response = run(self.inner, request).await?;
            let (verdict, response) = judge(response, &self.options).await;
            Ok(match record(permit, verdict).await {
                Ok(()) => response,
                // Sending it would promise what may not be so.
                Err(_) => Envelope::outcome_unknown().into_response(),
            })
        });
        // The task is never aborted, so it can only have panicked; the permit is gone with it.
        task.await.unwrap_or_else(|_| Ok(Envelope::handler_panicked().into_response()))
    }
}

/// Asks for the key, and waits for whoever has it within the limit.
async fn begin(store: &Store, operation: &Operation, wait: Duration) -> Result<Outcome> {
    let mut begin = store.begin(operation);
    if let Ok(outcome) = tokio::time::timeout(wait, &mut begin).await {
        return outcome;
    }
    begin.give_up();
    begin.await
}

/// Makes the service ready and calls it.
async fn run<S, R>(mut inner: S, request: Request<Body>) -> std::result::Result<R, S::Error>
where
    S: Service<Request<Body>, Response = R>,
{
    poll_fn(|cx| inner.poll_ready(cx)).await?;
    inner.call(request).await
}

/// Returns once the verdict is durable.
async fn record(permit: Permit, verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Release => permit.release().await,
        Verdict::Store(response) => permit.complete(&response).await.map(drop),
        Verdict::StoreWithoutResponse => permit.complete_without_response().await.map(drop),
    }
}
