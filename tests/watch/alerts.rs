//! P16: the alerts of the runbook, each evaluated on a store in the state that it stands for.

use metrics_util::debugging::DebugValue;

use crate::kit::{Metric, Watch};
use crate::states;

const RUNBOOK: &str = include_str!("../../docs/operate.md");

/// A rule of the runbook.
struct Alert {
    name: &'static str,
    /// A figure, or the ratio of two.
    figure: Figure,
    of: Option<Figure>,
    threshold: f64,
    section: &'static str,
}

/// `increase(name{label="value"}[5m])`, or without the increase.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
}

impl Figure {
    fn parse(text: &'static str) -> Self {
        let increase = text.strip_prefix("increase(");
        let text = increase.map_or(text, |text| text.strip_suffix("[5m])").unwrap());
        let is_count = text.split('{').next().unwrap().ends_with("_total");
        assert!(increase.is_none() || is_count, "{text} does not only increase");
        let Some((name, label)) = text.split_once('{') else {
            return Self { name: text, label: None };
        };
        let (label, value) = label.strip_suffix("\"}").unwrap().split_once("=\"").unwrap();
        Self { name, label: Some((label, value)) }
    }

    /// The figure in what was seen. Of a counter that is its increase since the look before.
    fn value(&self, seen: &[Metric]) -> f64 {
        let is_it = |metric: &&Metric| {
            let label = metric.labels.first().map(|(name, value)| (name.as_str(), value.as_str()));
            metric.name == self.name && label == self.label
        };
        match seen.iter().find(is_it).map(|metric| &metric.value) {
            Some(DebugValue::Counter(count)) => f64::from(u32::try_from(*count).unwrap()),
            Some(DebugValue::Gauge(value)) => value.into_inner(),
            other => panic!("{self:?} is {other:?}"),
        }
    }
}

impl Alert {
    fn parse(name: &'static str, expression: &'static str, section: &'static str) -> Self {
        let (figures, threshold) = expression.split_once(" > ").unwrap();
        let (figure, of) = match figures.split_once(" / ") {
            Some((figure, of)) => (figure, Some(Figure::parse(of))),
            None => (figures, None),
        };
        let threshold = threshold.parse().unwrap();
        Self { name, figure: Figure::parse(figure), of, threshold, section }
    }

    fn fires(&self, seen: &[Metric]) -> bool {
        let of = self.of.as_ref().map_or(1.0, |of| of.value(seen));
        self.figure.value(seen) / of > self.threshold
    }
}

fn alerts() -> Vec<Alert> {
    let rules = RUNBOOK.split("- alert: ").skip(1);
    let rules = rules.map(|rule| {
        let after = |start: &str| rule.split_once(start).unwrap().1;
        let expression = after("expr: ").lines().next().unwrap();
        let section = after("runbook: \"#").split('"').next().unwrap();
        Alert::parse(rule.lines().next().unwrap(), expression, section)
    });
    rules.collect()
}

#[test]
fn each_alert_leads_to_a_section_of_the_runbook() {
    let is_kept = |c: &char| c.is_alphanumeric() || "-_".contains(*c);
    let titles = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: Vec<String> = titles
        .map(|title| title.to_lowercase().replace(' ', "-").chars().filter(is_kept).collect())
        .collect();
    for alert in alerts() {
        assert!(anchors.iter().any(|anchor| anchor == alert.section), "{}", alert.section);
    }
}

#[tokio::test(start_paused = true)]
async fn p16_no_alert_fires_on_a_healthy_store() {
    let watch = Watch::begin();
    let _kept = states::healthy().await;
    let seen = watch.look();
    assert!(alerts().len() > 10, "is the runbook read at all?");
    for alert in alerts() {
        assert!(!alert.fires(&seen), "{}: {seen:?}", alert.name);
    }
}

#[tokio::test(start_paused = true)]
async fn p16_each_alert_fires_on_a_store_in_its_state() {
    let watch = Watch::begin();
    for alert in alerts() {
        watch.look();
        let _kept = states::bring(alert.name).await;
        let seen = watch.look();
        assert!(alert.fires(&seen), "{}: {seen:?}", alert.name);
    }
}
