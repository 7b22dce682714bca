//! A group of histories: its nodes, its faults, and what became of it all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio_postgres::Client;

use super::client::Requests;
use super::journal::{Entry, Life, Moment, now};
use super::judge::{Evidence, judge};
use super::kit::server::{Server, connect};
use super::node::{LEASE, Settings};
use super::peer::Peer;
use super::plan::{Fault, History, Kind, NODES, Plan};
use super::words::{Answer, Ask, Name, Number};
use super::{Start, figures};

/// The longest time in which all that is in flight ends, once the faults are over.
const QUIET_WITHIN: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// The failures that are told in full.
const TOLD: usize = 3;

/// Nodes that share a schema.
pub(super) struct Group {
    plan: Plan,
    schema: String,
    peers: Vec<Peer>,
    calls: AtomicU64,
    journals: Mutex<HashMap<Name, Vec<Entry>>>,
    /// The times of faults, by node.
    faults: Mutex<Vec<(usize, Moment, Moment)>>,
    is_over: AtomicBool,
    /// A failure that no journal shows.
    failure: Mutex<Option<String>>,
}

/// A session that the database says is dead, and the end of its lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    pub(super) life: Life,
    pub(super) lease_until: Moment,
}

/// Lives through the group of a seed, and returns the number of its histories.
pub(super) async fn live(seed: u64, start: &Start) -> Result<u64, String> {
    let server = Server::shared();
    let group = Group::new(seed, server.port).await?;
    let admin = connect(server.port).await.map_err(|error| format!("no database: {error}"))?;
    let lived = group.live(start, &admin).await;
    group.peers.iter().for_each(Peer::kill);
    let judged = group.judge(&admin).await;
    let outcome = match (lived, judged) {
        (Err(what), Err(wrong)) => Err(format!("{what}\n{wrong}")),
        (lived, judged) => lived.and(judged),
    };
    let dropped = format!("DROP SCHEMA IF EXISTS {} CASCADE", group.schema);
    admin.batch_execute(&dropped).await.map_err(|error| format!("cannot clean up: {error}"))?;
    let histories = group.plan.histories.len();
    figures::histories(histories);
    outcome.map(|()| histories as u64)
}

impl Group {
    async fn new(seed: u64, database: u16) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let plan = Plan::new(seed);
        let schema = format!("fleet_{}_{seed}", NEXT.fetch_add(1, Ordering::Relaxed));
        let settings = Settings {
            address: super::kit::server::address(database),
            node: String::new(),
            schema: schema.clone(),
            ttl: plan.retention,
        };
        let migrated = settings.builder().migrate(&settings.address).await;
        migrated.map_err(|error| format!("cannot set up: {error}"))?;
        let peers = (0..NODES).map(|node| Peer::new(node, database, settings.clone())).collect();
        Ok(Self {
            plan,
            schema,
            peers,
            calls: AtomicU64::new(0),
            journals: Mutex::default(),
            faults: Mutex::default(),
            is_over: AtomicBool::new(false),
            failure: Mutex::new(None),
        })
    }

    pub(super) fn retention_ms(&self) -> u64 {
        u64::try_from(self.plan.retention.as_millis()).unwrap_or(u64::MAX)
    }

    async fn live(&self, start: &Start, admin: &Client) -> Result<(), String> {
        for peer in &self.peers {
            peer.start(start).await?;
        }
        let histories = self.plan.histories.iter().flat_map(|history| self.clients(history));
        let faults = self.plan.tracks.iter().map(|track| self.suffer(track, start, admin));
        tokio::join!(join_all(histories), join_all(faults));
        for peer in &self.peers {
            peer.proxy.mend();
        }
        self.failed()?;
        self.is_over.store(true, Ordering::SeqCst);
        self.until_quiet().await?;
        join_all(self.plan.histories.iter().map(|history| async {
            // What has gone wrong is noted.
            let _: Result<_, _> =
                Requests::new(self, history.number, "last").look(history.keys).await;
        }))
        .await;
        self.failed()?;
        self.until_quiet().await?;
        self.until_no_claim_is_left(admin).await
    }

    fn clients<'a>(
        &'a self,
        history: &'a History,
    ) -> impl Iterator<Item = impl Future<Output = ()> + 'a> {
        history.clients.iter().map(|client| async {
            let requests = Requests::new(self, history.number, &client.name);
            let _: Result<_, _> = requests.all(client).await;
        })
    }

    async fn suffer(&self, track: &[Fault], start: &Start, admin: &Client) {
        for fault in track {
            tokio::time::sleep(fault.pause).await;
            if let Err(what) = self.inflict(*fault, start, admin).await {
                return self.fail(what);
            }
            figures::fault(fault.kind);
        }
    }

    async fn inflict(&self, fault: Fault, start: &Start, admin: &Client) -> Result<(), String> {
        let Fault { kind, node, lasts, .. } = fault;
        let peer = &self.peers[node];
        let _alone = peer.suffers.lock().await;
        let from = now();
        match kind {
            Kind::Kill => {
                peer.kill();
                tokio::time::sleep(lasts).await;
                peer.start(start).await?;
            }
            Kind::Stop => peer.stop(lasts).await,
            Kind::Cut => {
                peer.proxy.cut();
                tokio::time::sleep(lasts).await;
                peer.proxy.mend();
            }
            Kind::Stall => {
                peer.proxy.stall();
                tokio::time::sleep(lasts).await;
                peer.proxy.mend();
            }
            Kind::Terminate => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE application_name = $1";
                let ended = admin.query(sql, &[&peer.application()]).await;
                ended.map_err(|error| format!("cannot end connections: {error}"))?;
            }
            Kind::Outage => {
                self.peers.iter().for_each(|peer| peer.proxy.cut());
                tokio::time::sleep(lasts).await;
                self.peers.iter().for_each(|peer| peer.proxy.mend());
            }
        }
        let nodes = if kind == Kind::Outage { 0..NODES } else { node..node + 1 };
        self.faults.lock().extend(nodes.map(|node| (node, from, now())));
        Ok(())
    }

    /// Asks a node, or one process of it, and enters the answer in the journal. The inner value is
    /// None if it is down, the outer one if the group has failed.
    pub(super) async fn ask(
        &self,
        node: usize,
        name: Name,
        ask: Ask,
        life: Option<Life>,
    ) -> Option<Option<Entry>> {
        let number: Number = self.calls.fetch_add(1, Ordering::Relaxed);
        let is_final = self.is_over.load(Ordering::SeqCst);
        let Some(sent) = self.peers[node].send(number, &ask, life) else { return Some(None) };
        let (life, at) = (sent.life, sent.at);
        let told = match sent.reply().await {
            Ok(told) => told,
            Err(what) => {
                self.fail(format!("{what}: {ask:?}"));
                return None;
            }
        };
        figures::operation(&ask, told.as_ref().map(|told| &told.answer));
        let entry = Entry { number, name, life, ask, sent: at, told, is_final };
        self.journals.lock().entry(name).or_default().push(entry.clone());
        Some(Some(entry))
    }

    /// Notes a failure that no journal shows.
    pub(super) fn fail(&self, what: String) {
        self.failure.lock().get_or_insert(what);
    }

    /// Fails if the group has.
    pub(super) fn failed(&self) -> Result<(), String> {
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Waits until no node has anything in flight.
    async fn until_quiet(&self) -> Result<(), String> {
        let mut left = Vec::new();
        let quiet = async {
            loop {
                left.clear();
                for node in 0..NODES {
                    let number = self.calls.fetch_add(1, Ordering::Relaxed);
                    let sent = self.peers[node].send(number, &Ask::InFlight, None);
                    let sent = sent.ok_or_else(|| self.peers[node].ended())?;
                    let told = sent.reply().await?;
                    let told = told.ok_or_else(|| self.peers[node].ended())?;
                    left.push(told.answer);
                }
                if left.iter().all(|count| *count == Answer::Count(0)) {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let quiet = tokio::time::timeout(QUIET_WITHIN, quiet).await;
        quiet.unwrap_or_else(|_| Err(format!("operations stay in flight: {left:?}")))
    }

    /// Waits until no key is claimed, as nobody runs any more.
    async fn until_no_claim_is_left(&self, admin: &Client) -> Result<(), String> {
        let schema = &self.schema;
        let sql = format!(
            "SELECT k.request_id, k.state, s.node, s.dead, k.attempt::text FROM {schema}.key k \
             LEFT JOIN {schema}.session s ON s.id = k.session WHERE k.state < 2"
        );
        let mut left = Vec::new();
        let gone = async {
            loop {
                let rows = admin.query(&sql, &[]).await.map_err(|error| error.to_string())?;
                left = rows
                    .iter()
                    .map(|row| format!("{row:?} {:?}", row.get::<_, String>(0)))
                    .collect();
                if left.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let gone = tokio::time::timeout(QUIET_WITHIN, gone).await;
        gone.unwrap_or_else(|_| Err(format!("keys stay claimed, and nobody runs: {left:?}")))
    }

    async fn judge(&self, admin: &Client) -> Result<(), String> {
        let deaths = self.deaths(admin).await?;
        self.count_lapses(&deaths);
        let stops = self.peers.iter().flat_map(Peer::stops).collect();
        let evidence = Evidence { deaths, stops };
        let mut journals: Vec<_> = self.journals.lock().drain().collect();
        journals.sort_unstable_by_key(|(name, _)| *name);
        let failures: Vec<String> = journals
            .into_iter()
            .filter_map(|(name, entries)| {
                judge(entries, &evidence).err().map(|what| format!("{name:?}: {what}"))
            })
            .collect();
        if failures.is_empty() {
            return Ok(());
        }
        let told = failures.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("\n");
        Err(format!("{} keys are wrong\n{told}", failures.len()))
    }

    async fn deaths(&self, admin: &Client) -> Result<Vec<Death>, String> {
        let sql = format!(
            "SELECT node, (extract(epoch FROM lease_until) * 1000000)::int8 \
             FROM {}.session WHERE dead",
            self.schema
        );
        let rows = admin.query(&sql, &[]).await.map_err(|error| error.to_string())?;
        let death = |row: &tokio_postgres::Row| {
            let life = Life::parse(row.get(0)).ok_or("a session of no node")?;
            Ok(Death { life, lease_until: row.get(1) })
        };
        rows.iter().map(death).collect::<Result<_, String>>()
    }

    /// Counts leases that lapsed though no fault had touched their nodes just before.
    fn count_lapses(&self, deaths: &[Death]) {
        let before = Moment::try_from(LEASE.as_micros()).unwrap_or(Moment::MAX);
        let faults = self.faults.lock();
        let provoked = deaths.iter().filter(|death| {
            faults.iter().any(|(node, from, until)| {
                let lapsed = death.lease_until;
                *node == death.life.node && *from <= lapsed && lapsed - 2 * before <= *until
            })
        });
        figures::lapses(deaths.len(), deaths.len() - provoked.count());
    }
}
