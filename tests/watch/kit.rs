//! The recorder and the subscriber of the process, which tests have one after the other.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use parking_lot::{Mutex, MutexGuard};

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
        look(&watched.snapshotter);
        watch
    }

    /// All that was logged.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.watched.lines.0.lock().clone()).unwrap()
    }

    /// All metrics, a line each.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let lines = look(&self.watched.snapshotter).into_iter().map(
            |Metric { name, labels, value, .. }| {
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
            },
        );
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

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
