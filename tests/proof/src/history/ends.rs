//! The ends of runs: of one, of all that go on, or of many new ones at once.

use refrain::{Record, Result, Ticket};

use super::{Asked, FRESH, Held, History};
use crate::model::{Known, Name, TTL, response};
use crate::step::End;

/// An end that was asked for.
pub(super) struct Ending {
    pub(super) name: Name,
    pub(super) asked: usize,
    pub(super) after: Option<Known>,
    pub(super) by: By,
}

pub(super) enum By {
    Record(Ticket<Record>),
    /// The key is kept if that fails.
    Word(Ticket<()>, bool),
}

impl History {
    pub(super) fn end(&mut self, held: Held, end: End) -> Result<()> {
        match self.start_end(held, end)? {
            Some(ending) => self.finish_end(ending),
            None => Ok(()),
        }
    }

    /// Asks for an end, and does not wait for it.
    fn start_end(&mut self, held: Held, end: End) -> Result<Option<Ending>> {
        let asked = self.machine.events();
        let Held { name, permit, body, request, ttl, durable } = held;
        let expires = self.times.now + ttl;
        let done = |kept| Some(Known::Done { body, request, kept, expires });
        let ticket = match end {
            End::Hold => {
                self.held.push(Held { name, permit, body, request, ttl, durable });
                return Ok(None);
            }
            End::Drop => {
                drop(permit);
                return Ok(None);
            }
            // Its claim says so already.
            End::Interrupt if durable => {
                permit.interrupt().wait()?;
                return Ok(None);
            }
            End::Complete => {
                let ticket = permit.complete(&response(body, request));
                return Ok(Some(Ending { name, asked, after: done(None), by: By::Record(ticket) }));
            }
            End::CompleteWithoutResponse => {
                let by = By::Record(permit.complete_without_response());
                return Ok(Some(Ending { name, asked, after: done(Some(false)), by }));
            }
            End::Release => permit.release(),
            End::Interrupt => {
                let (attempt, checkpoints) = (1, 0);
                let after =
                    Known::Interrupted { body, request, attempt, checkpoints, ttl, expires };
                let by = By::Word(permit.interrupt(), true);
                return Ok(Some(Ending { name, asked, after: Some(after), by }));
            }
        };
        Ok(Some(Ending { name, asked, after: None, by: By::Word(ticket, false) }))
    }

    pub(super) fn finish_end(&mut self, ending: Ending) -> Result<()> {
        let Ending { name, asked, mut after, by } = ending;
        let answer = match by {
            By::Record(ticket) => ticket.wait().map(|record| {
                if let Some(Known::Done { kept, .. }) = &mut after {
                    let expected = kept.unwrap_or(true);
                    *kept = Some(record.response().is_some());
                    self.left_out += u64::from(expected && *kept == Some(false));
                    let told = self.opened().stats().bodies_left_out;
                    assert!(self.left_out <= told, "{name:?} has lost its body");
                    assert!(expected || *kept == Some(false), "{name:?} has a body of its own");
                }
            }),
            By::Word(ticket, keeps_key) => {
                let answer = ticket.wait();
                if keeps_key && answer.is_err() {
                    self.stuck.insert(name);
                }
                answer
            }
        };
        self.note(name, asked, after, answer)
    }

    pub(super) fn end_all(&mut self, first: u8) -> Result<()> {
        let ends = [
            End::Complete,
            End::Release,
            End::Complete,
            End::CompleteWithoutResponse,
            End::Interrupt,
        ];
        let mut endings = Vec::new();
        let mut outcome = Ok(());
        for (held, end) in std::mem::take(&mut self.held)
            .into_iter()
            .zip(ends.into_iter().cycle().skip(usize::from(first) % ends.len()))
        {
            match self.start_end(held, end) {
                Ok(ending) => endings.extend(ending),
                Err(error) => outcome = Err(error),
            }
        }
        for ending in endings {
            outcome = self.finish_end(ending).and(outcome);
        }
        outcome
    }

    pub(super) fn burst(&mut self, count: u8) -> Result<()> {
        let mut endings = Vec::new();
        let mut outcome = Ok(());
        for _ in 0..count {
            let name = (0, FRESH + self.requests);
            match self.ask(name, 0, false, TTL) {
                Ok(Some(Asked::Run(held))) => {
                    endings.extend(self.start_end(held, End::Complete)?);
                }
                Ok(_) => panic!("{name:?} is new"),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        for ending in endings {
            outcome = self.finish_end(ending).and(outcome);
        }
        outcome
    }
}
