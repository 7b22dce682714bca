//! The state of a store in one word, with its reasons.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, WithCauses};
use crate::stats::{Refusing, Stats};

/// The state of a store, from [`Store::health`](crate::Store::health).
///
/// ```
/// use refrain::{Health, Store};
///
/// # fn main() -> refrain::Result<()> {
/// let store = Store::builder().open_in_memory()?;
/// assert!(matches!(store.health(), Health::Ok));
/// assert!(store.health().is_ready());
///
/// store.close(std::time::Duration::ZERO).wait()?;
/// assert_eq!(store.health().to_string(), "stopped: store is stopped");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub enum Health {
    /// The store does all its work.
    Ok,
    /// The store records verdicts, and replays unless it is away from its path, and somebody should
    /// look at the reasons.
    Degraded(Vec<Concern>),
    /// The store takes no more work: it was closed, has failed, or belongs to another process. The
    /// error is the one that every call gets.
    Stopped(Error),
}

/// A reason for which a store is degraded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concern {
    /// New keys are refused, or wait for room.
    Refusing(Refusing),
    /// Background work, or the latest statement to the database, did not succeed: the text of
    /// [`Stats::last_trouble`].
    Trouble(String),
    /// So many keys stay held until a restart, because their outcome is unknown and could not be
    /// recorded.
    Retained(usize),
    /// So many keys have a record that could not be read when it was sealed:
    /// [`Stats::damaged_records`].
    Damaged(u64),
    /// So many files have damage that costs no key so far: [`Stats::damaged_files`]. The disk may
    /// be failing.
    DamagedFiles(usize),
    /// The wall clock and the store's time disagree by this much; see [`Stats::clock_jump`].
    ClockJump(Duration),
}

impl Health {
    /// Returns the health of a store that takes work, by its figures.
    pub(crate) fn of(stats: &Stats) -> Self {
        let Stats { refusing, last_trouble, retained, clock_jump, .. } = stats;
        let Stats { damaged_records, damaged_files, .. } = stats;
        let concerns = [
            refusing.map(Concern::Refusing),
            last_trouble.clone().map(Concern::Trouble),
            (*retained > 0).then_some(Concern::Retained(*retained)),
            (*damaged_records > 0).then_some(Concern::Damaged(*damaged_records)),
            (*damaged_files > 0).then_some(Concern::DamagedFiles(*damaged_files)),
            clock_jump.map(Concern::ClockJump),
        ];
        let concerns: Vec<_> = concerns.into_iter().flatten().collect();
        if concerns.is_empty() { Self::Ok } else { Self::Degraded(concerns) }
    }

    /// Returns whether new keys are served, durable ones too, if only after a wait or once others have
    /// ended. While they are not, replays are served nevertheless, unless the store is stopped or away
    /// from its path.
    pub fn is_ready(&self) -> bool {
        let refuses = |concern: &Concern| match concern {
            Concern::Refusing(why) => !matches!(why, Refusing::Behind | Refusing::Reserved),
            _ => false,
        };
        match self {
            Self::Ok => true,
            Self::Degraded(concerns) => !concerns.iter().any(refuses),
            Self::Stopped(_) => false,
        }
    }
}

/// One line: the word, and then the reasons.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Degraded(concerns) => {
                f.write_str("degraded")?;
                for (n, concern) in concerns.iter().enumerate() {
                    write!(f, "{} {concern}", if n == 0 { ":" } else { ";" })?;
                }
                Ok(())
            }
            Self::Stopped(error) => write!(f, "stopped: {}", WithCauses(error)),
        }
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusing(why) => write!(f, "{why}"),
            Self::Trouble(trouble) => write!(f, "{trouble}"),
            Self::Retained(1) => f.write_str("1 key is held until a restart"),
            Self::Retained(keys) => write!(f, "{keys} keys are held until a restart"),
            Self::Damaged(1) => f.write_str("the record of 1 key is damaged"),
            Self::Damaged(keys) => write!(f, "the records of {keys} keys are damaged"),
            Self::DamagedFiles(1) => f.write_str("1 file is damaged in part"),
            Self::DamagedFiles(files) => write!(f, "{files} files are damaged in part"),
            Self::ClockJump(by) => {
                let minutes = by.as_secs() / 60;
                let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
                write!(f, "the clocks disagree by {days}d {hours}h {minutes}m")
            }
        }
    }
}
