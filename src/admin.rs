//! Questions and acts of operators on a store, as documents: in the process that has it open, and
//! over HTTP from another one.
//!
//! [`Admin`] has one method for each question and each act. Its [`router`](Admin::router) answers
//! the same over HTTP, for a server to mount or to serve:
//!
//! - on a Unix socket in the store's directory ([`Socket`]), where the command `refrain` finds it;
//!   only the user of the process may connect;
//! - on a TCP port, to whoever has the [`Token`].
//!
//! ```no_run
//! use refrain::Store;
//! use refrain::admin::{Admin, Socket};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = std::path::Path::new("/var/lib/calls/idempotency");
//! let store = Store::open(directory)?;
//! let socket = Socket::bind(Socket::path_in(directory))?;
//! tokio::spawn(Admin::new(store.clone()).serve_socket(socket));
//! # Ok(())
//! # }
//! ```
//!
//! # Paths
//!
//! | method and path | answer |
//! | --- | --- |
//! | GET `/healthz` | 200 unless the store is stopped, else 503; the health in words |
//! | GET `/readyz` | 200 if new keys would be served, else 503; the health in words |
//! | GET `/metrics` | the server's metrics, if it gives them: [`Admin::metrics`] |
//! | GET `/v1/status` | [`Status`] |
//! | GET `/v1/entry?scope=&key=` | [`Entry`], with its response |
//! | GET `/v1/records?scope=&after_scope=&after_key=&limit=&responses=` | lines of [`Entry`] |
//! | GET `/v1/interrupted?scope=` | lines of [`Entry`] |
//! | GET `/v1/in-flight` | lines of [`Held`] |
//! | GET `/v1/audit` | lines of [`Note`] |
//! | POST `/v1/resolve` | takes `scope`, `key`, a [`Verdict`] as `verdict` and a [`Mandate`] as `mandate`; [`Done`] |
//! | POST `/v1/forget` | takes `scope`, `key` and `mandate`; [`Done`] |
//! | POST `/v1/reap` | takes `erase`, to remove the bytes of what has expired or was forgotten too, and `mandate`; [`Done`] |
//! | POST `/v1/verify` | `{"damage": null}`, or the first damage in words |
//! | POST `/v1/backup` | takes `path`, an absolute one; on the socket only |
//!
//! All take and give JSON; an error is a [`Refusal`]. Lists are lines, each a [`Line`]: the last one
//! says that it is, so a list that was cut off is noticed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::backend::Cursor;
use crate::{Error, Key, Scope, Store};

mod blob;
mod entry;
mod held;
mod lines;
mod note;
mod pasts;
mod refusal;
mod response;
mod router;
mod serving;
mod socket;
mod status;
mod time;
mod token;
mod verdict;

pub use blob::Blob;
pub use entry::{Completed, Damaged, Entry, Interrupted};
pub use held::Held;
pub use lines::Line;
pub use note::{Done, Mandate, Note};
pub use refusal::{Code, Refusal};
pub use response::Response;
pub use socket::Socket;
pub use status::Status;
pub use token::{Token, WeakToken};
pub use verdict::Verdict;

use verdict::Judgement;

/// The interrupted runs that are asked for at a time.
const PAGE: usize = 256;

/// A store as operators see it: one method for each question and each act.
///
/// The methods read from disk, and wait for what they commit, on the caller's thread: call them on
/// one that may block. Each act is durable when it returns, and the store keeps a [`Note`] of it. A
/// clone shares the store, which closes
/// with its last handle unless [`Store::close`] is called.
///
/// ```
/// use refrain::admin::{Admin, Code, Mandate};
/// use refrain::{Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let admin = Admin::new(Store::builder().open_in_memory()?);
/// assert!(admin.status().is_ready);
///
/// let scope = Scope::from_api_key("sk_live_51");
/// assert!(admin.find(scope, &"key-1".parse()?)?.is_none());
/// let mandate = Mandate { who: "alice".into(), why: "ticket 81".into() };
/// let refused = admin.forget(scope, &"key-1".parse()?, &mandate).unwrap_err();
/// assert_eq!(refused.code, Code::NotFound);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    store: Store,
    /// Renders the metrics of the process.
    metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

impl Admin {
    /// Asks this store.
    pub fn new(store: Store) -> Self {
        Self { store, metrics: None }
    }

    /// Serves the metrics of the process at `/metrics`, in Prometheus' text format, as `render` makes
    /// them. With feature `metrics`, the recorder that the process has installed has those of the
    /// store, such as `metrics-exporter-prometheus`:
    ///
    /// ```ignore
    /// let recorder = PrometheusBuilder::new().install_recorder()?; // before the store opens
    /// let admin = Admin::new(store).metrics(move || recorder.render());
    /// ```
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(render));
        self
    }

    /// Returns the health of the store, with its counters and sizes.
    pub fn status(&self) -> Status {
        Status::of(&self.store)
    }

    /// Finds what is known about a key: its record, with the response, or its interrupted run.
    ///
    /// # Errors
    ///
    /// [`Code::InFlight`] if nothing is recorded and a request holds the key; else those of
    /// [`Store::get`] and [`Store::interrupted`], but for a damaged record, which is an [`Entry`].
    pub fn find(&self, scope: Scope, key: &Key) -> Result<Option<Entry>, Refusal> {
        let (at, key) = (Cursor { scope, key: key.clone() }, key.clone());
        match self.store.get(scope, &key).wait() {
            Ok(Some(record)) => return Ok(Some(Entry::found(scope, key, &record))),
            Ok(None) => {}
            Err(error @ Error::Corrupt { .. }) => {
                return Ok(Some(Entry::damaged(Some(at), &error)));
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(past) = self.past(&at)? {
            return Ok(Some(Entry::Interrupted(past.into())));
        }
        match self.store.in_flight().iter().find(|held| (held.scope, &held.key) == (scope, &key)) {
            Some(held) => Err(Refusal::in_flight(&key, &held.request_id)),
            None => Ok(None),
        }
    }

    /// Lists the live records of a scope, or of all, in their order, behind `after`.
    ///
    /// # Errors
    ///
    /// Those of [`Store::records`].
    pub fn records(
        &self,
        scope: Option<Scope>,
        after: Option<Cursor>,
        with_responses: bool,
    ) -> impl Iterator<Item = Result<Entry, Refusal>> + Send + use<> {
        let records = match scope {
            Some(scope) => self.store.records(scope, after.map(|after| after.key).as_ref()),
            None => self.store.all_records(after),
        };
        let records = if with_responses { records.with_responses() } else { records };
        records.map(move |line| Ok(Entry::of(line?, with_responses)))
    }

    /// Lists the interrupted runs of a scope, or of all, in their order.
    ///
    /// # Errors
    ///
    /// Those of [`Store::interrupted`].
    pub fn interrupted(
        &self,
        scope: Option<Scope>,
    ) -> impl Iterator<Item = Result<Entry, Refusal>> + Send + use<> {
        let pasts = self.pasts(None);
        let all = pasts.map(|past| Ok(Entry::Interrupted(past?.into())));
        all.filter(move |entry| match (entry, scope) {
            (Ok(entry), Some(scope)) => entry.scope() == Some(scope),
            _ => true,
        })
    }

    /// Lists the keys in flight, the oldest first.
    pub fn in_flight(&self) -> Vec<Held> {
        self.store.in_flight().into_iter().map(Held::from).collect()
    }

    /// Tells what an interrupted run did, so that its key is answered again.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`], [`Code::NotInterrupted`] and [`Code::Damaged`] by what is known about the
    /// key; [`Code::InFlight`] while a request judges it; [`Code::BadRequest`] if the store would not
    /// keep the response; else those of [`Store::begin`].
    pub fn resolve(
        &self,
        scope: Scope,
        key: &Key,
        verdict: &Verdict,
        mandate: &Mandate,
    ) -> Result<Done, Refusal> {
        let judgement = Judgement::of(verdict, &self.store)?;
        let refused = |code, state: &str| {
            let message = format!("{} is {state}, and not interrupted", key.as_str());
            Refusal::new(code, message)
        };
        match self.known(scope, key)? {
            Entry::Interrupted(_) => {}
            Entry::Completed(_) => return Err(refused(Code::NotInterrupted, "completed already")),
            Entry::Damaged(_) => return Err(refused(Code::Damaged, "damaged")),
        }
        let past = self.past(&Cursor { scope, key: key.clone() })?;
        let past = past.ok_or_else(|| Refusal::unknown(scope, key))?;
        let done = Note::write(&self.store, verdict.act(), Some((scope, key)), mandate);
        judgement.tell(&self.store, &past)?;
        Ok(done)
    }

    /// Forgets a key, so that the next request with it runs.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] if nothing is known about it; else those of [`Store::forget`].
    pub fn forget(&self, scope: Scope, key: &Key, mandate: &Mandate) -> Result<Done, Refusal> {
        self.known(scope, key)?;
        let done = Note::write(&self.store, "forget", Some((scope, key)), mandate);
        self.store.forget(scope, key).wait()?;
        Ok(done)
    }

    /// Does at once what the store does in time; with `erase`, removes the bytes of all that has
    /// expired or was forgotten too.
    ///
    /// # Errors
    ///
    /// Those of [`Store::reap`] and [`Store::purge`].
    pub fn reap(&self, erase: bool, mandate: &Mandate) -> Result<Done, Refusal> {
        let act = if erase { "erase" } else { "reap" };
        let done = Note::write(&self.store, act, None, mandate);
        self.store.reap()?;
        if erase {
            self.store.purge().wait()?;
        }
        Ok(done)
    }

    /// Lists the notes of what operators have done, the oldest first.
    ///
    /// # Errors
    ///
    /// Those of [`Store::notes`].
    pub fn audit(&self) -> Result<Vec<Note>, Refusal> {
        let notes = self.store.notes().wait()?;
        Ok(notes.iter().map(|line| Note::read(line)).collect())
    }

    /// Reads and verifies everything, and returns the first damage in words.
    ///
    /// # Errors
    ///
    /// Those of [`Store::verify`], but for damage.
    pub fn verify(&self) -> Result<Option<String>, Refusal> {
        match self.store.verify() {
            Ok(()) => Ok(None),
            Err(error @ Error::Corrupt { .. }) => Ok(Some(refusal::chain(&error))),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a copy of the open store into a directory that is empty or missing.
    ///
    /// # Errors
    ///
    /// Those of [`Store::backup`].
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<(), Refusal> {
        Ok(self.store.backup(path)?)
    }

    fn known(&self, scope: Scope, key: &Key) -> Result<Entry, Refusal> {
        self.find(scope, key)?.ok_or_else(|| Refusal::unknown(scope, key))
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("store", &self.store).finish_non_exhaustive()
    }
}
