//! A history's journal: each request of a node to its store, with its time, and the answer.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::words::{Answer, Ask, Name, Number};

/// A moment by the machine's clock, which is the database's too, in microseconds.
pub(super) type Moment = i64;

/// Returns the current moment.
pub(super) fn now() -> Moment {
    #[expect(clippy::disallowed_methods, reason = "the database has no other clock")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// One process of a node: the node's index, and the number of the process, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Life {
    pub(super) node: usize,
    pub(super) number: u32,
}

impl Life {
    /// Reads what [`Display`](fmt::Display) writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (node, number) = text.strip_prefix('n')?.split_once('.')?;
        Some(Self { node: node.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.{}", self.node, self.number)
    }
}

/// A request, and the answer if there was one. The store had the request at some moment between
/// the two.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) number: Number,
    pub(super) name: Name,
    pub(super) life: Life,
    pub(super) ask: Ask,
    pub(super) sent: Moment,
    /// None if the process was killed before it answered.
    pub(super) told: Option<Told>,
    /// Set if all faults were over before the request.
    pub(super) is_final: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) at: Moment,
    pub(super) took_ms: u64,
    pub(super) answer: Answer,
}

impl Entry {
    pub(super) fn answer(&self) -> Option<&Answer> {
        self.told.as_ref().map(|told| &told.answer)
    }

    /// The moment of the answer, or one that never comes.
    pub(super) fn told_at(&self) -> Moment {
        self.told.as_ref().map_or(Moment::MAX, |told| told.at)
    }

    /// The call under whose number the node holds what the request is about.
    pub(super) fn held(&self) -> Option<Number> {
        match self.ask {
            Ask::Complete { held, .. }
            | Ask::Release { held }
            | Ask::Interrupt { held }
            | Ask::Checkpoint { held, .. }
            | Ask::Retry { held }
            | Ask::Drop { held } => Some(held),
            Ask::Begin(_) | Ask::Get { .. } | Ask::InFlight => None,
        }
    }

    /// The request with its times in milliseconds since `start`.
    pub(super) fn line(&self, start: Moment) -> String {
        let since = |moment: Moment| (moment - start) as f64 / 1000.0;
        let (number, life, ask) = (self.number, self.life, &self.ask);
        let sent = since(self.sent);
        match &self.told {
            Some(told) => {
                let (at, answer) = (since(told.at), &told.answer);
                format!("#{number} {life} {sent:.1} {ask:?} -> {at:.1} {answer:?}")
            }
            None => format!("#{number} {life} {sent:.1} {ask:?} -> killed"),
        }
    }
}
