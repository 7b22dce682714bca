//! A request that is handed to its handler on the worker's thread.
//!
//! ```text
//!  Handler of the layer ──── collected request ───► the worker's part of the request:
//!  (its future may leave the thread)                 the service of actix, which may not
//!                       ◄── answer, its body ──────
//! ```
//!
//! Invariants:
//! - Nothing of actix leaves its thread: a request or an answer waits on the [`Stage`], and only
//!   what the layer judges crosses over.
//! - The worker's part runs in the task of its request, with all that outer middlewares have bound
//!   to it. Once the request is answered, or its client has gone, it goes on in a task of its own,
//!   and it ends when the layer wants nothing more of it.
//! - A task that its worker drops says nothing, and the layer waits, until it is dropped too.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::MessageBody;
use actix_web::dev::{Service as ActixService, ServiceRequest, ServiceResponse};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, rt};
use axum::body::Body;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::RequestId;
use crate::server::guard::{Panicked, guarded};
use crate::server::observe::Span;
use crate::server::{Execution, Verdict};

use super::answer::{Handled, Stage, Subject};
use super::heads;
use super::pipe::{self, Piped};

/// The inner service of the layer: it hands one request over to the worker's thread.
pub(super) struct Handing(Option<oneshot::Sender<Handed>>);

/// A request on its way to its handler, and the way back.
struct Handed {
    request: Request<Body>,
    span: Span,
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
        let _ = task.send(Handed { request, span: Span::current(), answer });
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

/// The worker's part of a request.
pub(super) struct Worker {
    stage: Rc<Cell<Stage>>,
    /// `None` once it has ended.
    part: Option<Part>,
    /// The way to the task that takes over. It is started ahead, because what is dropped cannot tell
    /// if its thread still takes tasks.
    rest: Option<oneshot::Sender<Part>>,
}

type Part = Pin<Box<dyn Future<Output = ()>>>;

impl Worker {
    /// Does the worker's part until the layer has answered. Returns the answer, and what stayed on
    /// this thread.
    pub(super) async fn serve<F: Future>(mut self, answering: F) -> (F::Output, Stage) {
        // Dropped before the worker's part, which ends if the layer wants nothing of it.
        let mut answering = pin!(answering);
        let answer = poll_fn(|cx| {
            self.poll(cx);
            answering.as_mut().poll(cx)
        });
        (answer.await, self.stage.replace(Stage::Running))
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.part.as_mut().is_some_and(|part| part.as_mut().poll(cx).is_ready()) {
            self.part = None;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let (Some(part), Some(rest)) = (self.part.take(), self.rest.take()) {
            // A worker that stops has dropped the task, and the part is dropped with it.
            let _ = rest.send(part);
        }
    }
}

/// Returns the inner service for a request, its body, and the worker's part of it.
pub(super) fn hand<S, B>(service: Rc<S>, request: ServiceRequest) -> (Handing, pipe::Pipe, Worker)
where
    S: ActixService<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    let (request, payload) = request.into_parts();
    let stage = Rc::new(Cell::new(Stage::Asked(request)));
    let (reading, body) = pipe::of_request(payload);
    let (handing, handed) = oneshot::channel();
    let on = Rc::clone(&stage);
    let part = Box::pin(async move {
        reading.await;
        // It fails if the request was refused, or its client left before it was run.
        if let Ok(handed) = handed.await {
            run(&*service, handed, &on).await;
        }
    });
    let (rest, left) = oneshot::channel::<Part>();
    rt::spawn(async {
        if let Ok(part) = left.await {
            part.await;
        }
    });
    (Handing(Some(handing)), body, Worker { stage, part: Some(part), rest: Some(rest) })
}

/// Runs the handler, and passes its answer on to the last byte.
async fn run<S, B>(service: &S, Handed { request, span, answer }: Handed, stage: &Cell<Stage>)
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
    let Ok((answered, told, filling)) = span.around(divided).await else {
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
            (Subject::Request(request), response.map_into_left_body())
        }
        Err(error) => {
            let response = error.error_response();
            (Subject::Error(error), response.map_into_right_body::<B>())
        }
    };
    let (mut head, body) = response.into_parts();
    let mut told = tell(&mut head);
    let Piped { size, body, filling } = pipe::of_answer(body);
    if !heads::sends_length(&head, size) {
        told.headers_mut().remove(CONTENT_LENGTH);
    }
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
