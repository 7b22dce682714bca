//! The ways in which a store is tried, side by side: each is a lane, and goes from seed to seed.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::trial::Failure;

/// One way of trying.
pub struct Lane {
    /// Its name.
    pub name: &'static str,
    /// The unit that the lane counts in.
    pub counts: &'static str,
    /// Runs a trial with a seed, and returns the count.
    pub trial: Box<dyn Fn(u64) -> Result<u64, Failure> + Send + Sync>,
    /// The lane's share of the time, relative to the others'.
    pub share: u32,
    /// The number of the lane's trials that may be under way at once.
    pub at_once: usize,
    /// The goal at which the lane is done.
    pub goal: Goal,
}

/// The goal at which a lane is done.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// The lane has counted so many, or time is up.
    Count(u64),
    /// The lane has been through so many seeds, from 0 on, or time is up.
    Seeds(u64),
    /// Time is up.
    Never,
}

/// The progress of a lane.
#[derive(Default)]
struct Progress {
    seeds: AtomicU64,
    count: AtomicU64,
    busy: AtomicU64,
    failures: Mutex<Vec<Failure>>,
    /// The number of failures that were reported.
    told: AtomicUsize,
    done: AtomicBool,
}

/// All lanes, and their progress.
pub struct Race {
    lanes: Vec<(Lane, Progress)>,
    first_seed: u64,
    start: Instant,
    until: Option<Duration>,
    /// Failures that end it all.
    max_failures: usize,
    /// The lane and the seed that each thread tries, and the time of the trial's start.
    under_way: Mutex<HashMap<ThreadId, (&'static str, u64, Duration)>>,
}

/// A trial that is under way.
struct Begun<'a> {
    lane: &'a Lane,
    progress: &'a Progress,
    seed: u64,
    since: Duration,
    /// The time that the trial is expected to take, in microseconds.
    expected: u64,
}

/// The time that the first trial of a lane is expected to take.
const FIRST_MICROS: u64 = 1_000_000;
/// A trial that takes longer has come to a standstill.
const STANDSTILL: Duration = Duration::from_secs(5 * 60);

impl Race {
    /// Gets ready. Without a time, the race goes on until every lane has reached its goal.
    pub fn new(
        lanes: Vec<Lane>,
        first_seed: u64,
        until: Option<Duration>,
        max_failures: usize,
    ) -> Self {
        let lanes = lanes.into_iter().map(|lane| (lane, Progress::default())).collect();
        #[expect(clippy::disallowed_methods, reason = "how long it takes is what is measured")]
        let start = Instant::now();
        Self { lanes, first_seed, start, until, max_failures, under_way: Mutex::default() }
    }

    /// Tries with so many threads, and calls `show` every second meanwhile.
    pub fn run(&self, threads: usize, mut show: impl FnMut(&Self)) {
        let running = AtomicU64::new(threads as u64);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(begun) = self.begin() {
                        let outcome = (begun.lane.trial)(begun.seed);
                        self.end(&begun, outcome);
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
            while running.load(Ordering::SeqCst) > 0 {
                thread::park_timeout(Duration::from_secs(1));
                show(self);
            }
        });
    }

    /// Begins a trial in the lane that is furthest behind its share.
    fn begin(&self) -> Option<Begun<'_>> {
        let since = self.start.elapsed();
        let time_is_up = self.until.is_some_and(|until| since >= until);
        if time_is_up || self.failures() >= self.max_failures {
            return None;
        }
        // Held throughout, so that no two threads choose from the same state.
        let mut under_way = self.under_way.lock();
        let open = self.lanes.iter().filter(|(lane, progress)| {
            let now = under_way.values().filter(|(name, ..)| *name == lane.name).count();
            !progress.done.load(Ordering::SeqCst) && now < lane.at_once
        });
        let (lane, progress) = open.min_by_key(|(lane, progress)| {
            progress.busy.load(Ordering::SeqCst) / u64::from(lane.share.max(1))
        })?;
        let number = progress.seeds.fetch_add(1, Ordering::SeqCst);
        let seed = match lane.goal {
            Goal::Seeds(seeds) => {
                progress.done.store(number + 1 >= seeds, Ordering::SeqCst);
                number
            }
            _ => self.first_seed.wrapping_add(number),
        };
        // Counted before, so that the others choose another lane meanwhile.
        let expected = progress.busy.load(Ordering::SeqCst).checked_div(number);
        let expected = expected.unwrap_or(FIRST_MICROS);
        progress.busy.fetch_add(expected, Ordering::SeqCst);
        under_way.insert(thread::current().id(), (lane.name, seed, since));
        Some(Begun { lane, progress, seed, since, expected })
    }

    fn end(&self, begun: &Begun<'_>, outcome: Result<u64, Failure>) {
        let Begun { lane, progress, since, expected, .. } = *begun;
        self.under_way.lock().remove(&thread::current().id());
        let took = self.start.elapsed().saturating_sub(since);
        let took = u64::try_from(took.as_micros()).unwrap_or(expected);
        // Wraps where it took less, and comes out right.
        progress.busy.fetch_add(took.wrapping_sub(expected), Ordering::SeqCst);
        match outcome {
            Ok(count) => {
                let all = progress.count.fetch_add(count, Ordering::SeqCst) + count;
                if matches!(lane.goal, Goal::Count(goal) if all >= goal) {
                    progress.done.store(true, Ordering::SeqCst);
                }
            }
            Err(failure) => progress.failures.lock().push(failure),
        }
    }

    /// A trial that has come to a standstill, if there is one: such a trial never ends.
    pub fn standstill(&self) -> Option<Failure> {
        let now = self.start.elapsed();
        let under_way = self.under_way.lock();
        let (name, seed, _) =
            under_way.values().find(|(.., begun)| now.saturating_sub(*begun) > STANDSTILL)?;
        let what = format!("{name}: it has not come to an end for {} s", STANDSTILL.as_secs());
        Some(Failure { what, again: format!("{name} --seed {seed}") })
    }

    /// The number of failures in all lanes.
    pub fn failures(&self) -> usize {
        self.lanes.iter().map(|(_, progress)| progress.failures.lock().len()).sum()
    }

    /// The failures since the last call, each with the name of its lane.
    pub fn new_failures(&self) -> Vec<(&'static str, Failure)> {
        let lanes = self.lanes.iter().flat_map(|(lane, progress)| {
            let failures = progress.failures.lock();
            let from = progress.told.swap(failures.len(), Ordering::SeqCst);
            failures[from..].iter().map(|failure| (lane.name, failure.clone())).collect::<Vec<_>>()
        });
        lanes.collect()
    }

    /// One line on how far it has come.
    pub fn line(&self) -> String {
        let mut line = format!("{:>6}s", self.start.elapsed().as_secs());
        for (lane, progress) in &self.lanes {
            let count = grouped(progress.count.load(Ordering::SeqCst));
            line.push_str(&format!("  {count} {}", lane.counts));
        }
        line.push_str(&format!("  {} failures", self.failures()));
        line
    }
}

/// The summary, as a table.
impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.lanes.iter().map(|(lane, progress)| {
            let busy = progress.busy.load(Ordering::SeqCst) / 1_000_000;
            [
                format!("{} ({})", lane.counts, lane.name),
                grouped(progress.count.load(Ordering::SeqCst)),
                format!("{busy} s"),
                progress.failures.lock().len().to_string(),
            ]
        });
        writeln!(
            f,
            "| {:<40} | {:>14} | {:>9} | {:>8} |",
            "tried", "times", "thread time", "failures"
        )?;
        writeln!(f, "| {:-<40} | {:->13}: | {:->10}: | {:->7}: |", "", "", "", "")?;
        for [what, times, busy, failures] in rows {
            writeln!(f, "| {what:<40} | {times:>14} | {busy:>11} | {failures:>8} |")?;
        }
        Ok(())
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
