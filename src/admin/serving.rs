//! Serving the router to a bounded number of connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::router::Place;
use super::{Admin, Code, Refusal, Socket, Token};

/// Paths that tell no more than a probe has to know.
const PUBLIC: [&str; 2] = ["/healthz", "/readyz"];
/// The connections that are served at a time. The others wait: each takes a descriptor, of which the
/// store and the server's own clients need some too.
const MAX_CONNECTIONS: usize = 64;
/// The time within which a connection sends the head of its next request, or is ended.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

impl Admin {
    /// Serves the router on a socket, until the future is dropped: it does not end by itself. 64
    /// connections are served at a time, and one that asks nothing for 10 seconds is ended.
    pub async fn serve_socket(self, socket: Socket) -> Infallible {
        serve(socket, self.router_at(Place::Socket)).await
    }

    /// Serves the router on a TCP port, as [`serve_socket`](Self::serve_socket) does on a socket. Each
    /// request but `/healthz` and `/readyz` brings the token. It is HTTP without TLS: on another
    /// address than the machine's own, put a proxy with TLS in front.
    pub async fn serve_tcp(self, listener: TcpListener, token: Token) -> Infallible {
        let guarded = middleware::from_fn_with_state(token, guard);
        serve(listener, self.router().layer(guarded)).await
    }
}

/// Serves connections in tasks, which end with this future.
async fn serve(mut listener: impl Listener, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        let (stream, _) = listener.accept().await;
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // A connection that breaks, or is ended, is its client's to tell of.
            let _ = connection.await;
            drop(place);
        });
        // Those that have ended are let go of.
        while connections.try_join_next().is_some() {}
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

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::time::Instant;

    use super::*;
    use crate::Store;

    /// Connections that a test makes.
    struct Incoming(UnboundedReceiver<DuplexStream>);

    impl Listener for Incoming {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(stream) => (stream, ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_nothing_is_ended_and_its_place_is_free() {
        let (connect, incoming) = unbounded_channel();
        let admin = Admin::new(Store::builder().open_in_memory().unwrap());
        let serving = tokio::spawn(serve(Incoming(incoming), admin.router()));
        let mut silent = Vec::new();
        for _ in 0..=MAX_CONNECTIONS {
            let (client, server) = duplex(4096);
            connect.send(server).unwrap();
            silent.push(client);
        }
        let mut last = silent.pop().unwrap();
        last.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let began = Instant::now();
        let mut head = [0; 15];
        last.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        assert!(began.elapsed() >= HEAD_WITHIN, "it has waited for a place");
        for mut client in silent {
            assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0, "it was ended");
        }
        serving.abort();
    }
}
