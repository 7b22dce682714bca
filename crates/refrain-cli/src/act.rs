//! An act on a key or on the store, as it is told.

use std::io::Write;

use refrain::admin::Done;
use refrain::{Key, Scope};
use serde::Serialize;

use crate::target::Target;

/// An act that was done, or that would be.
#[derive(Debug, Serialize)]
pub(crate) struct Act<'a> {
    pub(crate) act: &'static str,
    /// False for a dry run.
    pub(crate) done: bool,
    /// The store in which it was done.
    pub(crate) store: String,
    pub(crate) scope: String,
    pub(crate) key: &'a str,
}

impl<'a> Act<'a> {
    pub(crate) fn on_key(
        act: &'static str,
        done: bool,
        target: &Target,
        scope: Scope,
        key: &'a Key,
    ) -> Self {
        Self { act, done, store: target.name(), scope: scope.to_string(), key: key.as_str() }
    }
}

/// Says what was done, or would be.
pub(crate) fn said(done: bool, what: &str) -> String {
    if done { format!("done: {what}\n") } else { format!("would be done: {what}\n") }
}

/// Says on standard error that an act is not in the audit.
pub(crate) fn warn(done: &Done) {
    if let Some(reason) = &done.unnoted {
        // The act is done, whoever reads this.
        let _ = writeln!(std::io::stderr(), "refrain: it is done, and not in the audit: {reason}");
    }
}
