//! `refrain forget`.

use clap::Args;
use refrain::Key;
use refrain::admin::Entry;

use crate::act::{Act, said, warn};
use crate::address::Address;
use crate::consent::Consent;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::target::Target;

/// Forget a key, so that the next request with it runs
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    address: Address,
    /// Remove the bytes too, of all that was forgotten or has expired; this may rewrite the whole
    /// store
    #[arg(long)]
    erase: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let Arguments { address: Address { key, .. }, erase, consent } = asked;
    consent.expect_possible()?;
    let scope = asked.address.scope()?;
    let effect = asked.effect();
    let entry = target.with(|desk| desk.find(scope, key))?;
    let Some(entry) = entry else { return Err(asked.unknown(scope)) };
    let (name, found) = (target.name(), found(&entry, key));
    let done = consent.given(&format!("In {name}: {found}. From now on, {effect}. Do it?"))?;
    if done {
        target.with(|desk| {
            warn(&desk.forget(scope, key, &consent.mandate())?);
            if *erase {
                let erased = desk.reap(true, &consent.mandate());
                warn(&erased.map_err(|failure| Failure::Unerased(key.clone(), failure.into()))?);
            }
            Ok(())
        })?;
    }
    let act = Act::on_key(if *erase { "erase" } else { "forget" }, done, target, scope, key);
    output.document(&said(done, &effect), &act)
}

impl Arguments {
    fn effect(&self) -> String {
        let key = self.address.key.as_str();
        let forgotten = format!("{key} is forgotten, and the next request with it runs");
        if self.erase {
            forgotten + "; no file of the store has the bytes of what was forgotten or has expired"
        } else {
            forgotten
        }
    }

    fn unknown(&self, scope: refrain::Scope) -> Failure {
        let key = self.address.key.clone();
        if !self.erase {
            return Failure::Unknown { scope, key };
        }
        // A key that was forgotten before is unknown, and so is a mistyped one.
        Failure::Absent(format!(
            "{} is unknown in scope {scope}; check both, or erase what was forgotten before with \
             `refrain reap --erase`",
            key.as_str()
        ))
    }
}

fn found(entry: &Entry, key: &Key) -> String {
    let key = key.as_str();
    match entry {
        Entry::Completed(_) => format!("{key} is completed"),
        Entry::Interrupted(_) => format!("{key} is interrupted, and nobody knows what its run did"),
        Entry::Damaged(_) => format!("the record of {key} is damaged"),
    }
}
