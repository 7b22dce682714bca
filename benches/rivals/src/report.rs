//! The report: tables to read, and pictures.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Table, presets};

use crate::goals::goals;
use crate::parts::{COMMITTERS, KIB};
use crate::results::{Results, What};
use crate::rivals::Kind;

mod plot;

pub fn print(results: &Results) {
    for (title, table) in tables(results) {
        println!("\n{title}\n{table}");
    }
    for (kind, reason) in &results.skipped {
        println!("skipped: {}: {reason}", kind.name());
    }
}

/// Writes `README.md` and its pictures.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    let machine = &results.machine;
    let mut text = String::from("# refrain and its rivals\n\n");
    writeln!(
        text,
        "Written by `cargo run --release --manifest-path benches/rivals/Cargo.toml` on {}: {}, {} \
         cores, Linux {}, {}. Absolute figures are this machine's; compare within a table.{} {} \
         records of 1 KB were there before, and completes and lookups are medians of {} interleaved \
         rounds; the other tables are one sample each.\n",
        machine.date,
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.file_system,
        if results.quick { " **A quick run: too little of everything to be judged.**" } else { "" },
        results.records,
        results.rounds,
    )?;
    let versions = machine.versions.iter().map(|(name, version)| format!("{name} {version}"));
    writeln!(text, "Versions: {}.\n", versions.collect::<Vec<_>>().join("; "))?;
    for (kind, reason) in &results.skipped {
        writeln!(text, "Skipped: {}: {reason}.\n", kind.name())?;
    }
    text.push_str(METHOD);
    for (title, mut table) in tables(results) {
        table.load_style(presets::ASCII_MARKDOWN);
        writeln!(text, "\n## {title}\n")?;
        if let Some(picture) = plot::picture(title) {
            writeln!(text, "![{title}]({picture})\n")?;
        }
        writeln!(text, "{table}")?;
    }
    std::fs::write(directory.join("README.md"), text)?;
    plot::write(results, directory)
}

const METHOD: &str = "\
Each store runs in a process of its own, which is killed for the reopenings. A record is a key of 68 bytes, 84 bytes
about it, and a body; each committer waits until its record is durable before it begins the next. RocksDB commits for
many by itself, and its log files are recycled; PostgreSQL and Redis have a connection for each committer, over a Unix
socket; redb, fjall, SQLite and LMDB have one thread that commits for all who wait. A store in the same process is
asked for the key before it records; a server does both in one step. `append` is a file that grows, with one write and
one fdatasync for all who wait; `fdatasync` writes a page and syncs it for each. Neither keeps an index.

Lookups of one thread: a hit is any record, the newest and the oldest are one in a hundred each, the newest of refrain's in its log.
Replays are compared with RocksDB's hits among all its records. Bytes written are what the disk was given
while the store was alone, the file system's journal and all that follows later included. Expiry deletes a thousand records at a time, found by their keys; refrain drops files.
A reopening finds the pages of files in memory.
";

const COMPLETES: &str = "Completes per second";
const LOOKUPS: &str = "Lookups";
const SPACE: &str = "Space for a record";

fn tables(results: &Results) -> Vec<(&'static str, Table)> {
    let tables = [
        ("What should hold", goal_table(results)),
        ("refrain's completes per second, of 1 KB, beside each other's", ratio_table(results)),
        (COMPLETES, complete_table(results)),
        (LOOKUPS, lookup_table(results)),
        (SPACE, space_table(results)),
        ("Reopening after a kill", reopening_table(results)),
        ("Expiry of all that was there before, beside 8 committers", expiry_table(results)),
    ];
    tables.into_iter().filter(|(_, table)| table.row_count() > 0).collect()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_header(header.iter().copied());
    table
}

fn goal_table(results: &Results) -> Table {
    let mut table = table(&["measure", "against", "reached", "wanted", ""]);
    for goal in goals(results) {
        let sign = if goal.at_least { "at least" } else { "at most" };
        table.add_row([
            goal.measure.clone(),
            goal.against.clone(),
            format!("{:.2}", goal.reached),
            format!("{sign} {}", goal.wanted),
            match goal.holds() {
                _ if results.quick => "not judged: quick".to_owned(),
                true => "holds".into(),
                false => "short".into(),
            },
        ]);
    }
    table
}

/// The others' figures as multiples of refrain's.
fn ratio_table(results: &Results) -> Table {
    let committers = COMMITTERS.map(|committers| committers.to_string());
    let mut table = table(&[&["beside"][..], &committers.each_ref().map(|it| &it[..])].concat());
    for kind in Kind::value_variants().iter().filter(|kind| **kind != Kind::Refrain) {
        let ratios = COMMITTERS.map(|committers| {
            let rate = |kind| Some(results.completes(kind, committers, KIB)?.per_second());
            Some(format!("{:.1}", rate(Kind::Refrain)? / rate(*kind)?))
        });
        if let [Some(a), Some(b), Some(c), Some(d)] = ratios {
            table.add_row([kind.name(), a, b, c, d]);
        }
    }
    table
}

fn complete_table(results: &Results) -> Table {
    let mut table = table(&[
        "store",
        "body",
        "committers",
        "per second",
        "spread",
        "p50 us",
        "p99 us",
        "us of CPU",
    ]);
    for it in &results.completes {
        let rates = it.rounds.iter().map(|ran| ran.per_second());
        let (low, high) =
            rates.fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(rate), high.max(rate)));
        table.add_row([
            it.kind.name(),
            it.body_bytes.to_string(),
            it.committers.to_string(),
            format!("{:.0}", it.per_second()),
            format!("{low:.0}-{high:.0}"),
            format!("{:.0}", it.p50_us()),
            format!("{:.0}", it.p99_us()),
            format!("{:.1}", it.cpu_us()),
        ]);
    }
    table
}

fn lookup_table(results: &Results) -> Table {
    let mut table = table(&["store", "what", "us", "us of CPU"]);
    for it in &results.lookups {
        let what = match it.what {
            What::Hit => "hit",
            What::HitInLog => "hit, newest",
            What::HitInOldest => "hit, oldest",
            What::Miss => "miss",
        };
        let us = |ns: f64| format!("{:.2}", ns / 1000.0);
        table.add_row([it.kind.name(), what.into(), us(it.ns()), us(it.cpu_ns())]);
    }
    table
}

fn space_table(results: &Results) -> Table {
    let mut table = table(&["store", "bytes written", "bytes on disk", "bytes of memory"]);
    for it in results.space.iter().filter(|it| it.kind != Kind::Fdatasync) {
        table.add_row([
            it.kind.name(),
            format!("{:.0}", it.written),
            format!("{:.0}", it.on_disk),
            format!("{:.0}", it.memory),
        ]);
    }
    table
}

fn reopening_table(results: &Results) -> Table {
    let mut table = table(&["store", "records", "body", "ms"]);
    for it in &results.reopenings {
        table.add_row([
            it.kind.name(),
            it.records.to_string(),
            it.body_bytes.to_string(),
            format!("{:.0}", it.millis),
        ]);
    }
    table
}

fn expiry_table(results: &Results) -> Table {
    let mut table =
        table(&["store", "seconds", "p99 us before", "p99 us beside", "longest us beside"]);
    for it in &results.expiries {
        table.add_row([
            it.kind.name(),
            format!("{}{:.2}", if it.expired.complete { "" } else { "over " }, it.expired.seconds),
            format!("{:.0}", it.expired.undisturbed.p99_us),
            format!("{:.0}", it.expired.beside.p99_us),
            format!("{:.0}", it.expired.beside.max_us),
        ]);
    }
    table
}
