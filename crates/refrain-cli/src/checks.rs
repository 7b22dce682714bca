//! Checks of the place where a store is, without opening it.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::holder::Holder;
use crate::target::{self, LOCK, MANIFEST};

mod clock;
mod disk;
mod limits;
mod permissions;
mod syncs;

/// A property that was checked.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    /// The state that was found.
    pub(crate) found: String,
    /// The change to make.
    pub(crate) advice: Option<&'static str>,
}

/// The judgement of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Somebody should look at it.
    Warn,
    /// A store does not work, or does not keep its promises, with it.
    Fail,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), advice: Some(advice) }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), advice: Some(advice) }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}

/// Checks everything about a store's directory.
///
/// # Errors
///
/// [`Failure::Missing`] and the like if there is no store, [`Failure::File`] if its directory cannot
/// be read.
pub(crate) fn all(directory: &Path) -> Result<Vec<Check>> {
    if [LOCK, MANIFEST].iter().all(|name| fs::symlink_metadata(directory.join(name)).is_err()) {
        return Err(target::missing(directory));
    }
    let failed = |source| Failure::File { action: "check", path: directory.into(), source };
    let holder = Holder::of(directory);
    let mut checks = vec![use_of(holder.as_ref()), files(directory)];
    checks.push(permissions::check(directory).map_err(failed)?);
    checks.extend(disk::checks(directory).map_err(failed)?);
    checks.push(syncs::check(directory));
    checks.push(clock::check(directory).map_err(failed)?);
    checks.extend(limits::checks(holder.map(|holder| holder.process)));
    Ok(checks)
}

/// Checks that the two files are there without which the store does not open.
fn files(directory: &Path) -> Check {
    let is_missing = |name: &&str| fs::symlink_metadata(directory.join(name)).is_err();
    match [LOCK, MANIFEST].iter().find(|name| is_missing(name)) {
        None => Check::ok("files", format!("{LOCK} and {MANIFEST} are there")),
        Some(name) => Check::fail(
            "files",
            format!("{name} is missing"),
            "restore it, or write what can be proved into a new store with `refrain salvage`",
        ),
    }
}

fn use_of(holder: Option<&Holder>) -> Check {
    let found = holder.map_or_else(
        || "no process that can be seen from here has it open".to_owned(),
        |holder| format!("it is open in {holder}"),
    );
    Check::ok("use", found)
}
