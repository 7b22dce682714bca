//! `refrain watch`.

use std::thread;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use refrain::Stats;
use refrain::admin::Status;
use serde::Serialize;

use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::target::Target;
use crate::text::size;
use crate::time::moment;

const HEADING: &str = "TIME                  COMMITS/S  ENTRIES/S  BYTES/S    IN FLIGHT  OLDEST   WAITED  REFUSED  HEALTH";

/// Print a line about the server every second, until it is stopped
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The time between two lines
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,
    /// So many lines, and then end
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

fn interval(text: &str) -> std::result::Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_some = every >= Duration::from_millis(100);
    is_some.then_some(every).ok_or_else(|| "it is at least 100ms".to_owned())
}

/// The work of the server between two looks at it.
#[derive(Serialize)]
struct Moment {
    time: String,
    health: String,
    is_ready: bool,
    commits_per_second: f64,
    entries_per_second: f64,
    bytes_per_second: f64,
    in_flight: usize,
    oldest_in_flight_seconds: Option<f64>,
    /// New keys that waited for room, and that were refused for the want of it.
    waited_for_room: u64,
    refused_for_room: u64,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    target.with(|desk| {
        if !desk.is_served() {
            let said = "no server has the store open, so nothing happens there; see it with \
                        `refrain status`";
            return Err(Failure::Usage(said.into()));
        }
        watch(desk, asked, output)
    })
}

fn watch(desk: &Desk, asked: &Arguments, output: &mut Output) -> Result<()> {
    let mut list = output.list(HEADING)?;
    let mut before = desk.status()?;
    for _ in 0..asked.count.unwrap_or(u64::MAX) {
        pause(asked.every);
        let now = desk.status()?;
        if now.process != before.process {
            before = now;
            continue;
        }
        let moment = Moment::between(&before, &now, asked.every);
        list.item(&moment.line(), &moment)?;
        list.show()?;
        before = now;
    }
    list.end()
}

#[expect(clippy::disallowed_methods, reason = "a line is for a stretch of time")]
fn pause(time: Duration) {
    thread::sleep(time);
}

impl Moment {
    #[expect(clippy::cast_precision_loss, reason = "rates are shown with few digits")]
    fn between(before: &Status, now: &Status, elapsed: Duration) -> Self {
        let rate = |of: fn(&Stats) -> u64| {
            of(&now.stats).saturating_sub(of(&before.stats)) as f64 / elapsed.as_secs_f64()
        };
        let grown = |of: fn(&Stats) -> u64| of(&now.stats).saturating_sub(of(&before.stats));
        Self {
            time: Timestamp::now().to_string(),
            health: now.health.clone(),
            is_ready: now.is_ready,
            commits_per_second: rate(|stats| stats.batches),
            entries_per_second: rate(|stats| stats.entries),
            bytes_per_second: rate(|stats| stats.log_bytes_written),
            in_flight: now.stats.in_flight,
            oldest_in_flight_seconds: now.oldest_in_flight_seconds,
            waited_for_room: grown(|stats| stats.waited_for_room),
            refused_for_room: grown(|stats| stats.refused_for_room),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of bytes is a whole number of them, and not below zero"
    )]
    fn line(&self) -> String {
        let time = moment(Timestamp::now());
        let bytes = size(self.bytes_per_second as u64);
        let oldest = self.oldest_in_flight_seconds.map_or("-".into(), |age| format!("{age:.1} s"));
        format!(
            "{time:<20}  {:<9.0}  {:<9.0}  {bytes:<9}  {:<9}  {oldest:<7}  {:<6}  {:<7}  {}",
            self.commits_per_second,
            self.entries_per_second,
            self.in_flight,
            self.waited_for_room,
            self.refused_for_room,
            self.health
        )
    }
}
