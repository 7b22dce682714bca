//! The report of a salvage: what was saved, and what was not.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::key::{Key, Scope};

/// The report of a salvage, from [`Store::salvage`](crate::Store::salvage).
///
/// `Display` gives one line for the figures and one for each loss.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Salvage {
    /// Records in the new store, exact and with their times.
    pub records: u64,
    /// Durable claims without a verdict in the new store. They are interrupted.
    pub open_claims: u64,
    /// Keys whose latest entry is known to be damaged. In the new store each answers
    /// [`Error::Corrupt`](crate::Error::Corrupt) until one TTL after it was written, or until an
    /// operator has found out what happened and calls [`Store::forget`](crate::Store::forget).
    pub damaged_keys: u64,
    /// Those of the damaged keys whose names can still be read.
    pub damaged: Vec<(Scope, Key)>,
    /// Files and ranges that could not be read.
    pub losses: Vec<Loss>,
}

/// A file, or a part of one, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The file.
    pub file: PathBuf,
    /// The bytes of it, if not all are lost.
    pub bytes: Option<Range<u64>>,
    /// The time in which it was written, if it is known.
    pub written: Option<(SystemTime, SystemTime)>,
    /// The property that does not hold.
    pub reason: String,
    /// True if it is not known which keys were in it. Of those the new store has an older record, if
    /// there was one, even if it had been forgotten; the others are missing, so their operations
    /// would run again.
    pub hides_keys: bool,
}

impl Salvage {
    /// Returns true if every key of the old store is in the new one, if only as a damaged one. Then
    /// a key that the new store does not know has never been used, or has expired. What cannot be told
    /// from a torn write does not count: the last batch of the newest log, if nothing of it verifies.
    pub fn is_absence_proven(&self) -> bool {
        !self.losses.iter().any(|loss| loss.hides_keys)
    }
}

/// One line for the figures, and one for each loss. The names of damaged keys are not in it.
impl fmt::Display for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, open_claims, damaged_keys, losses, .. } = self;
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(f, "saved {records} record{} and ", plural(*records))?;
        write!(f, "{open_claims} open claim{}, ", plural(*open_claims))?;
        match damaged_keys {
            1 => f.write_str("1 key is damaged")?,
            keys => write!(f, "{keys} keys are damaged")?,
        }
        for loss in losses {
            write!(f, "\n{loss}")?;
        }
        if !self.is_absence_proven() {
            f.write_str("\nkeys that were there may be missing now, and would run again;")?;
            f.write_str(" others may have an older record, even a forgotten one")?;
        }
        Ok(())
    }
}

/// One line: the place, the reason, and the consequence.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Range { start, end }) = &self.bytes {
            write!(f, " from byte {start} to {end}")?;
        }
        write!(f, ": {}", self.reason)?;
        if let Some((from, to)) = self.written {
            let seconds = |time: SystemTime| {
                time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
            };
            let (from, to) = (seconds(from), seconds(to));
            write!(f, "; it was written between {from} and {to}, in seconds since 1970")?;
        }
        if self.hides_keys {
            f.write_str("; the keys in it are not known")?;
        }
        Ok(())
    }
}
