//! P16: the list of metrics.

use std::collections::BTreeSet;

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use refrain::Store;
use refrain::server::IdempotencyLayer;

use crate::kit::{Watch, look};

const HTTP: &str = include_str!("../../docs/http.md");

/// A row of the list in `docs/http.md`.
struct Row {
    name: &'static str,
    label: Option<&'static str>,
    kind: MetricKind,
    in_stats: &'static str,
}

fn rows() -> Vec<Row> {
    let rows = HTTP.lines().filter(|line| line.starts_with("| `refrain_"));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [metric, kind, _, in_stats] = cells[..] else { panic!("{row}") };
        let metric = metric.trim_matches('`');
        let (name, label) = match metric.trim_end_matches('}').split_once('{') {
            Some((name, label)) => (name, Some(label)),
            None => (metric, None),
        };
        let kind = match kind {
            "counter" => MetricKind::Counter,
            "gauge" => MetricKind::Gauge,
            "histogram" => MetricKind::Histogram,
            _ => panic!("{row}"),
        };
        Row { name, label, kind, in_stats }
    });
    rows.collect()
}

#[test]
fn p16_a_store_that_opens_registers_every_metric_of_the_documents_at_zero() {
    let _alone = Watch::begin();
    // One that has seen no other store.
    let recorder = DebuggingRecorder::new();
    let _layer = metrics::with_local_recorder(&recorder, || {
        IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
    });
    let seen = look(&recorder.snapshotter());
    let rows = rows();
    for metric in &seen {
        let row = rows.iter().find(|row| row.name == metric.name);
        let row = row.unwrap_or_else(|| panic!("{metric:?} is not in the documents"));
        let label = metric.labels.first().map(|(name, _)| name.as_str());
        assert_eq!((row.kind, row.label), (metric.kind, label), "{metric:?}");
        assert!(!metric.description.is_empty(), "{metric:?}");
        if let DebugValue::Counter(count) = metric.value {
            assert_eq!(count, 0, "{metric:?}");
        }
    }
    let seen: BTreeSet<_> = seen.iter().map(|metric| metric.name.as_str()).collect();
    let listed: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(listed, seen);
}

#[test]
fn p16_everything_in_the_statistics_is_a_metric() {
    let _alone = Watch::begin();
    let store = Store::builder().open_in_memory().unwrap();
    let stats = serde_json::to_value(store.stats()).unwrap();
    let rows = rows();
    for field in stats.as_object().unwrap().keys() {
        let named = format!("`{field}`");
        assert!(rows.iter().any(|row| row.in_stats.contains(&named)), "{field}");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_and_labels_that_there_are() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json");
    let text = std::fs::read_to_string(document).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = rows();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut asked = 0;
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        for after in expression.split("refrain_").skip(1) {
            let name = after.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
            let name = format!("refrain_{name}");
            // Two of what the exporter makes of a histogram.
            let whole = name.strip_suffix("_sum").or(name.strip_suffix("_count")).unwrap_or(&name);
            let row = rows.iter().find(|row| row.name == whole);
            let row = row.unwrap_or_else(|| panic!("{name} is no metric: {expression}"));
            let by = expression.split("sum by (").nth(1).and_then(|by| by.split(')').next());
            if let (Some(by), Some(label)) = (by, row.label) {
                assert_eq!(by, label, "{expression}");
            }
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
}
