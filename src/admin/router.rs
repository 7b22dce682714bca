//! The paths of [`Admin::router`].

use std::path::PathBuf;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::Cursor;
use crate::codec::MAX_BODY_BYTES;
use crate::{Health, Key, Scope};

use super::lines::Lists;
use super::{Admin, Code, Done, Entry, Held, Mandate, Note, Refusal, Status, Verdict};

/// The longest request, in bytes: one with a response whose body is as long as any, as Base64.
const MAX_REQUEST_BYTES: usize = 2 * MAX_BODY_BYTES;

/// The place at which the router is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The socket: whoever asks is a user who may do all that the process may.
    Socket,
    /// Anywhere else.
    Elsewhere,
}

#[derive(Clone)]
struct Desk {
    admin: Admin,
    lists: Lists,
    place: Place,
}

impl Admin {
    /// Returns a router that answers what operators ask for, to be nested in a server's own, behind
    /// a layer that knows operators: it lets everybody do everything, but for making backups.
    pub fn router(&self) -> Router {
        self.router_at(Place::Elsewhere)
    }

    pub(super) fn router_at(&self, place: Place) -> Router {
        let desk = Desk { admin: self.clone(), lists: Lists::new(), place };
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/v1/status", get(status))
            .route("/v1/entry", get(entry))
            .route("/v1/records", get(records))
            .route("/v1/interrupted", get(interrupted))
            .route("/v1/in-flight", get(in_flight))
            .route("/v1/audit", get(audit))
            .route("/v1/resolve", post(resolve))
            .route("/v1/forget", post(forget))
            .route("/v1/reap", post(reap))
            .route("/v1/verify", post(verify))
            .route("/v1/backup", post(backup))
            .fallback(unknown)
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
            .with_state(desk)
    }
}

/// An answer, or the reason why there is none.
type Answer<T> = Result<Json<T>, Refusal>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    scope: Scope,
    key: Key,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    scope: Option<Scope>,
    after_scope: Option<Scope>,
    after_key: Option<Key>,
    limit: Option<usize>,
    #[serde(default)]
    responses: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    scope: Option<Scope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    scope: Scope,
    key: Key,
    verdict: Verdict,
    #[serde(default)]
    mandate: Mandate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    scope: Scope,
    key: Key,
    #[serde(default)]
    mandate: Mandate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reap {
    #[serde(default)]
    erase: bool,
    #[serde(default)]
    mandate: Mandate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    path: PathBuf,
}

#[derive(Serialize)]
struct Verified {
    damage: Option<String>,
}

/// Query parameters, whose faults are refused as all are.
struct Query<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        let refused =
            |rejection: QueryRejection| Refusal::new(Code::BadRequest, rejection.body_text());
        read.map(|axum::extract::Query(asked)| Self(asked)).map_err(refused)
    }
}

/// The body of a request, whose faults are refused as all are. A page of another site cannot send
/// JSON without being asked for permission first.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let read = Json::from_request(request, state).await;
        let refused =
            |rejection: JsonRejection| Refusal::new(Code::BadRequest, rejection.body_text());
        read.map(|Json(asked)| Self(asked)).map_err(refused)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), Json(self)).into_response()
    }
}

async fn healthz(State(desk): State<Desk>) -> Response {
    let health = desk.admin.store.health();
    worded(&health, !matches!(health, Health::Stopped(_)))
}

async fn readyz(State(desk): State<Desk>) -> Response {
    let health = desk.admin.store.health();
    worded(&health, health.is_ready())
}

fn worded(health: &Health, is_well: bool) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{health}\n")).into_response()
}

async fn unknown() -> Refusal {
    Refusal::new(Code::BadRequest, "nothing has this path; check the address")
}

async fn metrics(State(desk): State<Desk>) -> Result<Response, Refusal> {
    let unknown = "this server does not give its metrics here";
    let render = desk.admin.metrics.ok_or_else(|| Refusal::new(Code::NotFound, unknown))?;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, text)], render()).into_response())
}

async fn status(State(desk): State<Desk>) -> Json<Status> {
    Json(desk.admin.status())
}

async fn entry(State(desk): State<Desk>, Query(One { scope, key }): Query<One>) -> Answer<Entry> {
    desk.ask(move |admin| admin.find(scope, &key)?.ok_or_else(|| Refusal::unknown(scope, &key)))
        .await
}

async fn records(State(desk): State<Desk>, Query(asked): Query<Many>) -> Response {
    let Many { scope, after_scope, after_key, limit, responses } = asked;
    let is_of_another = scope.zip(after_scope).is_some_and(|(scope, after)| scope != after);
    let after = match (after_scope.or(scope), after_key) {
        (Some(scope), Some(key)) if !is_of_another => Some(Cursor { scope, key }),
        (_, None) if after_scope.is_none() => None,
        _ => {
            let message = "after_key needs after_scope or scope, which are the same if both are \
                           given, and after_scope needs after_key";
            return Refusal::new(Code::BadRequest, message).into_response();
        }
    };
    desk.lists.answer(move || {
        desk.admin.records(scope, after, responses).take(limit.unwrap_or(usize::MAX))
    })
}

async fn interrupted(State(desk): State<Desk>, Query(Of { scope }): Query<Of>) -> Response {
    desk.lists.answer(move || desk.admin.interrupted(scope))
}

async fn in_flight(State(desk): State<Desk>) -> Response {
    desk.lists.answer(move || desk.admin.in_flight().into_iter().map(Ok::<Held, _>))
}

async fn resolve(State(desk): State<Desk>, Body(asked): Body<Resolve>) -> Answer<Done> {
    let Resolve { scope, key, verdict, mandate } = asked;
    desk.ask(move |admin| admin.resolve(scope, &key, &verdict, &mandate)).await
}

async fn forget(State(desk): State<Desk>, Body(asked): Body<Forget>) -> Answer<Done> {
    let Forget { scope, key, mandate } = asked;
    desk.ask(move |admin| admin.forget(scope, &key, &mandate)).await
}

async fn reap(State(desk): State<Desk>, Body(asked): Body<Reap>) -> Answer<Done> {
    let Reap { erase, mandate } = asked;
    desk.ask(move |admin| admin.reap(erase, &mandate)).await
}

async fn audit(State(desk): State<Desk>) -> Response {
    desk.lists.answer(move || {
        let notes = desk.admin.audit();
        let notes: Vec<Result<Note, Refusal>> = match notes {
            Ok(notes) => notes.into_iter().map(Ok).collect(),
            Err(refusal) => vec![Err(refusal)],
        };
        notes.into_iter()
    })
}

async fn verify(State(desk): State<Desk>) -> Answer<Verified> {
    desk.ask(|admin| Ok(Verified { damage: admin.verify()? })).await
}

async fn backup(State(desk): State<Desk>, Body(Backup { path }): Body<Backup>) -> Answer<Done> {
    if desk.place != Place::Socket {
        let message = "a backup is made over the socket in the store's directory, by a user of the \
                       machine";
        return Err(Refusal::new(Code::SocketOnly, message));
    }
    if !path.is_absolute() {
        return Err(Refusal::new(Code::BadRequest, "the path of a backup is absolute"));
    }
    desk.ask(move |admin| admin.backup(path).map(|()| Done::default())).await
}

impl Desk {
    /// Asks on a thread that may block. What was begun goes on if the client goes away.
    async fn ask<T: Send + 'static>(
        self,
        ask: impl FnOnce(&Admin) -> Result<T, Refusal> + Send + 'static,
    ) -> Answer<T> {
        let asked = tokio::task::spawn_blocking(move || ask(&self.admin)).await;
        let failed = |_| Err(Refusal::new(Code::Failed, "it has panicked; see the server's log"));
        asked.unwrap_or_else(failed).map(Json)
    }
}
