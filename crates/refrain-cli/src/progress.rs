//! A bar on a terminal while files are read.

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two looks at what was read.
const TICK: Duration = Duration::from_millis(100);
const TEMPLATE: &str = "{bar:40} {percent}%, {elapsed}";
/// The times that a verification reads a file: by pages, and by what is in them.
const READINGS: u64 = 2;

/// A bar that grows until it is dropped. There is none off a terminal.
pub(crate) struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Shows the progress of a verification of so many bytes: how much this process has read since
    /// now, as the system counts it.
    pub(crate) fn of_verifying(bytes: u64) -> Self {
        let total = bytes.saturating_mul(READINGS);
        let bar = ProgressBar::new(total);
        let Some(before) = bytes_read().filter(|_| !bar.is_hidden()) else { return Self(None) };
        // A bar without its style is a bar too.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        let (end, ended) = channel();
        let watch = move || {
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                bar.set_position(bytes_read().unwrap_or(before).saturating_sub(before).min(total));
            }
            bar.finish_and_clear();
        };
        let thread = thread::Builder::new().name("refrain-progress".into()).spawn(watch);
        // Without another thread the work is done without a bar.
        Self(thread.ok().map(|thread| (end, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            // It draws, and nothing depends on it.
            let _ = thread.join();
        }
    }
}

/// Returns the bytes that this process has read, where the system counts them.
fn bytes_read() -> Option<u64> {
    let counts = fs::read_to_string("/proc/self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}
