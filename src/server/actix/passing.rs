//! Requests that are the inner service's alone, in actix.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::error::ErrorInternalServerError;
use actix_web::{Error, HttpMessage, HttpResponse};
use axum::body::Body;
use http::{Request, Response, Version};

use crate::RequestId;
use crate::server::guard::guarded;
use crate::server::options::LayerOptions;
use crate::server::signing::{Signing, Spoken};

use super::answer::{Handled, Stage, answered};
use super::heads::{self, Unlike};
use super::pipe::Sent;

/// The form of the answer to a request that the layer does not act on.
pub(super) struct Signature {
    options: Arc<LayerOptions>,
    dialect: Spoken,
    id: RequestId,
    version: Version,
}

impl Signature {
    pub(super) fn new(options: Arc<LayerOptions>, head: &Request<()>, id: RequestId) -> Self {
        Self { options, dialect: Spoken::of(head), id, version: head.version() }
    }

    fn signing(&self) -> Signing<'_> {
        let dialect = self.dialect.dialect(&self.options);
        Signing { dialect, request_id: &self.id, key: None, version: self.version }
    }

    /// Signs an answer. If the dialect panics, it returns the answer to send instead.
    fn sign<B>(&self, answer: &mut HttpResponse<B>) -> Result<Option<Response<Body>>, Unlike> {
        let mut told = heads::of_answer(answer)?;
        told.extensions_mut().insert(Handled);
        let signed = self.signing().sign(told.map(|()| Body::empty()), false);
        if signed.extensions().get::<Handled>().is_none() {
            return Ok(Some(signed));
        }
        heads::replace(answer, &signed.into_parts().0)?;
        Ok(None)
    }

    /// Signs the response of an error.
    fn sign_error(&self, mut response: HttpResponse) -> HttpResponse {
        let signed = self.sign(&mut response).and_then(|instead| match instead {
            None => Ok(response),
            Some(instead) => {
                let (head, body) = instead.into_parts();
                let instead = heads::to_answer(&head)?;
                Ok(instead.set_body(BoxBody::new(Sent::new(body))))
            }
        });
        signed.unwrap_or_else(|unlike| ErrorInternalServerError(unlike).error_response())
    }
}

/// Answers a request that the layer does not act on. Its error stays as it is, and the response that
/// is made of it is signed.
pub(super) async fn pass<S, B>(
    service: Rc<S>,
    request: ServiceRequest,
    signature: Signature,
) -> Result<ServiceResponse<EitherBody<B>>, Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    request.extensions_mut().insert(signature.id.clone());
    let mut response = match guarded(async { service.call(request).await }).await {
        Ok(Ok(response)) => response,
        Ok(Err(mut error)) => {
            error.add_response_mapper(move |response| signature.sign_error(response));
            return Err(error);
        }
        Err(panicked) => {
            let answer = signature.signing().answer(panicked.into());
            return answered(answer, Stage::Running);
        }
    };
    match signature.sign(response.response_mut()).map_err(ErrorInternalServerError)? {
        None => Ok(response.map_into_left_body()),
        Some(instead) => answered(instead, Stage::Asked(response.into_parts().0)),
    }
}
