//! `refrain top`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;

use clap::Args;
use refrain::admin::{Completed, Entry};
use refrain::{Key, Scope};
use serde::Serialize;

use crate::failure::Result;
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;
use crate::text::{self, count, size};

/// Show how much the store or a scope has, the largest scopes, and the keys with the largest bodies
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
    /// So many of the largest
    #[arg(long, value_name = "N", default_value = "10")]
    count: NonZeroUsize,
}

/// The totals of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Totals {
    body_bytes: u64,
    records: u64,
    damaged: u64,
}

#[derive(Serialize)]
struct Top {
    /// `null` for all scopes.
    scope: Option<Scope>,
    #[serde(flatten)]
    totals: Totals,
    largest_scopes: Vec<Whole>,
    largest_bodies: Vec<Body>,
}

#[derive(Serialize)]
struct Whole {
    scope: Scope,
    #[serde(flatten)]
    totals: Totals,
}

#[derive(Serialize)]
struct Body {
    scope: Scope,
    key: Key,
    bytes: u64,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.named()?;
    let top = target.with(|desk| {
        let entries = desk.records(scope, None, true)?;
        Top::of(scope, entries, asked.count.get())
    })?;
    output.document(&top.shown(), &top)
}

impl Top {
    /// Keeps the largest only, however many entries there are. Those of a scope come together.
    fn of(
        scope: Option<Scope>,
        entries: impl Iterator<Item = Result<Entry>>,
        most: usize,
    ) -> Result<Self> {
        let mut totals = Totals::default();
        let mut scopes = Largest::new(most);
        let mut bodies = Largest::new(most);
        let mut current: Option<(Scope, Totals)> = None;
        for entry in entries {
            let entry = entry?;
            if let Some(scope) = entry.scope() {
                if let Some(ended) = current.take_if(|(ended, _)| *ended != scope) {
                    scopes.offer(ended.1, ended.0);
                }
                current.get_or_insert((scope, Totals::default())).1.add(&entry);
            }
            totals.add(&entry);
            let bytes = body_bytes(&entry);
            if let Entry::Completed(Completed { scope, key, .. }) = entry {
                bodies.offer(bytes, (scope, key));
            }
        }
        if let Some((scope, totals)) = current {
            scopes.offer(totals, scope);
        }
        let scopes = scopes.sorted().map(|(totals, scope)| Whole { scope, totals });
        let bodies = bodies.sorted().map(|(bytes, (scope, key))| Body { scope, key, bytes });
        let (largest_scopes, largest_bodies) = (scopes.collect(), bodies.collect());
        Ok(Self { scope, totals, largest_scopes, largest_bodies })
    }

    fn shown(&self) -> String {
        let Totals { records, damaged, body_bytes } = self.totals;
        let scope = self.scope.map(|scope| ("scope", scope.to_string()));
        let facts = text::fields(scope.into_iter().chain([
            ("records", records.to_string()),
            ("damaged", count(damaged, "key")),
            ("bodies", size(body_bytes)),
        ]));
        let scopes = match self.scope {
            Some(_) => String::new(),
            None => "\n".to_owned() + &self.scopes(),
        };
        format!("{facts}{scopes}\n{}", self.bodies())
    }

    fn scopes(&self) -> String {
        let heading = [["BODIES", "RECORDS", "SCOPE"].map(str::to_owned)];
        let scopes = self.largest_scopes.iter().map(|Whole { scope, totals }| {
            [size(totals.body_bytes), totals.records.to_string(), scope.to_string()]
        });
        text::rows(heading.into_iter().chain(scopes))
    }

    fn bodies(&self) -> String {
        let bodies = self.largest_bodies.iter();
        if self.scope.is_some() {
            let heading = [["BODY", "KEY"].map(str::to_owned)];
            let bodies = bodies.map(|body| [size(body.bytes), body.key.as_str().to_owned()]);
            return text::rows(heading.into_iter().chain(bodies));
        }
        let heading = [["BODY", "SCOPE", "KEY"].map(str::to_owned)];
        let bodies = bodies
            .map(|body| [size(body.bytes), body.scope.to_string(), body.key.as_str().to_owned()]);
        text::rows(heading.into_iter().chain(bodies))
    }
}

impl Totals {
    fn add(&mut self, entry: &Entry) {
        self.records += u64::from(matches!(entry, Entry::Completed(_)));
        self.damaged += u64::from(matches!(entry, Entry::Damaged(_)));
        self.body_bytes += body_bytes(entry);
    }
}

fn body_bytes(entry: &Entry) -> u64 {
    match entry {
        Entry::Completed(Completed { response: Some(Some(response)), .. }) => {
            response.body.0.len() as u64
        }
        _ => 0,
    }
}

/// The largest of what is offered: of two of a size, the one that is less.
struct Largest<S, T> {
    most: usize,
    /// The smallest first.
    kept: BinaryHeap<(Reverse<S>, T)>,
}

impl<S: Ord, T: Ord> Largest<S, T> {
    fn new(most: usize) -> Self {
        Self { most, kept: BinaryHeap::new() }
    }

    fn offer(&mut self, size: S, thing: T) {
        self.kept.push((Reverse(size), thing));
        if self.kept.len() > self.most {
            self.kept.pop();
        }
    }

    fn sorted(self) -> impl Iterator<Item = (S, T)> {
        self.kept.into_sorted_vec().into_iter().map(|(Reverse(size), thing)| (size, thing))
    }
}
