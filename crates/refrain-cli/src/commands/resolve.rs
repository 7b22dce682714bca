//! `refrain resolve`.

use std::path::PathBuf;

use clap::Args;
use refrain::admin::{Entry, Verdict};
use refrain::{Key, Scope};

use crate::act::{Act, said, warn};
use crate::address::Address;
use crate::answer;
use crate::consent::Consent;
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::owner::is_input;
use crate::target::Target;

/// Tell what an interrupted run did, so that its key is answered again
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    outcome: Outcome,
    #[command(flatten)]
    consent: Consent,
}

/// The outcome of the run.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Outcome {
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

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    asked.consent.expect_possible()?;
    asked.expect_one_input()?;
    let verdict = asked.outcome.read()?;
    let scope = asked.address.scope()?;
    let key = &asked.address.key;
    let effect = effect(&verdict, key);
    target.with(|desk| expect_interrupted(desk, scope, key))?;
    let question = format!("In {}: from now on, {effect}. Is that right?", target.name());
    let done = asked.consent.given(&question)?;
    if done {
        let mandate = asked.consent.mandate();
        warn(&target.with(|desk| desk.resolve(scope, key, &verdict, &mandate))?);
    }
    let act = Act::on_key(name(&verdict), done, target, scope, key);
    output.document(&said(done, &effect), &act)
}

impl Arguments {
    fn expect_one_input(&self) -> Result<()> {
        let both =
            self.address.reads_input() && self.outcome.complete.as_deref().is_some_and(is_input);
        let said = "standard input cannot be both the API key and the response; put one in a file";
        (!both).then_some(()).ok_or_else(|| Failure::Usage(said.into()))
    }
}

impl Outcome {
    fn read(&self) -> Result<Verdict> {
        match &self.complete {
            Some(file) => Ok(Verdict::Complete((&answer::read(file)?).into())),
            None if self.release => Ok(Verdict::Release),
            None => Ok(Verdict::CompleteWithoutResponse),
        }
    }
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Complete(_) => "complete",
        Verdict::CompleteWithoutResponse => "complete_without_response",
        Verdict::Release => "release",
    }
}

fn effect(verdict: &Verdict, key: &Key) -> String {
    let key = key.as_str();
    match verdict {
        Verdict::Complete(response) => {
            let status = response.status;
            format!("{key} is completed, and each retry gets the response with status {status}")
        }
        Verdict::CompleteWithoutResponse => {
            format!("{key} is completed, and each retry is told that the response is lost")
        }
        Verdict::Release => format!("{key} is released, and the next request with it runs"),
    }
}

/// Checks that there is a run to be judged.
fn expect_interrupted(desk: &Desk, scope: Scope, key: &Key) -> Result<()> {
    let said = |reason| Failure::Absent(format!("{} {reason}", key.as_str()));
    match desk.find(scope, key)? {
        Some(Entry::Interrupted(_)) => Ok(()),
        Some(Entry::Completed(_)) => Err(said("is completed already; see it with `refrain get`")),
        Some(Entry::Damaged(_)) => Err(said(
            "is damaged, and not interrupted; find out what its operation did, and then `refrain \
             forget` it",
        )),
        None => Err(Failure::Unknown { scope, key: key.clone() }),
    }
}
