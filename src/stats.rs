//! A store in numbers.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counters and sizes of a store, from [`Store::stats`](crate::Store::stats).
///
/// Counters start at zero when the store is opened. Another backend than the embedded engine sets
/// what it has: over PostgreSQL that is `in_flight`, `retained`, `refusing` and `last_trouble`, and
/// the rest stays zero.
///
/// ```
/// use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::builder().open_in_memory()?;
/// let scope = Scope::from_api_key("sk_live_51");
/// let operation = Operation::new(scope, "9b8cfa7a".parse()?, Fingerprint::of(["POST"]));
/// let Outcome::Execute(permit) = store.begin(&operation).wait()? else { unreachable!() };
/// assert_eq!(store.stats().in_flight, 1);
/// permit.release().wait()?;
/// assert_eq!(store.stats().in_flight, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stats {
    /// Operations in flight, waiting ones included.
    pub in_flight: usize,
    /// Keys that stay held for as long as the process lives, because their outcome is unknown and
    /// could not be recorded. They are not in flight.
    pub retained: usize,
    /// Durable claims without a verdict: held by a permit, or interrupted.
    pub open_claims: usize,
    /// Batches committed: writes and syncs.
    pub batches: u64,
    /// Entries committed, of all kinds.
    pub entries: u64,
    /// Bytes written to logs.
    pub log_bytes_written: u64,
    /// Logs that may decide a key, the active one included.
    pub logs: usize,
    /// Addresses indexed in memory for those logs.
    pub log_records: usize,
    /// Segments that may decide a key.
    pub segments: usize,
    /// Records in those segments, expired ones included.
    pub segment_records: u64,
    /// Keys in those segments whose record could not be read when it was sealed, expired ones
    /// included. They get [`Error::Corrupt`](crate::Error::Corrupt), unless the disk gives the record
    /// back.
    pub damaged_records: u64,
    /// Files of which a part was damaged when they were opened, such as the header of a log, that
    /// the store can do without. [`Store::verify`](crate::Store::verify) names the first, except a
    /// `MANIFEST`, which the opening has replaced by a whole one.
    pub damaged_files: usize,
    /// Memory that the segments' filters take, in bytes.
    pub filter_bytes: usize,
    /// Lookups in a segment, because its filter could not rule the key out.
    pub segment_lookups: u64,
    /// Segments sealed.
    pub segments_sealed: u64,
    /// Segments merged into others, or rewritten without what had expired.
    pub segments_merged: u64,
    /// Segments dropped because all in them had expired.
    pub segments_dropped: u64,
    /// Responses left out of their records because the disk was full.
    pub bodies_left_out: u64,
    /// The reason for which new keys are refused or held up now, if they are.
    pub refusing: Option<Refusing>,
    /// New keys that waited for room.
    pub waited_for_room: u64,
    /// New keys that were refused because there was no room, or gave up waiting for it.
    pub refused_for_room: u64,
    /// True if the next log is prepared. False for long means that the disk is full, or that another
    /// error, which is in `last_trouble`, keeps the log from being prepared.
    pub next_log_ready: bool,
    /// The difference, in either direction, between the time since the previous run of the process
    /// by the wall clock and the time that the store counted, if it is more than a minute.
    ///
    /// The store found the difference when it was opened, and could not explain it. Records from
    /// before may be replayed for longer by it. `None` again once the clocks agree.
    pub clock_jump: Option<Duration>,
    /// True if the process cannot see in which boot of the machine it runs, as in some containers
    /// and sandboxes. From one process to the next, the store then counts by the boot clock or by
    /// the wall clock, whichever says less.
    pub boot_unknown: bool,
    /// The error of the latest round of the background thread, if it had one, with the whole chain
    /// of its causes. A transient one, such as a full disk, disappears after a round without errors.
    pub last_trouble: Option<String>,
    /// True if a write or a sync has failed. The store then takes no more work, and only a new
    /// process can open it.
    pub failed: bool,
}

/// The counts of one scope, from [`Store::count`](crate::Store::count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Live records.
    pub records: u64,
    /// Records that cannot be read, as far as counting reads them: not those in logs that are kept for
    /// their records. Those whose key cannot be read either count in each scope.
    pub damaged: u64,
    /// Keys in flight in this process, retained ones included.
    pub in_flight: usize,
    /// Interrupted runs that no request is handling now.
    pub interrupted: usize,
}

/// The reason for which new keys are refused or held up, in [`Stats::refusing`]. Replays and
/// verdicts go on, but for [`Away`](Self::Away).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusing {
    /// The disk is full: new keys get [`Error::Full`](crate::Error::Full).
    Full,
    /// The store commits faster than it seals: new keys wait for their turn.
    Behind,
    /// The operations in flight have reserved all of a log: new keys get
    /// [`Error::Limit`](crate::Error::Limit).
    Reserved,
    /// The limit of operations without a verdict is reached: new keys get
    /// [`Error::Limit`](crate::Error::Limit) until some are judged, or expire.
    OpenClaims,
    /// Background work does not succeed, or the database does not answer: new keys get
    /// [`Error::Unavailable`](crate::Error::Unavailable).
    Unavailable,
    /// The store is not at its path: keys are neither begun nor replayed, and get
    /// [`Error::Foreign`](crate::Error::Foreign).
    Away,
}

impl fmt::Display for Refusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "new keys are refused: the disk is full",
            Self::Behind => "new keys wait: sealing is behind",
            Self::Reserved => "new keys are refused: operations in flight have all the room",
            Self::OpenClaims => "new keys are refused: too many operations have no verdict",
            Self::Unavailable => "new keys are refused: the store is unavailable",
            Self::Away => "new keys are refused: the store is not at its path",
        })
    }
}
