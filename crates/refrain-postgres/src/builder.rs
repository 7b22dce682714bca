//! Opening a store: [`Postgres`] and its [`Builder`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refrain::Store;
use refrain::backend::{Limits, Rules};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_postgres::Config;

use crate::Error;
use crate::address::Addresses;
use crate::backend::{self, Fleet};
use crate::deadlines::Deadlines;
use crate::elsewhere::Elsewhere;
use crate::link::{Connector, Link};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::ring::Ring;
use crate::schema::{self, Meta};
use crate::session::{Session, millis};
use crate::statements::Statements;
use crate::trouble::Trouble;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const MIN_LEASE: Duration = Duration::from_millis(300);
const MAX_LEASE: Duration = Duration::from_secs(60 * 60);
/// The time after which a server that does not even acknowledge packets is taken for gone, where the
/// address does not say.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);
const MIN_PATIENCE: Duration = Duration::from_millis(10);
const MAX_PATIENCE: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 1_000;

/// A store in a PostgreSQL database.
#[derive(Debug)]
pub struct Postgres;

impl Postgres {
    /// Opens the store in a database, with the settings of [`Builder`] as they are by default.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if the database holds no store; see [`Builder::connect`].
    pub async fn connect(address: &str) -> Result<Store, Error> {
        Self::builder().connect(address).await
    }

    /// Sets up a store in a database that holds none, in the schema `refrain` and with a retention
    /// of 24 hours. One that is there stays.
    ///
    /// The role owns the schema, or may create it.
    ///
    /// # Errors
    ///
    /// [`Error::Version`] if the schema that is there does not serve this version of the crate;
    /// [`Error::Database`] if the server cannot be reached, or the role lacks a right.
    pub async fn migrate(address: &str) -> Result<(), Error> {
        Self::builder().migrate(address).await
    }

    /// Returns a builder, for other settings than the default ones.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Settings of a store in a PostgreSQL database.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    schema: String,
    node: String,
    connections: usize,
    lease: Duration,
    ttl: Duration,
    patience: Duration,
    max_response_bytes: usize,
    limits: Limits,
    prepares: bool,
    tls: Option<rustls::ClientConfig>,
    runtime: Option<Handle>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            schema: "refrain".to_owned(),
            node: format!("process {}", std::process::id()),
            connections: 20,
            lease: Duration::from_secs(10),
            ttl: DAY,
            patience: Duration::from_secs(5),
            max_response_bytes: 1024 * 1024,
            limits: Limits::default(),
            prepares: true,
            tls: None,
            runtime: None,
        }
    }
}

impl Builder {
    /// Sets the schema that the store's tables are in: `refrain` by default. Lower-case letters,
    /// digits and underscores, at most 48 of them.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets the name of this process for operators, in `node` of the table `session`: its process
    /// id by default. Several processes may have the same name.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = name.into();
        self
    }

    /// Sets the most connections that statements share: 20 by default, from 4 to 1000.
    ///
    /// They are opened as needed. The lease has one more, and so have waits for other nodes, except
    /// through a [`pooler`](Self::pooler). A statement without an answer for 15 s has a further one
    /// for a moment, which asks the server about it.
    pub fn connections(mut self, max: usize) -> Self {
        self.connections = max;
        self
    }

    /// Sets the length of the lease: 10 s by default, from 300 ms to an hour.
    ///
    /// A process renews its lease every third of it, however long its handlers run. Once it has not
    /// renewed for the whole length, its claims may be taken over. Until then the keys of a process
    /// that has died are in flight.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the time for which a record is replayed after it was completed: 24 hours by default,
    /// from a millisecond to 366 days.
    ///
    /// [`migrate`](Self::migrate) sets a new schema up with this as its retention.
    /// [`connect`](Self::connect) refuses a TTL above the retention of the schema.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the time that the database may take to answer a call before the call fails with
    /// [`refrain::Error::Unavailable`]: 5 s by default, from 10 ms to a minute.
    ///
    /// A claim that is late is undone. A verdict that is late goes on until its outcome is known,
    /// and the key is in flight until then.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the longest response body that is stored, in bytes: 1 MiB by default, and at most
    /// [`MAX_BODY_BYTES`](refrain::codec::MAX_BODY_BYTES).
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Sets how many operations may be in flight in this process.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether connections lead to a pooler in transaction mode, such as pgbouncer: false by
    /// default.
    ///
    /// Statements are then planned each time instead of being prepared, and the settings of the
    /// pooler's connections stay as they are.
    pub fn pooler(mut self, is_between: bool) -> Self {
        self.prepares = !is_between;
        self
    }

    /// Sets the configuration of TLS, which is spoken if the server offers it, unless the address
    /// says `sslmode=disable`. By default the server's certificate must be signed by an authority
    /// that browsers know.
    pub fn tls(mut self, tls: rustls::ClientConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the runtime that serves statements, which otherwise have a thread of their own. This
    /// spares each of them two changes of threads, which is felt where few requests are in flight.
    ///
    /// The lease keeps its thread, so a busy runtime does not delay its renewal. The runtime must
    /// outlive the store, and have a free thread for statements: one whose only thread blocks in
    /// [`Ticket::wait`](refrain::Ticket::wait) stands still.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets up a store, as [`Postgres::migrate`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] and [`Error::Address`]; see [`Postgres::migrate`] for the others.
    pub async fn migrate(self, address: &str) -> Result<(), Error> {
        self.check()?;
        let connector = self.connector(address)?;
        on_own_runtime("refrain-migrate", move || async move {
            let link = connector.connect().await?;
            schema::migrate(&link, &self.schema, self.ttl).await
        })
        .await
    }

    /// Opens the store in a database.
    ///
    /// The store has a thread and connections of its own, so it works on threads without a runtime,
    /// and its handles may move between runtimes. After the store has closed, the thread goes on
    /// for some seconds, so that verdicts which are on their way arrive.
    ///
    /// # Errors
    ///
    /// [`Error::Address`]; [`Error::Setting`]; [`Error::Missing`] and [`Error::Version`];
    /// [`Error::Unsafe`] if a setting of the server breaks a promise; [`Error::Database`] if the
    /// server cannot be reached, does not take writes, or the role may not read `meta` or add to
    /// `session`. Other rights are first needed by requests.
    pub async fn connect(self, address: &str) -> Result<Store, Error> {
        self.check()?;
        let connector = self.connector(address)?;
        let (limits, linger) = (self.limits, self.patience + LINGER);
        let (reply, answer) = oneshot::channel();
        let (closing, mut closed) = watch::channel(false);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(reply.send(Err(Error::Database(Arc::new(error))))),
            };
            runtime.block_on(async {
                let opened = self.open(connector, closing).await;
                let is_open = opened.is_ok();
                if reply.send(opened).is_err() || !is_open {
                    return;
                }
                // The last operations end after the store has closed, in their own time.
                let _ = closed.wait_for(|state| *state).await;
                tokio::time::sleep(linger).await;
            });
        };
        std::thread::Builder::new()
            .name("refrain-postgres".to_owned())
            .spawn(run)
            .map_err(|error| Error::Database(Arc::new(error)))?;
        let fleet = answer.await.map_err(|_| Trouble::Closed)??;
        Ok(Store::new(backend::Postgres(fleet), limits))
    }

    async fn open(
        self,
        connector: Arc<Connector>,
        closing: watch::Sender<bool>,
    ) -> Result<Arc<Fleet>, Error> {
        let link = connector.connect().await?;
        refuse_unsafe(&link).await?;
        let meta = schema::read(&link, &self.schema).await?;
        if millis(self.ttl) > meta.retention_ms {
            let allowed = format!("at most the schema's retention of {} ms", meta.retention_ms);
            return Err(Error::Setting { name: "ttl", allowed });
        }
        let statements = Statements::new(&schema::quoted(&self.schema), meta.slot_ms, meta.store);
        let session = Session::open(self.node.clone(), self.lease, &link, &statements).await?;
        drop(link);
        let deadlines = Arc::new(Deadlines::new(self.patience));
        let queue = self.queue(connector, meta.slot_ms, session, statements, &deadlines);
        let fleet = Arc::new(self.fleet(queue, &meta, closing));
        keep_up(&fleet, deadlines);
        Ok(fleet)
    }

    fn queue(
        &self,
        connector: Arc<Connector>,
        slot_ms: i64,
        session: Session,
        statements: Statements,
        deadlines: &Arc<Deadlines>,
    ) -> Queue {
        let session = Arc::new(session);
        Queue::new(
            self.runtime.clone().unwrap_or_else(Handle::current),
            Arc::new(Pool::new(connector, self.connections)),
            Arc::clone(&session),
            Arc::new(statements),
            Arc::new(Ring::new(session, slot_ms, millis(self.ttl))),
            Arc::clone(deadlines),
        )
    }

    fn fleet(self, queue: Queue, meta: &Meta, closing: watch::Sender<bool>) -> Fleet {
        Fleet {
            runtime: queue.runtime.clone(),
            pool: Arc::clone(&queue.pool),
            session: Arc::clone(&queue.session),
            statements: Arc::clone(&queue.statements),
            ring: Arc::clone(&queue.ring),
            queue: Arc::new(queue),
            addresses: Addresses::new(meta.store),
            elsewhere: Arc::new(Elsewhere::new(&self.schema)),
            schema: schema::quoted(&self.schema),
            retention_ms: meta.retention_ms,
            last_trouble: Mutex::default(),
            rules: Rules { ttl: self.ttl, max_response_bytes: self.max_response_bytes },
            patience: self.patience,
            closing,
        }
    }

    fn connector(&self, address: &str) -> Result<Arc<Connector>, Error> {
        let mut config: Config =
            address.parse().map_err(|error| Error::Address(Arc::new(error)))?;
        if config.get_application_name().is_none() {
            config.application_name("refrain");
        }
        // A server that vanished without a word would keep its connections waiting for a quarter of
        // an hour.
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_idle(SILENCE).keepalives_interval(SILENCE / 4);
        }
        let tls = self.tls.clone().unwrap_or_else(browsers_tls);
        Ok(Connector::new(config, tls, self.prepares))
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |name, allowed: &str| Err(Error::Setting { name, allowed: allowed.into() });
        if !schema::is_plain(&self.schema) {
            return refuse(
                "schema",
                "lower-case letters, digits and underscores, at most 48, and not pg_",
            );
        }
        if !(4..=MAX_CONNECTIONS).contains(&self.connections) {
            return refuse("connections", "from 4 to 1000");
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.lease) {
            return refuse("lease", "from 300 milliseconds to an hour");
        }
        if !(MIN_PATIENCE..=MAX_PATIENCE).contains(&self.patience) {
            return refuse("patience", "from 10 milliseconds to a minute");
        }
        if !(Duration::from_millis(1)..=MAX_TTL).contains(&self.ttl) {
            return refuse("ttl", "from a millisecond to a year");
        }
        if self.max_response_bytes > refrain::codec::MAX_BODY_BYTES {
            return refuse("max_response_bytes", "at most 16 MiB");
        }
        Ok(())
    }
}

/// Begins what goes on for as long as the backend's thread does.
fn keep_up(fleet: &Arc<Fleet>, deadlines: Arc<Deadlines>) {
    let renewed = Arc::clone(fleet);
    tokio::spawn(async move { renewed.session.renew(&renewed.pool, &renewed.statements).await });
    let queue = Arc::clone(&fleet.queue);
    tokio::spawn(async move { deadlines.keep(|| queue.late()).await });
    let swept = Arc::clone(fleet);
    tokio::spawn(async move { swept.sweep_forever().await });
}

/// The time for which the backend's thread outlives the store and the patience of its callers, so
/// that verdicts which are on their way arrive.
const LINGER: Duration = Duration::from_secs(5);

fn browsers_tls() -> rustls::ClientConfig {
    let roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// Runs on a thread with a runtime of its own, whatever runtime the caller has.
async fn on_own_runtime<T, F>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>>,
{
    let (reply, answer) = oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(work()),
            Err(error) => Err(Error::Database(Arc::new(error))),
        };
        let _ = reply.send(outcome);
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::Database(Arc::new(error)))?;
    answer.await.map_err(|_| Trouble::Closed)?
}

/// Refuses settings of the server under which an acknowledged record may be lost.
async fn refuse_unsafe(link: &Link) -> Result<(), Error> {
    let rows = link
        .query_text(
            "SELECT name, setting FROM pg_settings \
             WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes')",
        )
        .await?;
    for row in &rows {
        let name: &str = row.try_get(0).map_err(Trouble::from)?;
        let value: &str = row.try_get(1).map_err(Trouble::from)?;
        let (setting, consequence) = match (name, value) {
            ("synchronous_commit", "off") => {
                ("synchronous_commit", "an acknowledged record may be lost in a crash")
            }
            ("fsync", "off") => ("fsync", "the database may be lost in a power cut"),
            ("full_page_writes", "off") => {
                ("full_page_writes", "the database may be damaged in a power cut")
            }
            _ => continue,
        };
        return Err(Error::Unsafe { setting, value: value.to_owned(), consequence });
    }
    Ok(())
}
