//! `refrain ls`.

use clap::Args;
use http::StatusCode;
use jiff::Timestamp;
use refrain::admin::Entry;
use refrain::backend::Cursor;
use refrain::{Key, Scope};

use crate::desk::{Desk, List};
use crate::entry::{self, State};
use crate::failure::Result;
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;
use crate::time::Since;

/// List the keys of a scope, or of all, in their order, and then the interrupted ones
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
    /// Only keys that begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only records from a time on, as 2026-01-31T03:00:00Z, or not older than 2h 30m; a key without
    /// a time is listed
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only records whose response has this status
    #[arg(long, value_name = "CODE")]
    status: Option<StatusCode>,
    /// Only keys in this state
    #[arg(long)]
    state: Option<State>,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.named()?;
    let now = Timestamp::now();
    let of_all = scope.is_none();
    target.with(|desk| {
        let mut list = output.list(&entry::heading(of_all))?;
        for entry in entries(desk, scope, asked)? {
            let entry = entry?;
            if asked.admits(&entry) {
                list.item(&entry::line(&entry, now, of_all), &entry)?;
            }
        }
        list.end()
    })
}

/// Lists what may be admitted: not more of the records than the prefix demands.
fn entries<'a>(
    desk: &'a Desk,
    scope: Option<Scope>,
    asked: &'a Arguments,
) -> Result<List<'a, Entry>> {
    let interrupted = desk.interrupted(scope)?;
    if matches!(asked.state, Some(State::Interrupted)) {
        return Ok(interrupted);
    }
    let prefix = asked.prefix.as_deref().unwrap_or_default();
    let records = desk.records(scope, before(scope, prefix), false)?;
    // Of all scopes, the keys of the next one come behind.
    let is_beyond = move |entry: &Entry| {
        let is_beyond = |key: &str| key > prefix && !key.starts_with(prefix);
        scope.is_some() && entry.key().is_some_and(|key| is_beyond(key.as_str()))
    };
    let records = records.take_while(move |entry| !entry.as_ref().is_ok_and(is_beyond));
    Ok(Box::new(records.chain(interrupted)))
}

/// Returns a place shortly before all keys that begin with the prefix.
fn before(scope: Option<Scope>, prefix: &str) -> Option<Cursor> {
    let key = Key::from_stored(prefix.as_bytes().split_last()?.1)?;
    Some(Cursor { scope: scope?, key })
}

impl Arguments {
    fn admits(&self, entry: &Entry) -> bool {
        let Self { prefix, since, status, state, .. } = self;
        let begins = |prefix: &String| {
            entry.key().is_some_and(|key| key.as_str().starts_with(prefix.as_str()))
        };
        let is_young = |since: &Since| entry::completed_at(entry).is_none_or(|at| at >= since.0);
        prefix.as_ref().is_none_or(begins)
            && since.as_ref().is_none_or(is_young)
            && status.is_none_or(|status| entry::status(entry) == Some(status.as_u16()))
            && state.is_none_or(|state| State::of(entry) == state)
    }
}
