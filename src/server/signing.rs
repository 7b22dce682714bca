//! The form of an answer: its dialect, its marks and its request id.

use axum::body::Body;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};

use crate::http::{REQUEST_ID, is_grpc};
use crate::{Key, RequestId};

use super::dialect::{Dialect, Exchange, Grpc, Reason, Refusal, RevDesk};
use super::guard::{Panicked, guard};
use super::observe;
use super::options::LayerOptions;
use super::reply::Reply;
use super::unread::Refused;

/// The dialect that a request is answered in.
#[derive(Clone, Copy)]
pub(super) enum Spoken {
    Grpc,
    /// The layer's.
    Own,
}

impl Spoken {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        if is_grpc(request.headers()) { Self::Grpc } else { Self::Own }
    }

    pub(super) fn dialect(self, options: &LayerOptions) -> &dyn Dialect {
        match self {
            Self::Grpc => &Grpc,
            Self::Own => &*options.dialect,
        }
    }
}

/// The form of the answer to one request.
pub(super) struct Signing<'a> {
    pub(super) dialect: &'a dyn Dialect,
    pub(super) request_id: &'a RequestId,
    pub(super) key: Option<&'a Key>,
    pub(super) version: Version,
}

impl Signing<'_> {
    /// Returns the response in the dialect's terms, with the request id.
    pub(super) fn answer(&self, reply: Reply) -> Response<Body> {
        match reply {
            Reply::Fresh(response) => self.sign(response, false),
            Reply::Replay(response) => self.sign(response, true),
            Reply::Refused(refused) => self.refuse(refused),
        }
    }

    fn refuse(&self, Refused { reason, close }: Refused) -> Response<Body> {
        observe::refused(&reason);
        let (request_id, key) = (self.request_id.clone(), self.key.cloned());
        let refusal = Refusal { reason, request_id, key };
        // A dialect that panics gives way to the contract's own.
        let refused = guard(|| self.dialect.refuse(&refusal));
        let refused = refused.unwrap_or_else(|Panicked| {
            RevDesk.refuse(&Refusal { reason: Reason::Panicked, ..refusal })
        });
        let mut response = self.sign(refused.map(Body::from), false);
        if close && self.version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Adds the dialect's headers and the request id.
    pub(super) fn sign(&self, mut response: Response<Body>, is_replay: bool) -> Response<Body> {
        let Self { request_id, key, .. } = *self;
        let headers = response.headers_mut();
        if guard(|| self.dialect.sign(&Exchange { request_id, key, is_replay }, headers)).is_err() {
            let (reason, request_id) = (Reason::Panicked, request_id.clone());
            let refusal = Refusal { reason, request_id, key: key.cloned() };
            response = RevDesk.refuse(&refusal).map(Body::from);
        }
        let id = HeaderValue::from_str(request_id.as_str()).expect("request ids are header values");
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
}
