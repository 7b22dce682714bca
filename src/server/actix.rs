//! The layer as a middleware of actix-web 4 (feature `actix`).
//!
//! ```
//! use actix_web::{App, HttpResponse, web};
//! use refrain::server::{Execution, IdempotencyLayer, actix::Idempotency};
//!
//! async fn place_call(execution: Execution, body: String) -> HttpResponse {
//!     HttpResponse::Created().body(format!("{} placed {body}", execution.request_id()))
//! }
//!
//! # fn main() -> refrain::Result<()> {
//! # actix_web::rt::System::new().block_on(async {
//! # let store = refrain::Store::builder().open_in_memory()?;
//! let idempotency = Idempotency::new(IdempotencyLayer::new(store));
//! let app = App::new()
//!     .wrap(idempotency.clone())
//!     .route("/v1/calls", web::post().to(place_call));
//! # let app = actix_web::test::init_service(app).await;
//! # let request = actix_web::test::TestRequest::post()
//! #     .uri("/v1/calls")
//! #     .insert_header(("authorization", "Bearer sk_live_51"))
//! #     .insert_header(("idempotency-key", "9b8cfa7a"));
//! # let response = actix_web::test::call_service(&app, request.to_request()).await;
//! # assert_eq!(response.status(), 201);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! All options of the layer hold. Of actix's own:
//!
//! - The middleware wrapped **last** is the outermost, so authentication is wrapped after this one.
//!   What it puts into the request's extensions reaches the handler. A
//!   [`Scope`] there is read by [`scope::extension`](super::scope::extension), and
//!   [`extension`](Idempotency::extension) passes other types on to the layer's functions.
//! - The handler gives its [`Verdict`](super::Verdict) in the extensions of its response.
//! - An error of an inner middleware counts as the response that actix makes of it.
//! - The handler runs in the task of its request, and in one of its own once its client has gone. A
//!   worker that stops waits for connections, and not for such a task: it drops the task, and the
//!   key stays claimed, or interrupted if it is durable. So [close](crate::Store::close) the store
//!   first, and stop the server then.
//! - Nobody has the request after its handler has panicked, so that the 500 is an
//!   [`actix_web::Error`], which actix turns into the response.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Extensions, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::error::ErrorBadRequest;
use actix_web::{Error, HttpMessage};
use tower_layer::Layer;

use crate::Scope;

use super::{IdempotencyLayer, Idempotent};

mod answer;
mod extract;
mod failure;
mod handing;
mod heads;
mod passing;
mod pipe;

use answer::answered;
use handing::hand;
use passing::{Signature, pass};

/// A middleware that adds idempotency to an app, a scope or a resource of actix-web; see the
/// [module](self).
///
/// Clones share what clones of their layer share. Make it outside the function that makes the apps,
/// so that all workers share one.
#[derive(Clone)]
#[must_use]
pub struct Idempotency {
    layer: IdempotencyLayer,
    carried: Vec<Carry>,
}

/// Copies one type of extension to the head that the layer's functions see.
type Carry = fn(&Extensions, &mut http::Extensions);

impl Idempotency {
    /// Creates a middleware with the options of a layer.
    pub fn new(layer: IdempotencyLayer) -> Self {
        Self { layer, carried: vec![heads::copy::<Scope>] }
    }

    /// Passes extensions of this type on, from the request to the head that the layer's functions
    /// see: [`scope`](IdempotencyLayer::scope),
    /// [`authorize_replay`](IdempotencyLayer::authorize_replay) and others. A
    /// [`Scope`] is always passed on.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        self.carried.push(heads::copy::<T>);
        self
    }
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl<S, B> Transform<S, ServiceRequest> for Idempotency
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = IdempotencyMiddleware<S>;
    type InitError = ();
    type Future = Ready<Result<IdempotencyMiddleware<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let (service, carried) = (Rc::new(service), self.carried.as_slice().into());
        ready(Ok(IdempotencyMiddleware { service, layer: self.layer.layer(()), carried }))
    }
}

/// The service of [`Idempotency`] on one worker.
pub struct IdempotencyMiddleware<S> {
    service: Rc<S>,
    layer: Idempotent<()>,
    carried: Rc<[Carry]>,
}

impl<S> fmt::Debug for IdempotencyMiddleware<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyMiddleware").field("layer", &self.layer).finish_non_exhaustive()
    }
}

type Answering<B> = Pin<Box<dyn Future<Output = Result<ServiceResponse<EitherBody<B>>, Error>>>>;

impl<S, B> Service<ServiceRequest> for IdempotencyMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Answering<B>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let mut head = match heads::decisive(&request) {
            Ok(head) => head,
            Err(unlike) => return Box::pin(ready(Err(ErrorBadRequest(unlike)))),
        };
        let (service, id) = (Rc::clone(&self.service), self.layer.identify(&mut head));
        if !self.layer.acts_on(&head) {
            let signature = Signature::new(self.layer.options(), &head, id);
            return Box::pin(pass(service, request, signature));
        }
        if let Err(unlike) = heads::complete(&mut head, &request) {
            return Box::pin(ready(Err(ErrorBadRequest(unlike))));
        }
        for carry in &*self.carried {
            carry(&request.extensions(), head.extensions_mut());
        }
        let (handing, body, worker) = hand(service, request);
        let answering = self.layer.around(handing).once(head.map(|()| body), id);
        Box::pin(async move {
            let (Ok(answer), stage) = worker.serve(answering).await;
            answered(answer, stage)
        })
    }
}
