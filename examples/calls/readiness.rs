//! The probe of a load balancer: whether new calls are taken.

use axum::extract::State;
use axum::http::StatusCode;
use refrain::{Concern, Health, Store};

/// Answers 200 while new calls are taken, even if they have to wait, and 503 otherwise. The body
/// says why, in words that may be shown to anyone: the errors are in the log.
pub(crate) async fn ready(State(store): State<Store>) -> (StatusCode, String) {
    let health = store.health();
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, describe(&health))
}

fn describe(health: &Health) -> String {
    match health {
        Health::Ok => "ok\n".into(),
        Health::Degraded(concerns) => {
            let refusing = concerns.iter().find_map(|concern| match concern {
                Concern::Refusing(why) => Some(format!("degraded: {why}\n")),
                _ => None,
            });
            refusing.unwrap_or_else(|| "degraded\n".into())
        }
        Health::Stopped(_) => "stopped\n".into(),
    }
}
