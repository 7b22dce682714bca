//! The names in a store's directory, sorted by kind.

use std::sync::Arc;

use crate::engine::disk::{Disk, LOST_AND_FOUND};
use crate::engine::log::{Log, log_name};
use crate::engine::segment::segment_name;
use crate::error::{Error, Result};

use super::backup::UNFINISHED;
use super::manifest::{LOCK, MANIFEST, Manifest};

/// The most names of others, and characters of each, in the error that reports them.
const MAX_NAMED: usize = 3;
const MAX_NAME_CHARS: usize = 40;

/// The names in the directory, by kind. Names that are not the store's are left alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) logs: Vec<u64>,
    pub(super) segments: Vec<u64>,
    /// Unfinished files, which are removed at the next opening.
    temporaries: Vec<String>,
    /// True if there is a `MANIFEST`.
    pub(super) manifest: bool,
    /// Names that are not the store's.
    others: Vec<String>,
}

impl Names {
    /// Lists the directory.
    pub(super) fn list(disk: &dyn Disk) -> Result<Self> {
        let mut names = Self::default();
        let all = disk.names().map_err(|error| Error::io("list", disk.path(), error))?;
        for name in all {
            let generation = |digits: &str| {
                let canonical = digits.len() == 16 && !digits.contains(|c: char| c.is_uppercase());
                canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
            };
            match name.split_once('.') {
                Some((digits, "log")) if generation(digits).is_some() => {
                    names.logs.extend(generation(digits));
                }
                Some((digits, "redb")) if generation(digits).is_some() => {
                    names.segments.extend(generation(digits));
                }
                Some((digits, "log.tmp" | "redb.tmp")) if generation(digits).is_some() => {
                    names.temporaries.push(name);
                }
                Some((LOCK | MANIFEST, "tmp")) => names.temporaries.push(name),
                None if name == LOCK => {}
                None if name == MANIFEST => names.manifest = true,
                _ => names.others.push(name),
            }
        }
        Ok(names)
    }

    /// Checks that a directory without a `LOCK` is empty, or holds only the leftovers of a creation
    /// that was cut short.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a store is here that has lost its `LOCK`, and [`Error::Foreign`] if
    /// the directory holds files of others.
    pub(super) fn expect_none_but_leftovers(&self, disk: &dyn Disk) -> Result<()> {
        if self.manifest || !self.logs.is_empty() || !self.segments.is_empty() {
            let missing = Error::corrupt(disk.path_of(LOCK), "it is missing");
            return Err(missing.or_salvage("no record"));
        }
        if self.has_recovered_files() {
            let reason = "its lost+found holds recovered files, and there is no LOCK";
            return Err(Error::foreign(disk.path(), reason));
        }
        if !self.others.is_empty() {
            let reason = format!("it holds other files, and no LOCK: {}", named(&self.others));
            return Err(Error::foreign(disk.path(), reason));
        }
        Ok(())
    }

    /// Returns true if `fsck` has put files aside that may be the store's.
    pub(super) fn has_recovered_files(&self) -> bool {
        self.others.iter().any(|name| name == LOST_AND_FOUND)
    }

    /// Returns true if the directory is marked as that of a backup under way.
    pub(super) fn is_unfinished_backup(&self) -> bool {
        self.others.iter().any(|name| name == UNFINISHED)
    }

    /// Removes the mark of an unfinished backup from one that was finished, for it has opened.
    pub(super) fn remove_backup_marker(&self, disk: &dyn Disk) {
        if self.is_unfinished_backup() {
            // One that stays does no harm.
            let _ = disk.remove(UNFINISHED);
        }
    }

    /// Returns the names of the store's files that `manifest` does not list.
    pub(super) fn leftovers(&self, manifest: &Manifest) -> impl Iterator<Item = String> {
        let logs = self.logs.iter().filter(|log| !manifest.lists_log(**log));
        let segments = self.segments.iter().filter(|file| !manifest.lists_segment(**file));
        let named = logs.map(|log| log_name(*log)).chain(segments.map(|file| segment_name(*file)));
        named.chain(self.temporaries.iter().cloned())
    }

    /// Returns these names without the logs and segments that were listed once, and are not listed by
    /// `manifest` any more.
    pub(super) fn without_leftovers(&self, manifest: Option<&Manifest>) -> Self {
        let Some(manifest) = manifest else { return self.clone() };
        // What came after an old copy of MANIFEST is listed by none.
        let is_new = |number: &u64| *number >= manifest.next_generation;
        let mut names = self.clone();
        names.logs.retain(|log| is_new(log) || manifest.lists_log(*log));
        names.segments.retain(|file| is_new(file) || manifest.lists_segment(*file));
        names
    }

    /// Removes the store's files that `manifest` does not list, except the logs in `unused`.
    pub(super) fn remove_leftovers(
        &self,
        disk: &dyn Disk,
        manifest: &Manifest,
        unused: &[Arc<Log>],
    ) {
        for name in self.leftovers(manifest) {
            if unused.iter().all(|log| log.name != name) {
                // A leftover does no harm, and the next opening tries again.
                let _ = disk.remove(&name);
            }
        }
    }

    /// Removes unfinished files.
    pub(super) fn remove_temporaries(&self, disk: &dyn Disk) {
        for name in &self.temporaries {
            // A leftover does no harm, and the next opening tries again.
            let _ = disk.remove(name);
        }
    }

    /// Returns the highest generation in use, or 0.
    pub(super) fn max_generation(&self) -> u64 {
        self.logs.iter().chain(&self.segments).copied().max().unwrap_or_default()
    }
}

/// Names the first few of these, each cut to a bounded length and with its control characters
/// escaped.
fn named(names: &[String]) -> String {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_unstable();
    let shown = sorted.iter().take(MAX_NAMED).map(|name| {
        let mut shown: String = name.chars().take(MAX_NAME_CHARS).collect();
        if shown.len() < name.len() {
            shown.push('…');
        }
        shown.escape_debug().to_string()
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_of(names: &[&str]) -> String {
        named(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_names_of_others_are_bounded_in_number_and_length() {
        assert_eq!(named_of(&["b", "a"]), "a, b");
        assert_eq!(named_of(&["d", "c", "b", "a"]), "a, b, c and 1 more");
        assert_eq!(named_of(&["n".repeat(41).as_str()]), format!("{}…", "n".repeat(40)));
        assert_eq!(named_of(&["n".repeat(40).as_str()]), "n".repeat(40));
        assert_eq!(named_of(&["two\nlines\u{1b}[31m"]), "two\\nlines\\u{1b}[31m");
    }
}
