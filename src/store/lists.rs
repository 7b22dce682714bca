//! The lists of a store: its keys in flight, its interrupted runs and its records.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use super::Store;
use crate::backend::{Cursor, Past};
use crate::error::Result;
use crate::face::Face;
use crate::key::{Key, Scope};
use crate::listed::Listed;
use crate::records::Records;
use crate::stats::Counts;
use crate::table::InFlight;
use crate::ticket::Ticket;

/// The interrupted runs that a backend is asked for at a time.
const PAGE: usize = 256;

impl Store {
    /// Lists the keys in flight in this process, the oldest first: who holds each, since when, and
    /// what it waits for.
    ///
    /// Each key is listed as it was at some moment during the call. The list has as many items as
    /// keys may be in flight (`max_in_flight` of the builder), and as many more for retained ones.
    /// It is there for a store that has stopped too, and over each backend; keys that other nodes
    /// hold are on their lists.
    ///
    /// ```
    /// use refrain::backend::Stage;
    /// use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Store::builder().open_in_memory()?;
    /// let scope = Scope::from_api_key("sk_live_51");
    /// let operation = Operation::new(scope, "9b8cfa7a".parse()?, Fingerprint::of(["POST"]));
    /// let Outcome::Execute(permit) = store.begin(&operation).wait()? else { unreachable!() };
    ///
    /// let listed = store.in_flight();
    /// assert_eq!((listed[0].key.as_str(), listed[0].stage), ("9b8cfa7a", Stage::Running));
    /// println!("{} has run for {:?}", listed[0].request_id, listed[0].age);
    ///
    /// permit.release().wait()?;
    /// assert!(store.in_flight().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_flight(&self) -> Vec<InFlight> {
        let Face { backend, table, .. } = self.face();
        table.list(backend.now())
    }

    /// Lists interrupted runs that no request is handling now, in the order of the bytes of scope
    /// and key: at most `max`, starting after `after`.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`](crate::Error::Stopped) or
    /// [`Error::Unavailable`](crate::Error::Unavailable).
    pub fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        let face = Arc::clone(&self.0.0);
        let mut page = match face.check() {
            Ok(()) => face.backend.interrupted(after, PAGE),
            Err(error) => Ticket::ready(Err(error)),
        };
        let mut listed = Vec::new();
        Ticket::polling(move |cx| {
            loop {
                let pasts = ready!(Pin::new(&mut page).poll(cx))?;
                let next = pasts.last().filter(|_| pasts.len() >= PAGE).map(Past::cursor);
                let free = |past: &Past| !face.table.is_held(past.scope, &past.key);
                listed.extend(pasts.into_iter().filter(free).take(max - listed.len()));
                match next {
                    Some(next) if listed.len() < max => {
                        page = face.backend.interrupted(Some(next), PAGE);
                    }
                    _ => return Poll::Ready(Ok(std::mem::take(&mut listed))),
                }
            }
        })
    }

    /// Lists the live records of a scope in the order of the bytes of their keys, starting behind
    /// `after`.
    ///
    /// All of the list is one moment of the store. It has every record that was acknowledged before
    /// this call, in logs and in segments; of each key the latest entry counts, and what is
    /// forgotten or has expired is left out. Records come without their responses, which are then
    /// not read, unless [`Records::with_responses`] asks for them. A record that cannot be read is
    /// [`Listed::Damaged`](crate::backend::Listed::Damaged). A damaged record whose key cannot be
    /// read is listed at the beginning, in the list of each scope, unless `after` is given.
    ///
    /// The embedded engine reads on the caller's thread: the records of the scope in the segments,
    /// and the logs that are not sealed yet, once for about 30,000 keys of the scope in them. It
    /// takes up to 4 MiB of memory, and 64 rows of each segment, whatever the store's size. Over
    /// PostgreSQL the list is not available, and the first line is
    /// [`Error::Unavailable`](crate::Error::Unavailable): ask the database.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if rows of a segment or a batch of a log cannot be
    /// read, so that it is unknown which keys were there; [`Error::Io`](crate::Error::Io),
    /// [`Error::Unavailable`](crate::Error::Unavailable) and
    /// [`Error::Stopped`](crate::Error::Stopped).
    pub fn records(&self, scope: Scope, after: Option<&Key>) -> Records {
        let after = after.map(|key| Cursor { scope, key: key.clone() });
        Records::new(Arc::clone(&self.0.0), Some(scope), after)
    }

    /// Lists the live records of all scopes in the order of the bytes of scopes and keys, starting
    /// behind `after`.
    ///
    /// All that is said of [`records`](Self::records) holds for this list, the errors too. A
    /// damaged record whose key cannot be read is listed once at the beginning, and once more at
    /// the place of its key if an older record has that.
    pub fn all_records(&self, after: Option<Cursor>) -> Records {
        Records::new(Arc::clone(&self.0.0), None, after)
    }

    /// Counts the live records of a scope, and what it has in flight.
    ///
    /// Nothing of it is kept ready: this reads what [`records`](Self::records) reads, and takes as
    /// long, some microseconds a record. The counts are not of one moment.
    ///
    /// # Errors
    ///
    /// Those of [`records`](Self::records).
    pub fn count(&self, scope: Scope) -> Result<Counts> {
        let mut counts = Counts::default();
        for line in self.records(scope, None) {
            match line? {
                Listed::Record { .. } => counts.records += 1,
                Listed::Damaged { .. } => counts.damaged += 1,
            }
        }
        counts.in_flight = self.in_flight().iter().filter(|key| key.scope == scope).count();
        let mut after = None;
        loop {
            let page = self.interrupted(after, PAGE).wait()?;
            counts.interrupted += page.iter().filter(|past| past.scope == scope).count();
            // They are in the order of their scopes.
            match page.last().filter(|last| page.len() >= PAGE && last.scope <= scope) {
                Some(last) => after = Some(last.cursor()),
                None => return Ok(counts),
            }
        }
    }
}
