//! Requests that are the inner service's alone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::{Request, Response, Version};
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_service::Service;

use crate::RequestId;
use crate::http::AnyBody;

use super::guard::{Guarded, guarded};
use super::options::LayerOptions;
use super::signing::{Signing, Spoken};

pin_project! {
    /// A request that is passed to the inner service.
    // Not an async function: that would hold the request twice.
    pub(super) struct Passing<S>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        answer: Guarded<Oneshot<S, Request<Body>>>,
        options: Arc<LayerOptions>,
        dialect: Spoken,
        id: RequestId,
        version: Version,
    }
}

impl<S: Service<Request<Body>>> Passing<S> {
    pub(super) fn new<B: AnyBody>(
        inner: S,
        options: Arc<LayerOptions>,
        request: Request<B>,
        id: RequestId,
    ) -> Self {
        let (dialect, version) = (Spoken::of(&request), request.version());
        let answer = guarded(Oneshot::new(inner, request.map(Body::new)));
        Self { answer, options, dialect, id, version }
    }
}

impl<S, R> Future for Passing<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    R: AnyBody,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let signing = Signing {
            dialect: this.dialect.dialect(this.options),
            request_id: this.id,
            key: None,
            version: *this.version,
        };
        Poll::Ready(match ready!(this.answer.poll(cx)) {
            Ok(response) => Ok(signing.sign(response?.map(Body::new), false)),
            Err(panicked) => Ok(signing.answer(panicked.into())),
        })
    }
}
