//! The pictures, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use plotters::coord::ranged1d::IntoSegmentedCoord;
use plotters::prelude::*;

use super::{COMMITTERS, COMPLETES, KIB, LOOKUPS, Results, SPACE, What};
use crate::rivals::Kind;

const SIZE: (u32, u32) = (900, 480);
const REFRAIN: RGBColor = RGBColor(200, 60, 40);
const OTHER: RGBColor = RGBColor(110, 120, 135);

/// The file of the picture that belongs to a table.
pub fn picture(title: &str) -> Option<&'static str> {
    match title {
        COMPLETES => Some("completes.svg"),
        LOOKUPS => Some("lookups.svg"),
        SPACE => Some("written.svg"),
        _ => None,
    }
}

pub fn write(results: &Results, directory: &Path) -> Result<()> {
    completes(results, &directory.join("completes.svg"))?;
    let lookups = results.lookups.iter().filter(|it| it.what == What::Hit);
    let lookups: Vec<_> = lookups.map(|it| (it.kind.name(), it.ns() / 1000.0)).collect();
    bars("A replay, in us", &lookups, &directory.join("lookups.svg"))?;
    let written = results.space.iter().filter(|it| it.kind != Kind::Fdatasync);
    let written: Vec<_> = written.map(|it| (it.kind.name(), it.written)).collect();
    bars("Bytes written for a record of 1 KB", &written, &directory.join("written.svg"))
}

/// One line a store, over the number of committers.
fn completes(results: &Results, path: &Path) -> Result<()> {
    let measured = |kind: &&Kind| results.completes(**kind, COMMITTERS[0], KIB).is_some();
    let kinds: Vec<Kind> = Kind::value_variants().iter().filter(measured).copied().collect();
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Durable completes per second, 1 KB", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d((1_f64..300_f64).log_scale(), (200_f64..400_000_f64).log_scale())
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("committers")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(WHITE.mix(0.0))
        .draw()
        .map_err(|error| failed(&error))?;
    for (at, kind) in kinds.into_iter().enumerate() {
        let color = Palette99::pick(at).to_rgba();
        let width = if kind == Kind::Refrain { 4 } else { 2 };
        let points = COMMITTERS.iter().filter_map(|&committers| {
            let rate = results.completes(kind, committers, KIB)?.per_second();
            Some((committers as f64, rate))
        });
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(width)).point_size(3))
            .map_err(|error| failed(&error))?
            .label(kind.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(OTHER)
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

fn bars(title: &str, values: &[(String, f64)], path: &Path) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let highest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d((0..values.len()).into_segmented(), 0_f64..highest * 1.1)
        .map_err(|error| failed(&error))?;
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) => values.get(*at).map_or_else(String::new, |it| it.0.clone()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(values.len())
        .x_label_formatter(&name)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .light_line_style(WHITE.mix(0.0))
        .draw()
        .map_err(|error| failed(&error))?;
    let bars = values.iter().enumerate().map(|(at, (name, value))| {
        let color = if name.starts_with("refrain") { REFRAIN } else { OTHER };
        let (from, to) = (SegmentValue::Exact(at), SegmentValue::Exact(at + 1));
        let mut bar = Rectangle::new([(from, 0.0), (to, *value)], color.filled());
        bar.set_margin(0, 0, 12, 12);
        bar
    });
    chart.draw_series(bars).map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}
