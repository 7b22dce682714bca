//! `refrain resolve`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Response;
use refrain::backend::Past;
use refrain::{Attempt, Error, Key, Operation, Outcome, Scope, Store};

use crate::act::{Act, said};
use crate::address::Address;
use crate::answer;
use crate::consent::Consent;
use crate::entry::Entry;
use crate::failure::{Failure, Result};
use crate::listing;
use crate::output::Output;
use crate::owner::is_input;
use crate::target::Target;

/// The longest wait for room in the store.
const WAIT: Duration = Duration::from_secs(10);

/// Tell what an interrupted run did, so that its key is answered again
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    verdict: Verdict,
    #[command(flatten)]
    consent: Consent,
}

/// The outcome of the run.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Verdict {
    /// It was done, and this is its response, as `curl -i` prints one; `-` for standard input
    #[arg(long, value_name = "FILE")]
    complete: Option<PathBuf>,
    /// It was done, and its response is lost
    #[arg(long)]
    without_response: bool,
    /// It did nothing: the next request with the key runs
    #[arg(long)]
    release: bool,
}

/// A verdict with what it needs.
enum Judgement {
    Complete(Response<Bytes>),
    WithoutResponse,
    Release,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    asked.consent.expect_possible()?;
    asked.expect_one_input()?;
    let judgement = asked.verdict.read()?;
    let scope = asked.address.scope()?;
    let key = &asked.address.key;
    let done = target.with(|store| {
        let past = interrupted(store, scope, key)?;
        let done = asked.consent.given(&judgement.question(key))?;
        if done {
            judge(store, &past, &judgement)?;
        }
        Ok(done)
    })?;
    let act = Act::on_key(judgement.name(), done, scope, key);
    output.document(&said(done, &judgement.effect(key)), &act)
}

impl Arguments {
    fn expect_one_input(&self) -> Result<()> {
        let both =
            self.address.reads_input() && self.verdict.complete.as_deref().is_some_and(is_input);
        let said = "standard input cannot be both the API key and the response; put one in a file";
        (!both).then_some(()).ok_or_else(|| Failure::Usage(said.into()))
    }
}

impl Verdict {
    fn read(&self) -> Result<Judgement> {
        match &self.complete {
            Some(file) => answer::read(file).map(Judgement::Complete),
            None if self.release => Ok(Judgement::Release),
            None => Ok(Judgement::WithoutResponse),
        }
    }
}

impl Judgement {
    fn name(&self) -> &'static str {
        match self {
            Self::Complete(_) => "complete",
            Self::WithoutResponse => "complete_without_response",
            Self::Release => "release",
        }
    }

    fn effect(&self, key: &Key) -> String {
        let key = key.as_str();
        match self {
            Self::Complete(response) => {
                let status = response.status().as_u16();
                format!("{key} is completed, and each retry gets the response with status {status}")
            }
            Self::WithoutResponse => {
                format!("{key} is completed, and each retry is told that the response is lost")
            }
            Self::Release => format!("{key} is released, and the next request with it runs"),
        }
    }

    fn question(&self, key: &Key) -> String {
        format!("From now on, {}. Is that right?", self.effect(key))
    }

    fn tell(&self, attempt: Attempt) -> std::result::Result<(), Error> {
        match self {
            Self::Complete(response) => attempt.complete(response).wait().map(drop),
            Self::WithoutResponse => attempt.complete_without_response().wait().map(drop),
            Self::Release => attempt.release().wait(),
        }
    }
}

/// Finds the run that is to be judged.
fn interrupted(store: &Store, scope: Scope, key: &Key) -> Result<Past> {
    let said = |reason| Failure::Absent(format!("{} {reason}", key.as_str()));
    match listing::find(store, scope, key)? {
        Some(Entry::Interrupted(past)) => Ok(past),
        Some(Entry::Completed { .. }) => {
            Err(said("is completed already; see it with `refrain get`"))
        }
        Some(Entry::Damaged { .. }) => Err(said(
            "is damaged, and not interrupted; find out what its operation did, and then `refrain \
             forget` it",
        )),
        None => Err(Failure::Unknown { scope, key: key.clone() }),
    }
}

/// Tells the store what the run did.
///
/// # Durability
///
/// The verdict is durable when this returns.
fn judge(store: &Store, past: &Past, judgement: &Judgement) -> Result<()> {
    // The fingerprint is the run's own, or the outcome would be a conflict.
    let operation = Operation::new(past.scope, past.key.clone(), past.fingerprint).durable();
    match store.begin(&operation).wait_timeout(WAIT)? {
        Outcome::Interrupted(attempt) => Ok(judgement.tell(attempt)?),
        // It has expired since it was found.
        Outcome::Execute(permit) => {
            permit.release().wait()?;
            Err(Failure::Unknown { scope: past.scope, key: past.key.clone() })
        }
        Outcome::Replay(_) | Outcome::Conflict { .. } | Outcome::InFlight { .. } => {
            let key = past.key.as_str();
            Err(Failure::Absent(format!("{key} was judged meanwhile; see it with `refrain get`")))
        }
    }
}
