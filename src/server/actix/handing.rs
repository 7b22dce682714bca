//! A request that is handed to its handler on the worker's thread.
//!
//! ```text
//!  Handler of the layer ──── collected request ───► task on the worker's thread
//!  (its future may leave the thread)                 service of actix, which may not
//!                       ◄── answer, its body ──────
//! ```
//!
//! Invariants:
//! - Nothing of actix leaves its thread: a request or an answer waits on the [`Stage`], and only
//!   what the layer judges crosses over.
//! - The task is not the connection's, so that the handler goes on without its client, and it ends
//!   when the layer wants nothing more of it.
//! - A task that its worker drops says nothing, and the layer waits, until it is dropped too.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::MessageBody;
use actix_web::dev::{Service as ActixService, ServiceRequest, ServiceResponse};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use axum::body::Body;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::RequestId;
use crate::server::guard::{Panicked, guarded};
use crate::server::{Execution, Verdict};

use super::answer::{Handled, Stage, Subject};
use super::heads;
use super::pipe;

/// The inner service of the layer: it hands one request over to the worker's thread.
pub(super) struct Handing(Option<oneshot::Sender<Handed>>);

/// A request on its way to its handler, and the way back.
struct Handed {
    request: Request<Body>,
    answer: oneshot::Sender<Result<Response<Body>, Panicked>>,
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Body>> for Handing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answered {
        let (answer, answered) = oneshot::channel();
        let task = self.0.take().expect("the layer runs a request once");
        // A task that is gone drops the way back too.
        let _ = task.send(Handed { request, answer });
        Box::pin(async {
            match answered.await {
                Ok(Ok(response)) => Ok(response),
                // The hook has reported it on the worker's thread.
                Ok(Err(Panicked)) => resume_unwind(Box::new("the handler panicked")),
                Err(_) => pending().await,
            }
        })
    }
}

/// Returns the inner service for a request, its body, and the task that serves both on this thread.
pub(super) fn hand<S, B>(
    service: Rc<S>,
    request: ServiceRequest,
) -> (Handing, pipe::Pipe, Rc<Cell<Stage>>, impl Future<Output = ()> + use<S, B>)
where
    S: ActixService<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    let (request, payload) = request.into_parts();
    let stage = Rc::new(Cell::new(Stage::Asked(request)));
    let (reading, body) = pipe::of_request(payload);
    let (handing, handed) = oneshot::channel();
    let on = Rc::clone(&stage);
    let task = async move {
        reading.await;
        // It fails if the request was refused, or its client left before it was run.
        if let Ok(handed) = handed.await {
            run(&*service, handed, &on).await;
        }
    };
    (Handing(Some(handing)), body, stage, task)
}

/// Runs the handler, and passes its answer on to the last byte.
async fn run<S, B>(service: &S, Handed { request, answer }: Handed, stage: &Cell<Stage>)
where
    S: ActixService<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    let Stage::Asked(asked) = stage.replace(Stage::Running) else { return };
    // An answer that is lost is waited for without end, so that all of the program's code is in the
    // guard, also that which makes a response of an error.
    let divided = guarded(async {
        let request = asked_of(asked, request);
        divide(handle(service, request).await)
    });
    let Ok((answered, told, filling)) = divided.await else {
        // Nobody is left to be told.
        let _ = answer.send(Err(Panicked));
        return;
    };
    stage.set(answered);
    if answer.send(Ok(told)).is_ok()
        && let Some(filling) = filling
    {
        filling.await;
    }
}

async fn handle<S, B>(service: &S, request: ServiceRequest) -> Result<ServiceResponse<B>, Error>
where
    S: ActixService<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// Divides an answer into what stays on this thread, what the layer judges, and the task that fills
/// its body, if it has one.
fn divide<B>(
    handled: Result<ServiceResponse<B>, Error>,
) -> (Stage, Response<Body>, Option<impl Future<Output = ()>>)
where
    B: MessageBody + 'static,
{
    let (subject, response) = match handled {
        Ok(response) => {
            let (request, response) = response.into_parts();
            (Subject::Request(request), response.map_into_boxed_body())
        }
        Err(error) => {
            let response = error.error_response();
            (Subject::Error(error), response)
        }
    };
    let (mut head, body) = response.into_parts();
    let mut told = tell(&mut head);
    if !heads::sends_length(&head, body.size()) {
        told.headers_mut().remove(CONTENT_LENGTH);
    }
    let (body, filling) = pipe::of_answer(body);
    (Stage::Answered(subject, head), told.map(|()| body), filling)
}

/// Returns the head of an answer as the layer judges it.
fn tell(head: &mut HttpResponse<()>) -> Response<()> {
    let verdict = head.extensions_mut().remove::<Verdict>();
    let Ok(mut told) = heads::of_answer(head) else {
        // It may have done what it was asked for, and must not run again.
        let mut failed = Response::new(());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed.extensions_mut().insert(Verdict::CompleteWithoutResponse);
        return failed;
    };
    told.extensions_mut().insert(Handled);
    if let Some(verdict) = verdict {
        told.extensions_mut().insert(verdict);
    }
    told
}

/// Returns the request as it came, with its collected payload and the extensions of the layer.
fn asked_of(asked: HttpRequest, request: Request<Body>) -> ServiceRequest {
    let (head, body) = request.into_parts();
    let mut extensions = asked.extensions_mut();
    if let Some(id) = head.extensions.get::<RequestId>() {
        extensions.insert(id.clone());
    }
    if let Some(execution) = head.extensions.get::<Execution>() {
        extensions.insert(execution.clone());
    }
    drop(extensions);
    ServiceRequest::from_parts(asked, pipe::to_payload(body))
}
