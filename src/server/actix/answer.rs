//! An answer of the layer, as one of actix.

use actix_web::body::{BoxBody, EitherBody};
use actix_web::dev::ServiceResponse;
use actix_web::error::ErrorInternalServerError;
use actix_web::{Error, HttpRequest, HttpResponse};
use axum::body::Body;
use http::Response;

use super::failure::Failure;
use super::heads;
use super::pipe::Sent;

/// The part of a request that stays on the worker's thread while the layer answers it.
pub(super) enum Stage {
    /// The handler has not started.
    Asked(HttpRequest),
    /// The handler runs, or has panicked and taken its request with it.
    Running,
    /// The handler has answered.
    Answered(Subject, HttpResponse<()>),
}

/// The owner of an answer of actix.
pub(super) enum Subject {
    Request(HttpRequest),
    /// The error of a service, which has kept the request.
    Error(Error),
}

/// The mark of an answer whose head is on the [`Stage`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Handled;

/// Returns an answer of the layer as one of actix. If it is the handler's, all else that the
/// handler has said of it is kept.
pub(super) fn answered<B>(
    answer: Response<Body>,
    stage: Stage,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let (head, body) = answer.into_parts();
    let (subject, made) = match stage {
        Stage::Asked(request) => (Subject::Request(request), None),
        Stage::Answered(subject, made) => (subject, Some(made)),
        Stage::Running => (Subject::Error(ErrorInternalServerError("the handler panicked")), None),
    };
    let response = match made.filter(|_| head.extensions.get::<Handled>().is_some()) {
        Some(mut made) => heads::replace(&mut made, &head).map(|()| made),
        None => heads::to_answer(&head),
    };
    let response = response.map_err(ErrorInternalServerError)?;
    let response = response.set_body(BoxBody::new(Sent::new(body)));
    match subject {
        Subject::Request(request) => {
            Ok(ServiceResponse::new(request, response.map_into_right_body()))
        }
        Subject::Error(error) => Err(Failure::new(error, response, head).into()),
    }
}
