//! Connections: one [`Link`], and the [`Pool`] of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::statements::Sql;
use crate::trouble::Trouble;

/// The longest time that connecting takes.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The longest time that a statement takes, a full batch on a slow disk included. A server that has
/// gone without a word is noticed by it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The longest time that a script takes, such as a migration.
const SCRIPT_WITHIN: Duration = Duration::from_secs(60);

/// The settings of every connection to a server.
///
/// A plan that was made while a table was empty reads all of it for ever, so sequential scans and
/// the joins that bring them are out; and with the choice gone, a plan is made once a connection. A
/// pooler in transaction mode would pass these on to its other clients, and gets none: its
/// statements are planned each time.
const SESSION: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; \
    SET enable_mergejoin = off; SET jit = off; SET plan_cache_mode = force_generic_plan; \
    SET lock_timeout = '5s'; \
    SET idle_in_transaction_session_timeout = '10s'";

pub(crate) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// One connection, used by one task at a time.
pub(crate) struct Link {
    client: Client,
    prepared: Mutex<HashMap<usize, Statement>>,
    /// Cleared where a connection turns out to keep no prepared statements.
    prepares: Arc<AtomicBool>,
    /// Set while a statement is on its way. It stays set if nobody waits for the answer any more.
    is_busy: AtomicBool,
}

impl Link {
    /// Runs a statement that is planned each time, in one round trip.
    pub(crate) async fn query(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            given.iter().copied().zip(sql.types.iter().cloned()).collect();
        self.whole(ANSWER_WITHIN, self.client.query_typed(&sql.text, &typed)).await
    }

    /// Waits for an answer, though not for ever, and notes if the wait is given up.
    async fn whole<T>(
        &self,
        within: Duration,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Trouble> {
        self.is_busy.store(true, Ordering::Relaxed);
        let outcome = tokio::time::timeout(within, answer);
        let outcome = outcome.await.map_err(|_| Trouble::Slow)?;
        self.is_busy.store(false, Ordering::Relaxed);
        Ok(outcome?)
    }

    /// Runs a statement that is prepared once a connection.
    pub(crate) async fn query_prepared(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        if !self.prepares.load(Ordering::Relaxed) {
            return self.query(sql, given).await;
        }
        let outcome = self.whole(ANSWER_WITHIN, self.prepare_and_query(sql, given)).await;
        if outcome.as_ref().is_err_and(Trouble::is_lost_statement) {
            // A pooler gives each transaction to another connection of the server.
            self.prepares.store(false, Ordering::Relaxed);
        }
        outcome
    }

    async fn prepare_and_query(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let id = std::ptr::from_ref(sql).addr();
        let known = self.prepared.lock().expect("nobody panics here").get(&id).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let new = self.client.prepare_typed(&sql.text, &sql.types).await?;
                self.prepared.lock().expect("nobody panics here").insert(id, new.clone());
                new
            }
        };
        self.client.query(&statement, given).await
    }

    /// Runs a statement without parameters.
    pub(crate) async fn query_text(&self, text: &str) -> Result<Vec<Row>, Trouble> {
        self.whole(ANSWER_WITHIN, self.client.query_typed(text, &[])).await
    }

    pub(crate) async fn batch_execute(&self, text: &str) -> Result<(), Trouble> {
        self.whole(SCRIPT_WITHIN, self.client.batch_execute(text)).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Returns whether the link can be given to another task. One that still waits for an answer
    /// could keep that task waiting too, as across a network that is cut.
    fn is_free(&self) -> bool {
        !self.is_closed() && !self.is_busy.load(Ordering::Relaxed)
    }
}

/// A maker of connections.
pub(crate) struct Connector {
    config: Config,
    tls: Arc<rustls::ClientConfig>,
    prepares: Arc<AtomicBool>,
}

impl Connector {
    pub(crate) fn new(config: Config, tls: rustls::ClientConfig, prepares: bool) -> Self {
        Self { config, tls: Arc::new(tls), prepares: Arc::new(AtomicBool::new(prepares)) }
    }

    pub(crate) async fn connect(&self) -> Result<Link, Trouble> {
        tokio::time::timeout(CONNECT_WITHIN, self.try_connect(|_| {}))
            .await
            .unwrap_or(Err(Trouble::Slow))
    }

    /// Connects, and calls `notify` with the payload of every notification.
    pub(crate) async fn listen(
        &self,
        notify: impl FnMut(&str) + Send + 'static,
    ) -> Result<Link, Trouble> {
        tokio::time::timeout(CONNECT_WITHIN, self.try_connect(notify))
            .await
            .unwrap_or(Err(Trouble::Slow))
    }

    async fn try_connect(
        &self,
        notify: impl FnMut(&str) + Send + 'static,
    ) -> Result<Link, Trouble> {
        let client = if self.config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = self.config.connect(NoTls).await?;
            drive(connection, notify);
            client
        } else {
            let tls = MakeRustlsConnect::new(rustls::ClientConfig::clone(&self.tls));
            let (client, connection) = self.config.connect(tls).await?;
            drive(connection, notify);
            client
        };
        if self.prepares.load(Ordering::Relaxed) {
            client.batch_execute(SESSION).await?;
        }
        Ok(Link {
            client,
            prepared: Mutex::default(),
            prepares: Arc::clone(&self.prepares),
            is_busy: AtomicBool::new(false),
        })
    }
}

/// Reads and writes for a client until either end closes.
fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    mut notify: impl FnMut(&str) + Send + 'static,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                notify(notification.payload());
            }
        }
    });
}

/// The connections that are open and idle, and the number of further ones that may be.
pub(crate) struct Pool {
    connector: Connector,
    /// Used last, taken first.
    idle: Mutex<Vec<Link>>,
    room: Semaphore,
}

/// A link on loan. Dropped, it goes back to the pool if it still works.
pub(crate) struct Loan<'a> {
    pool: &'a Pool,
    link: Option<Link>,
    _room: SemaphorePermit<'a>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, max: usize) -> Self {
        Self { connector, idle: Mutex::default(), room: Semaphore::new(max) }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) async fn take(&self) -> Result<Loan<'_>, Trouble> {
        let room = self.room.acquire().await.map_err(|_| Trouble::Closed)?;
        let idle = || self.idle.lock().expect("nobody panics here").pop();
        let open = std::iter::from_fn(idle).find(|link| !link.is_closed());
        let link = match open {
            Some(link) => link,
            None => self.connector.connect().await?,
        };
        Ok(Loan { pool: self, link: Some(link), _room: room })
    }
}

impl Loan<'_> {
    /// Closes the link instead of giving it back. The idle ones lead to the same server, and are
    /// closed too.
    pub(crate) fn discard(&mut self) {
        self.link = None;
        self.pool.idle.lock().expect("nobody panics here").clear();
    }
}

impl std::ops::Deref for Loan<'_> {
    type Target = Link;

    fn deref(&self) -> &Link {
        self.link.as_ref().expect("nothing is asked of a link that was discarded")
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take().filter(Link::is_free) {
            self.pool.idle.lock().expect("nobody panics here").push(link);
        }
    }
}
