//! The recorder and the subscriber of the process, which tests have one after the other.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use http::{Request, Response};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use parking_lot::{Mutex, MutexGuard};
use refrain::server::IdempotencyLayer;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
use tower::ServiceExt;

pub(crate) const TOKEN: &str = "sk_live_secret";
/// The length of a large response.
const LARGE: usize = 30_000;

/// What is watched from its beginning on; the metrics since the last look, because each look sets
/// them back.
pub(crate) struct Watch {
    watched: &'static Watched,
    _alone: MutexGuard<'static, ()>,
}

struct Watched {
    snapshotter: Snapshotter,
    lines: Lines,
    alone: Mutex<()>,
}

/// A metric with one value of its label.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) kind: MetricKind,
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) description: String,
    pub(crate) value: DebugValue,
}

/// Lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

static WATCHED: LazyLock<Watched> = LazyLock::new(|| {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    Watched { snapshotter, lines, alone: Mutex::default() }
});

impl Watch {
    pub(crate) fn begin() -> Self {
        let watched = &*WATCHED;
        let watch = Self { watched, _alone: watched.alone.lock() };
        watched.lines.0.lock().clear();
        watch.look();
        watch
    }

    /// All that was logged.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.watched.lines.0.lock().clone()).unwrap()
    }

    /// The lines with these words.
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        let text = self.text();
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    /// All metrics since the last look.
    pub(crate) fn look(&self) -> Vec<Metric> {
        look(&self.watched.snapshotter)
    }

    /// All metrics, a line each.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let lines = self.look().into_iter().map(|Metric { name, labels, value, .. }| {
            let labels: Vec<_> =
                labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let labels = match labels.as_slice() {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            match value {
                DebugValue::Counter(count) => format!("{name}{labels} {count}"),
                other => format!("{name}{labels} {other:?}"),
            }
        });
        lines.collect()
    }
}

/// All metrics since the last look.
pub(crate) fn look(snapshotter: &Snapshotter) -> Vec<Metric> {
    let seen = snapshotter.snapshot().into_vec().into_iter();
    let metrics = seen.map(|(key, _, description, value)| Metric {
        kind: key.kind(),
        name: key.key().name().to_owned(),
        labels: (key.key().labels())
            .map(|label| (label.key().to_owned(), label.value().to_owned()))
            .collect(),
        description: description.map(|text| text.to_string()).unwrap_or_default(),
        value,
    });
    metrics.collect()
}

pub(crate) fn operation(key: &str) -> Operation {
    let scope = Scope::from_api_key(TOKEN);
    Operation::new(scope, key.parse().unwrap(), Fingerprint::of(["POST"]))
}

/// Completes operations with large responses until new keys are refused, and returns their number.
pub(crate) fn fill(store: &Store) -> u64 {
    let body = Bytes::from(vec![b'x'; LARGE]);
    for done in 0..1000 {
        if store.stats().refusing.is_some() {
            return done;
        }
        match store.begin(&operation(&format!("fill-{done}"))).wait() {
            Ok(Outcome::Execute(permit)) => {
                permit.complete(&Response::new(body.clone())).wait().unwrap();
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => return done,
        }
    }
    panic!("it takes any number")
}

/// A server whose handler answers at once. Its keys need as much room as any.
pub(crate) fn app(store: &Store) -> Router {
    let layer = IdempotencyLayer::new(store.clone()).durable(true).wait(Duration::ZERO);
    Router::new().route("/calls", post(|| async { "placed" })).layer(layer)
}

/// Sends a request, and returns the status of its answer.
pub(crate) async fn ask(app: &Router, key: &str) -> u16 {
    let request = Request::post("/calls")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("idempotency-key", key)
        .body(Body::from("{}"))
        .unwrap();
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
