//! The handlers of `/v1/calls`: validate, ask the carrier, keep the book.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Form, Json};
use refrain::Scope;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::book::{Book, Call, Parties};
use crate::carrier::{Carrier, Errand};
use crate::manner::Manner;
use crate::number::Number;
use crate::refusal::Refusal;

/// The content type of the bodies that Stripe's SDKs send.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

pub(crate) struct Office {
    pub(crate) book: Book,
    pub(crate) carrier: Carrier,
    pub(crate) manner: Manner,
}

pub(crate) async fn place(
    State(office): State<Arc<Office>>,
    Extension(account): Extension<Scope>,
    errand: Errand,
    order: Order,
) -> Result<Response, Refusal> {
    let parties = order.parties()?;
    office.carrier.connect(errand, &parties.caller_id).await?;
    let call = office.book.add(account, parties);
    let location = [(LOCATION, format!("/v1/calls/{}", call.id))];
    Ok((StatusCode::CREATED, location, Json(call)).into_response())
}

pub(crate) async fn list(
    State(office): State<Arc<Office>>,
    Extension(account): Extension<Scope>,
) -> Json<Listing> {
    Json(Listing { calls: office.book.list(account) })
}

pub(crate) async fn read(
    State(office): State<Arc<Office>>,
    Extension(account): Extension<Scope>,
    CallId(id): CallId,
) -> Result<Json<Call>, Refusal> {
    office.find(account, &id).map(Json)
}

pub(crate) async fn replace(
    State(office): State<Arc<Office>>,
    Extension(account): Extension<Scope>,
    CallId(id): CallId,
    errand: Errand,
    order: Order,
) -> Result<Json<Call>, Refusal> {
    office.find(account, &id)?;
    office.change(account, &id, errand, order.parties()?).await
}

pub(crate) async fn amend(
    State(office): State<Arc<Office>>,
    Extension(account): Extension<Scope>,
    CallId(id): CallId,
    errand: Errand,
    order: Order,
) -> Result<Json<Call>, Refusal> {
    let call = office.find(account, &id)?;
    office.change(account, &id, errand, order.amend(call.parties)?).await
}

pub(crate) async fn hang_up(
    State(office): State<Arc<Office>>,
    Extension(account): Extension<Scope>,
    CallId(id): CallId,
    errand: Errand,
) -> Result<Response, Refusal> {
    office.find(account, &id)?;
    office.carrier.carry_out(errand).await?;
    office.book.remove(account, &id).ok_or_else(no_such_call)?;
    Ok(match office.manner {
        // Stripe's SDKs expect JSON in every answer.
        Manner::Stripe => {
            Json(json!({ "id": id, "object": "call", "deleted": true })).into_response()
        }
        Manner::Revdesk | Manner::Ietf => StatusCode::NO_CONTENT.into_response(),
    })
}

impl Office {
    fn find(&self, account: Scope, id: &str) -> Result<Call, Refusal> {
        self.book.find(account, id).ok_or_else(no_such_call)
    }

    async fn change(
        &self,
        account: Scope,
        id: &str,
        errand: Errand,
        parties: Parties,
    ) -> Result<Json<Call>, Refusal> {
        self.carrier.connect(errand, &parties.caller_id).await?;
        // The call may have been hung up while the carrier worked.
        self.book.change(account, id, parties).map(Json).ok_or_else(no_such_call)
    }
}

fn no_such_call() -> Refusal {
    Refusal::not_found("no such call")
}

/// The last segment of a call's path. A segment that cannot be decoded belongs to no call.
pub(crate) struct CallId(String);

impl<S: Send + Sync> FromRequestParts<S> for CallId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(id)| Self(id)).map_err(|_| no_such_call())
    }
}

#[derive(Serialize)]
pub(crate) struct Listing {
    calls: Vec<Call>,
}

/// The fields of a call as the client sends them.
#[derive(Deserialize)]
pub(crate) struct Order {
    caller_id: Option<String>,
    destination: Option<String>,
}

impl Order {
    /// Returns both numbers, or the refusal of the first that is missing or malformed.
    fn parties(self) -> Result<Parties, Refusal> {
        Ok(Parties {
            caller_id: caller_id(&self.caller_id.unwrap_or_default())?,
            destination: destination(&self.destination.unwrap_or_default())?,
        })
    }

    /// Returns the given numbers, and the current ones in place of those that were not given.
    fn amend(self, parties: Parties) -> Result<Parties, Refusal> {
        let Self { caller_id: caller, destination: callee } = self;
        Ok(Parties {
            caller_id: caller.map_or(Ok(parties.caller_id), |number| caller_id(&number))?,
            destination: callee.map_or(Ok(parties.destination), |number| destination(&number))?,
        })
    }
}

fn caller_id(text: &str) -> Result<Number, Refusal> {
    let refuse = |_| Refusal::not_e164("caller_id must be E.164 format", "caller_id");
    text.parse().map_err(refuse)
}

fn destination(text: &str) -> Result<Number, Refusal> {
    let refuse = |_| Refusal::not_e164("destination must be E.164 format", "destination");
    text.parse().map_err(refuse)
}

impl FromRequest<Arc<Office>> for Order {
    type Rejection = Refusal;

    async fn from_request(request: Request, office: &Arc<Office>) -> Result<Self, Refusal> {
        let content_type = request.headers().get(CONTENT_TYPE);
        let is_form = content_type.is_some_and(|value| value.as_bytes().starts_with(FORM));
        if is_form && office.manner == Manner::Stripe {
            let read: Result<Form<Self>, FormRejection> = Form::from_request(request, office).await;
            return Ok(read?.0);
        }
        let read: Result<Json<Self>, JsonRejection> = Json::from_request(request, office).await;
        Ok(read?.0)
    }
}
