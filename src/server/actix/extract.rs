//! The operation and the errors of handlers, in actix's terms.

use std::fmt;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError, http};

use crate::server::{Envelope, Execution};

use super::heads;

/// In actix as in axum: a request without a key is refused, and `Option<Execution>` is `None` for
/// it.
impl FromRequest for Execution {
    type Error = Envelope;
    type Future = Ready<Result<Self, Envelope>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        ready(Self::found(extensions.get(), extensions.get()))
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl ResponseError for Envelope {
    fn status_code(&self) -> http::StatusCode {
        http::StatusCode::from_u16(self.status().as_u16()).expect("it is a status in both")
    }

    fn error_response(&self) -> HttpResponse {
        let (head, body) = self.clone().into_bytes().into_parts();
        let response = heads::to_answer(&head).expect("its head is the same in both");
        response.set_body(actix_web::body::BoxBody::new(body))
    }
}
