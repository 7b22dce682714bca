//! The operator's verdict on a run that was interrupted.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::backend::Past;
use crate::{Error, Operation, Outcome, Record, Refusing, Store};

use super::refusal::{Code, Refusal};
use super::response::Response;

/// The longest wait for room in the store.
const WAIT: Duration = Duration::from_secs(10);

/// The operator's verdict on a run that was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was done, and this is its response.
    Complete(Response),
    /// It was done, and its response is lost.
    CompleteWithoutResponse,
    /// It did nothing: the next request with the key runs.
    Release,
}

impl Verdict {
    /// Returns the word for it in notes.
    pub(super) fn act(&self) -> &'static str {
        match self {
            Self::Complete(_) => "complete",
            Self::CompleteWithoutResponse => "complete_without_response",
            Self::Release => "release",
        }
    }
}

/// A verdict whose response can be kept.
pub(super) enum Judgement {
    Complete(http::Response<Bytes>),
    CompleteWithoutResponse,
    Release,
}

impl Judgement {
    /// Checks a verdict against the limits of the store, which would drop a response that is beyond
    /// them.
    pub(super) fn of(verdict: &Verdict, store: &Store) -> Result<Self, Refusal> {
        match verdict {
            Verdict::Complete(response) => {
                let response = response.to_http()?;
                // Its response would be left out, and the verdict cannot be given twice.
                if store.stats().refusing == Some(Refusing::Full) {
                    return Err(Error::Full.into());
                }
                if store.rules().keep(&response) {
                    return Ok(Self::Complete(response));
                }
                let body = store.rules().max_response_bytes;
                let (headers, bytes) = (Record::MAX_HEADERS, Record::MAX_HEADER_BYTES);
                Err(Refusal::new(
                    Code::BadRequest,
                    format!(
                        "the response is too large: the store keeps bodies of up to {body} bytes, \
                         and {headers} headers with {bytes} bytes in all"
                    ),
                ))
            }
            Verdict::CompleteWithoutResponse => Ok(Self::CompleteWithoutResponse),
            Verdict::Release => Ok(Self::Release),
        }
    }

    /// Tells the store what the run did.
    ///
    /// # Durability
    ///
    /// The verdict is durable when this returns.
    pub(super) fn tell(&self, store: &Store, past: &Past) -> Result<(), Refusal> {
        // The fingerprint is the run's own, or the outcome would be a conflict.
        let operation = Operation::new(past.scope, past.key.clone(), past.fingerprint).durable();
        match store.begin(&operation).wait_timeout(WAIT)? {
            Outcome::Interrupted(attempt) => match self {
                Self::Complete(response) => {
                    let record = attempt.complete(response).wait()?;
                    if record.response().is_none() {
                        return Err(Refusal::response_left_out(&past.key));
                    }
                }
                Self::CompleteWithoutResponse => {
                    attempt.complete_without_response().wait().map(drop)?;
                }
                Self::Release => attempt.release().wait()?,
            },
            // It has expired since it was found.
            Outcome::Execute(permit) => {
                permit.release().wait()?;
                return Err(Refusal::unknown(past.scope, &past.key));
            }
            Outcome::InFlight { holder } => {
                return Err(Refusal::in_flight(&past.key, &holder));
            }
            Outcome::Replay(_) | Outcome::Conflict { .. } => {
                let message = format!("{} was judged meanwhile", past.key.as_str());
                return Err(Refusal::new(Code::NotInterrupted, message));
            }
        }
        Ok(())
    }
}
