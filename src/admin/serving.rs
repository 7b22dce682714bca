//! Serving what operators ask for.

use std::io;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use tokio::net::TcpListener;

use super::places::Places;
use super::router::Place;
use super::{Admin, Code, Refusal, Socket, Token};

/// Paths that tell no more than a probe has to know.
const PUBLIC: [&str; 2] = ["/healthz", "/readyz"];

impl Admin {
    /// Serves the router on a socket, until the future is dropped.
    ///
    /// # Errors
    ///
    /// None that a caller could meet.
    pub async fn serve_socket(self, socket: Socket) -> io::Result<()> {
        axum::serve(Places::of(socket), self.router_at(Place::Socket)).await
    }

    /// Serves the router on a TCP port, until the future is dropped. Each request but `/healthz` and
    /// `/readyz` brings the token. It is HTTP without TLS: on another address than the machine's own,
    /// put a proxy with TLS in front. At most 64 connections are served at a time; whoever can reach
    /// the port can take them all.
    ///
    /// # Errors
    ///
    /// None that a caller could meet.
    pub async fn serve_tcp(self, listener: TcpListener, token: Token) -> io::Result<()> {
        let guarded = middleware::from_fn_with_state(token, guard);
        axum::serve(Places::of(listener), self.router().layer(guarded)).await
    }
}

/// Lets those pass who bring the token.
async fn guard(State(token): State<Token>, request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) || token.is_in(request.headers()) {
        return next.run(request).await;
    }
    let message = "bring the token of this server, as `Authorization: Bearer TOKEN`";
    let mut response = Refusal::new(Code::Unauthorized, message).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
