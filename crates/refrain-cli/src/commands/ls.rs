//! `refrain ls`.

use clap::Args;
use http::StatusCode;
use jiff::Timestamp;
use refrain::{Key, Scope, Store};

use crate::entry::{Entry, HEADING, State};
use crate::failure::Result;
use crate::json::Line;
use crate::listing;
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;
use crate::time::Since;

/// List the keys of a scope in their order, and then its interrupted ones
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
    let scope = asked.owner.scope()?;
    let now = Timestamp::now();
    target.with(|store| {
        let mut list = output.list(HEADING)?;
        for entry in entries(store, scope, asked) {
            let entry = entry?;
            if asked.admits(&entry) {
                list.item(&entry.line(now), &Line::summary(&entry))?;
            }
        }
        list.end()
    })
}

/// Lists what may be admitted: not more of the records than the prefix demands.
fn entries<'a>(
    store: &'a Store,
    scope: Scope,
    asked: &'a Arguments,
) -> impl Iterator<Item = Result<Entry>> + 'a {
    let prefix = asked.prefix.as_deref().unwrap_or_default();
    let is_beyond = move |entry: &Entry| {
        entry.key().is_some_and(|key| key.as_str() > prefix && !key.as_str().starts_with(prefix))
    };
    let is_listed = !matches!(asked.state, Some(State::Interrupted));
    let records = is_listed.then(|| listing::records(store, scope, before(prefix).as_ref()));
    let records = records.into_iter().flatten();
    let records = records.take_while(move |entry| !entry.as_ref().is_ok_and(is_beyond));
    let interrupted = listing::interrupted(store, Some(scope));
    records.chain(interrupted.map(|past| Ok(Entry::Interrupted(past?))))
}

/// Returns a key shortly before all that begin with the prefix.
fn before(prefix: &str) -> Option<Key> {
    Key::from_stored(prefix.as_bytes().split_last()?.1)
}

impl Arguments {
    fn admits(&self, entry: &Entry) -> bool {
        let Self { prefix, since, status, state, .. } = self;
        let begins = |prefix: &String| {
            entry.key().is_some_and(|key| key.as_str().starts_with(prefix.as_str()))
        };
        let is_young = |since: &Since| entry.completed_at().is_none_or(|at| at >= since.0);
        prefix.as_ref().is_none_or(begins)
            && since.as_ref().is_none_or(is_young)
            && status.is_none_or(|status| entry.status() == Some(status))
            && state.is_none_or(|state| entry.state() == state)
    }
}
