//! The inner service of the layer, which handles requests.

use std::any::Any;
use std::future::poll_fn;

use axum::body::Body;
use http::Request;
use tower::load_shed::error::Overloaded;
use tower_service::Service;

use crate::http::BoxError;

/// A service that handles requests.
pub(super) trait Handler:
    Service<Request<Body>, Error: Send + 'static, Future: Send + 'static> + Send + 'static
{
}

impl<S> Handler for S where
    S: Service<Request<Body>, Error: Send + 'static, Future: Send + 'static> + Send + 'static
{
}

/// Waits until the service is ready for a request.
pub(super) async fn ready<S>(inner: &mut S) -> Result<(), S::Error>
where
    S: Service<Request<Body>>,
{
    poll_fn(|cx| inner.poll_ready(cx)).await
}

/// Returns true if an error of the inner service says that it refused the request before it ran.
pub(super) fn was_shed<E: 'static>(error: &E) -> bool {
    let error: &dyn Any = error;
    // Only the error itself: as a cause it may be another service's, which the handler has called.
    error.is::<Overloaded>()
        || error.downcast_ref().is_some_and(|it: &BoxError| it.is::<Overloaded>())
}
