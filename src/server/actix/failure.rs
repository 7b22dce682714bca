//! An error of a service, with the layer's answer to it.

use std::cell::Cell;
use std::fmt;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::{Error, HttpResponse, ResponseError};
use bytes::Bytes;
use http::response::Parts;

use super::heads;

/// An error of a service, in whose place its client gets the layer's answer. The answer is given
/// out as often as it is asked for, because a middleware may only look at it.
pub(super) struct Failure {
    error: Error,
    status: StatusCode,
    /// The answer with all that actix knows of it, for the first that asks.
    first: Cell<Option<HttpResponse>>,
    head: Parts,
    /// The data of the answer; empty if it is a stream, which only the first gets.
    data: Bytes,
}

impl Failure {
    /// Returns the error with its answer, whose head this is.
    pub(super) fn new(error: Error, answer: HttpResponse, head: Parts) -> Self {
        let status = answer.status();
        let (told, body) = answer.into_parts();
        let (data, body) = match body.try_into_bytes() {
            Ok(data) => (data.clone(), BoxBody::new(data)),
            Err(body) => (Bytes::new(), body),
        };
        Self { error, status, first: Cell::new(Some(told.set_body(body))), head, data }
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.first.take().unwrap_or_else(|| {
            let again = heads::to_answer(&self.head).expect("the first has this head too");
            again.set_body(BoxBody::new(self.data.clone()))
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}
