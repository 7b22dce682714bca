//! A gRPC server of tonic's that places calls, and the order of its layers.
//!
//! ```text
//! cargo run -p refrain-examples --features tonic --example tonic -- DIR
//! ```
//!
//! Authentication must stand outside the idempotency layer: otherwise a client whose token was
//! revoked still gets its old answers replayed. tonic's `Server::builder().layer(..)` keeps the
//! order of `tower::ServiceBuilder`: the layer that is added *first* is the outermost. That is the
//! reverse of axum's `Router::layer`, where the layer that is added *last* is. So in tonic add the
//! authentication first and the idempotency layer after it. An interceptor that is attached to one
//! service (`CallsServer::with_interceptor`, or `InterceptedService`) is inside every layer of the
//! server, and a replay never reaches it: attach it as an `InterceptorLayer`, before the
//! idempotency layer.
//!
//! | place | outermost layer | add authentication |
//! | --- | --- | --- |
//! | axum, `Router::layer` | the last | after the idempotency layer |
//! | `tower::ServiceBuilder::layer` | the first | before it |
//! | tonic, `Server::builder().layer` | the first | before it |
//! | tonic, `with_interceptor` on a service | inside all layers of the server | never there alone |

pub mod calls;

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use refrain::Store;
use refrain::server::IdempotencyLayer;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::{Request, Status};

use calls::Calls;

/// The time that handlers may take after the server has stopped.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: tonic DIR")?;
    let store = Store::open(path)?;
    let tokens = Tokens::default();
    tokens.accept("YOUR_API_KEY");
    let server = Server::builder()
        .layer(InterceptorLayer::new(move |request| tokens.check(request))) // first: outermost
        .layer(IdempotencyLayer::new(store.clone()))
        .add_service(Calls::default());
    writeln!(std::io::stdout(), "listening on http://127.0.0.1:50051")?;
    let stop = async { tokio::signal::ctrl_c().await.expect("the signal can be awaited") };
    server.serve_with_shutdown(([127, 0, 0, 1], 50051).into(), stop).await?;
    store.close(CLOSE_WITHIN).await?;
    Ok(())
}

/// The bearer tokens that are accepted now.
#[derive(Clone, Default)]
pub struct Tokens(Arc<RwLock<HashSet<String>>>);

impl Tokens {
    /// Accepts a token from now on.
    pub fn accept(&self, token: &str) {
        self.0.write().expect("no writer panics").insert(format!("Bearer {token}"));
    }

    /// Refuses a token from now on.
    pub fn revoke(&self, token: &str) {
        self.0.write().expect("no writer panics").remove(&format!("Bearer {token}"));
    }

    /// Accepts a request if its token is accepted.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` if it is not.
    pub fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let tokens = self.0.read().expect("no writer panics");
        let token = request.metadata().get("authorization").and_then(|token| token.to_str().ok());
        match token.is_some_and(|token| tokens.contains(token)) {
            true => Ok(request),
            false => Err(Status::unauthenticated("the token is unknown")),
        }
    }
}
