//! One connection, a [`Link`], and the [`Connector`] that makes them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::statements::Sql;
use crate::trouble::Trouble;

/// The longest time that connecting takes.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The time after which a silent server is asked, on another connection, whether it still works on
/// a statement.
const ASK_AFTER: Duration = Duration::from_secs(15);

/// The time that an answer has left once the server says that it works on nothing.
const LAST_CHANCE: Duration = Duration::from_millis(500);

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

/// The process that serves this connection, and whether one is at work.
const OWN_SIDE: &str = "SELECT pid, backend_start, pg_postmaster_start_time() \
     FROM pg_stat_activity WHERE pid = pg_backend_pid()";
const IS_ACTIVE: &str = "SELECT 1 FROM pg_stat_activity \
    WHERE pid = $1 AND backend_start = $2 AND state = 'active'";

pub(crate) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// One connection, used by one task at a time.
pub(crate) struct Link {
    client: Client,
    connector: Arc<Connector>,
    /// The server's side of the connection, unless a pooler is between.
    server: Option<ServerSide>,
    prepared: Mutex<HashMap<usize, Statement>>,
    /// Set while a statement is on its way. It stays set if nobody waits for the answer any more.
    is_busy: AtomicBool,
}

/// A process of the server, among all that it has ever had.
struct ServerSide {
    pid: i32,
    since: SystemTime,
    /// The time at which the server itself was started.
    up_since: SystemTime,
}

impl Link {
    /// Runs a statement that is planned each time, in one round trip.
    pub(crate) async fn query(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        self.query_asking(ASK_AFTER, sql, given).await
    }

    /// The same, with another time after which a silent server is asked.
    pub(crate) async fn query_asking(
        &self,
        after: Duration,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            given.iter().copied().zip(sql.types.iter().cloned()).collect();
        self.whole(after, self.client.query_typed(&sql.text, &typed)).await
    }

    /// Waits for an answer, and notes if the wait is given up.
    ///
    /// The server may have a reason to take its time, as where a commit waits for a standby that is
    /// gone. To leave it and begin again elsewhere would take one connection after another from it,
    /// so that is done only where the answer will never come.
    async fn whole<T>(
        &self,
        ask_after: Duration,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Trouble> {
        self.is_busy.store(true, Ordering::Relaxed);
        let mut answer = std::pin::pin!(answer);
        let outcome = loop {
            if let Ok(outcome) = tokio::time::timeout(ask_after, &mut answer).await {
                break outcome;
            }
            tokio::select! {
                biased;
                outcome = &mut answer => break outcome,
                is_worked_on = self.is_worked_on() => if is_worked_on { continue },
            }
            // The answer may have come since the question was asked.
            match tokio::time::timeout(LAST_CHANCE, &mut answer).await {
                Ok(outcome) => break outcome,
                Err(_) => return Err(Trouble::Slow),
            }
        };
        self.is_busy.store(false, Ordering::Relaxed);
        Ok(outcome?)
    }

    /// Returns whether the server still works on the statement, or nothing can be found out.
    async fn is_worked_on(&self) -> bool {
        let Some(ServerSide { pid, since, .. }) = &self.server else { return false };
        let asked = async {
            let other = self.connector.client(|_| {}).await?;
            other.query_typed(IS_ACTIVE, &[(pid, Type::INT4), (since, Type::TIMESTAMPTZ)]).await
        };
        match tokio::time::timeout(CONNECT_WITHIN, asked).await {
            Ok(Ok(rows)) => !rows.is_empty(),
            // There is nowhere to begin again.
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Waits until a statement that nobody waits for any more has its answer.
    pub(crate) async fn until_answered(&self) -> Result<(), Trouble> {
        self.batch_execute("").await
    }

    /// Runs a statement that is prepared once a connection.
    pub(crate) async fn query_prepared(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<Row>, Trouble> {
        if !self.connector.is_direct() {
            return self.query(sql, given).await;
        }
        let outcome = self.whole(ASK_AFTER, self.prepare_and_query(sql, given)).await;
        if outcome.as_ref().is_err_and(Trouble::is_lost_statement) {
            // A pooler gives each transaction to another connection of the server.
            self.connector.prepares.store(false, Ordering::Relaxed);
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
        self.whole(ASK_AFTER, self.client.query_typed(text, &[])).await
    }

    pub(crate) async fn batch_execute(&self, text: &str) -> Result<(), Trouble> {
        self.whole(ASK_AFTER, self.client.batch_execute(text)).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The time at which the server was started, if there is no pooler between.
    pub(crate) fn up_since(&self) -> Option<SystemTime> {
        self.server.as_ref().map(|server| server.up_since)
    }

    /// Returns whether the link can be given to another task. One that still waits for an answer
    /// could keep that task waiting too, as across a network that is cut.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_closed() && !self.is_busy.load(Ordering::Relaxed)
    }
}

/// A maker of connections.
pub(crate) struct Connector {
    config: Config,
    tls: Arc<rustls::ClientConfig>,
    /// Cleared where a connection turns out to keep no prepared statements.
    prepares: AtomicBool,
}

impl Connector {
    pub(crate) fn new(config: Config, tls: rustls::ClientConfig, prepares: bool) -> Arc<Self> {
        Arc::new(Self { config, tls: Arc::new(tls), prepares: AtomicBool::new(prepares) })
    }

    /// Returns whether a connection is one to the server, and not to a pooler.
    pub(crate) fn is_direct(&self) -> bool {
        self.prepares.load(Ordering::Relaxed)
    }

    pub(crate) async fn connect(self: &Arc<Self>) -> Result<Link, Trouble> {
        self.listen(|_| {}).await
    }

    /// Connects, and calls `notify` with the payload of every notification.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        notify: impl FnMut(&str) + Send + 'static,
    ) -> Result<Link, Trouble> {
        let opened = tokio::time::timeout(CONNECT_WITHIN, self.open(notify));
        opened.await.unwrap_or(Err(Trouble::Slow))
    }

    async fn open(
        self: &Arc<Self>,
        notify: impl FnMut(&str) + Send + 'static,
    ) -> Result<Link, Trouble> {
        let client = self.client(notify).await?;
        let mut server = None;
        if self.is_direct() {
            client.batch_execute(SESSION).await?;
            if let Some(row) = client.query_typed(OWN_SIDE, &[]).await?.first() {
                server = Some(ServerSide {
                    pid: row.try_get(0)?,
                    since: row.try_get(1)?,
                    up_since: row.try_get(2)?,
                });
            }
        }
        Ok(Link {
            client,
            connector: Arc::clone(self),
            server,
            prepared: Mutex::default(),
            is_busy: AtomicBool::new(false),
        })
    }

    async fn client(
        &self,
        notify: impl FnMut(&str) + Send + 'static,
    ) -> Result<Client, tokio_postgres::Error> {
        if self.config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = self.config.connect(NoTls).await?;
            drive(connection, notify);
            return Ok(client);
        }
        let tls = MakeRustlsConnect::new(rustls::ClientConfig::clone(&self.tls));
        let (client, connection) = self.config.connect(tls).await?;
        drive(connection, notify);
        Ok(client)
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
