//! Fills a store, kills the process that filled it, and measures its reopening.
//!
//! ```text
//! cargo run --release -p refrain-examples --example million -- --store DIR
//! cargo run --release -p refrain-examples --example million -- --store DIR --cold
//! cargo run --release -p refrain-examples --example million -- --store DIR --records 200000 --expire
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures are what it is for")]

use std::error::Error;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Lines};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use http::Response;
use refrain::{Fingerprint, Key, Operation, Outcome, Permit, Scope, Store};
use rustix::fs::{Advice, fadvise};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The number of records that are read back.
const SAMPLE: u64 = 1000;
/// The pause between two checks whether all records have expired.
const POLL: Duration = Duration::from_millis(100);

/// Fills a store, kills it, and measures its recovery.
#[derive(Clone, Parser)]
struct Options {
    /// The store's directory, which must be empty or missing.
    #[arg(long)]
    store: PathBuf,
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of each response's body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// Threads that commit at the same time.
    #[arg(long, default_value_t = 64)]
    committers: u64,
    /// The time for which records are kept: 24h, or 3m with --expire. Filling and checking must end
    /// within it.
    #[arg(long)]
    ttl: Option<humantime::Duration>,
    /// Waits until all records have expired, and measures the removal of their files.
    #[arg(long)]
    expire: bool,
    /// Drops the store's files from the page cache before the store is reopened.
    #[arg(long)]
    cold: bool,
    /// Fills the store and waits to be killed; used by the example to run itself.
    #[arg(long, hide = true)]
    fill: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if options.fill { fill(&options) } else { measure(&options) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("million: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    if fs::read_dir(&options.store).is_ok_and(|mut names| names.next().is_some()) {
        return Err(format!("{} is not empty", options.store.display()).into());
    }
    fill_and_kill(options)?;
    let store = reopen(options)?;
    read_back(&store, options)?;
    look_up_unknown(&store, options)?;
    if options.expire {
        expire(&store)?;
    }
    Ok(())
}

impl Options {
    fn open(&self) -> Result<Store> {
        let default = if self.expire { 3 * 60 } else { 24 * 60 * 60 };
        let ttl = self.ttl.map_or(Duration::from_secs(default), Into::into);
        Ok(Store::builder().ttl(ttl).open(&self.store)?)
    }

    /// A body that names its record.
    fn body(&self, n: u64) -> Bytes {
        let line = format!("record {n:012}\n");
        line.bytes().cycle().take(self.body).collect()
    }
}

fn scope() -> Scope {
    Scope::from_api_key("sk_live_51")
}

fn key(n: u64) -> Key {
    format!("9b8cfa7a-1c2d-4a88-b3c0-{n:012x}").parse().expect("a UUID is a key")
}

/// Writes all records, prints a line when it begins and when it is done, and keeps running.
fn fill(options: &Options) -> Result<()> {
    let store = options.open()?;
    println!("open");
    let next = AtomicU64::new(0);
    thread::scope(|threads| {
        for _ in 0..options.committers {
            threads.spawn(|| commit(&store, options, &next));
        }
    });
    println!("filled {}", store.stats().waited_for_room);
    loop {
        thread::park();
    }
}

fn commit(store: &Store, options: &Options, next: &AtomicU64) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= options.records {
            return;
        }
        if n > 0 && n.is_multiple_of(options.records.div_ceil(10)) {
            eprintln!("{n} of {} records", options.records);
        }
        let operation = Operation::new(scope(), key(n), Fingerprint::of([n.to_le_bytes()]));
        let permit = begin(store, &operation);
        let response = Response::new(options.body(n));
        permit.complete(&response).wait().expect("the disk takes it");
    }
}

fn begin(store: &Store, operation: &Operation) -> Permit {
    match store.begin(operation).wait() {
        Ok(Outcome::Execute(permit)) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

/// Runs this example as a child that fills the store, and kills the child when it is done.
fn fill_and_kill(options: &Options) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--fill")
        .stdout(Stdio::piped())
        .spawn()?;
    let filled = watch(&mut child);
    // The lock ends with the process.
    child.kill()?;
    child.wait()?;
    let (took, waited) = filled?;
    let seconds = took.as_secs_f64();
    println!("records              {}", options.records);
    println!(
        "filled in            {seconds:.2} s, {:.0} records/s",
        options.records as f64 / seconds
    );
    println!("keys that waited     {waited}");
    Ok(())
}

/// The time that the child takes to fill the store, and the number of keys that waited for room.
fn watch(child: &mut Child) -> Result<(Duration, u64)> {
    let output = child.stdout.take().ok_or("the child has no standard output")?;
    let mut lines = BufReader::new(output).lines();
    said(&mut lines, "open")?;
    let began = now();
    let waited = said(&mut lines, "filled")?.trim().parse()?;
    Ok((began.elapsed(), waited))
}

fn said(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> Result<String> {
    let line = lines.next().ok_or("the child ended")??;
    let rest = line.strip_prefix(word).ok_or_else(|| format!("the child said {line}"))?;
    Ok(rest.to_owned())
}

fn reopen(options: &Options) -> Result<Store> {
    let bytes = disk_bytes(&options.store)?;
    if options.cold {
        leave_page_cache(&options.store)?;
    }
    let (before, read_before) = (resident_kib()?, read_mib()?);
    let began = now();
    let store = options.open()?;
    let took = began.elapsed();
    let read = read_mib()? - read_before;
    let after = resident_kib()?;
    let stats = store.stats();
    let filter = stats.filter_bytes as f64 / stats.segment_records.max(1) as f64;
    println!("reopened in          {:.3} s, {read} MiB read from the disk", took.as_secs_f64());
    println!("in segments          {} records in {}", stats.segment_records, stats.segments);
    println!("in logs              {} records in {}", stats.log_records, stats.logs);
    println!("filters              {} bytes, {filter:.2} per sealed record", stats.filter_bytes);
    println!("resident             {before} KiB before opening, {after} KiB after");
    println!("on disk              {} bytes per record", bytes / options.records);
    Ok(store)
}

fn read_back(store: &Store, options: &Options) -> Result<()> {
    let random = RandomState::new();
    let began = now();
    for draw in 0..SAMPLE {
        let n = random.hash_one(draw) % options.records;
        let record =
            store.get(scope(), &key(n)).wait()?.ok_or_else(|| format!("record {n} is gone"))?;
        if record.response().map(Response::body) != Some(&options.body(n)) {
            return Err(format!("record {n} has another body").into());
        }
    }
    println!("read back            {SAMPLE} records in {:.3} s", began.elapsed().as_secs_f64());
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        println!("open files           {}", descriptors.count());
    }
    Ok(())
}

fn look_up_unknown(store: &Store, options: &Options) -> Result<()> {
    let began = now();
    for n in 0..SAMPLE {
        if store.get(scope(), &key(options.records + n)).wait()?.is_some() {
            return Err("a record was found that nobody has written".into());
        }
    }
    println!(
        "looked up            {SAMPLE} unknown keys in {:.3} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits for the last record to expire. The removal drops files and commits nothing.
fn expire(store: &Store) -> Result<()> {
    store.reap()?;
    let before = store.stats();
    let (mut stats, mut dropping) = (before.clone(), Duration::ZERO);
    while stats.segments > 0 || stats.log_records > 0 {
        thread::park_timeout(POLL);
        let began = now();
        store.reap()?;
        let took = began.elapsed();
        let dropped_before = std::mem::replace(&mut stats, store.stats()).segments_dropped;
        if stats.segments_dropped > dropped_before {
            dropping += took;
        }
    }
    let segments = stats.segments_dropped - before.segments_dropped;
    println!("dropped              {segments} segments in {:.3} s", dropping.as_secs_f64());
    println!("batches meanwhile    {}", stats.batches - before.batches);
    Ok(())
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "it measures, and waits for nothing by it")]
    Instant::now()
}

/// Drops all files of a directory from the page cache.
fn leave_page_cache(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let file = File::open(entry?.path())?;
        // What is not on the disk yet stays in the cache.
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// The mebibytes that this process has read from a disk so far.
fn read_mib() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes:"));
    Ok(line.ok_or("no read_bytes")?.trim().parse::<u64>()? / (1024 * 1024))
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?;
    Ok(kib.parse()?)
}

/// The disk space of the store, in blocks and not in lengths.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.blocks() * 512)).sum()
}
