//! Clients that keep servers busy, and what must hold once they are done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Answer, CALL};
use crate::kit::server::tells;
use crate::node::{self, Door, PAUSE, within};
use crate::server::Home;

/// The pause before a request is repeated: much less than what its client is told.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Clients that place calls, each under a new key, and repeat each at the next server until it is
/// answered.
pub(crate) struct Load {
    is_over: watch::Sender<bool>,
    placed: watch::Receiver<usize>,
    clients: JoinSet<Vec<Placed>>,
}

/// A call that was acknowledged.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) key: String,
    pub(crate) answer: Answer,
}

impl Load {
    pub(crate) fn on<'a>(
        servers: impl IntoIterator<Item = &'a node::Server>,
        clients: usize,
    ) -> Self {
        let doors: Arc<[Door]> = servers.into_iter().map(|server| **server).collect();
        let (is_over, over) = watch::channel(false);
        let (count, placed) = watch::channel(0);
        let count = Arc::new(count);
        let clients = (0..clients).map(|client| {
            let (doors, over, count) = (Arc::clone(&doors), over.clone(), Arc::clone(&count));
            place_calls(doors, client, over, count)
        });
        Self { is_over, placed, clients: clients.collect() }
    }

    /// The number of calls that were acknowledged so far.
    pub(crate) fn placed(&self) -> usize {
        *self.placed.borrow()
    }

    /// Waits until so many more calls are acknowledged.
    pub(crate) async fn until_placed(&mut self, more: usize) {
        let enough = self.placed() + more;
        within(self.placed.wait_for(|placed| *placed >= enough)).await.unwrap();
    }

    /// Waits for the calls that are on their way.
    pub(crate) async fn stop(self) -> Vec<Placed> {
        self.is_over.send_replace(true);
        within(self.clients.join_all()).await.into_iter().flatten().collect()
    }
}

async fn place_calls(
    doors: Arc<[Door]>,
    client: usize,
    is_over: watch::Receiver<bool>,
    count: Arc<watch::Sender<usize>>,
) -> Vec<Placed> {
    let mut placed = Vec::new();
    while !*is_over.borrow() {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let key = format!("load-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut next = client;
        let answer = loop {
            let answer = doors[next % doors.len()].place(&key, CALL).await;
            if answer.status == 201 {
                break answer;
            }
            assert_is_for_now(&answer);
            next += 1;
            tokio::time::sleep(BACK_OFF).await;
        };
        count.send_modify(|count| *count += 1);
        placed.push(Placed { key, answer });
    }
    placed
}

/// The refusals that a database's fault may lead to, of which each asks for a retry.
pub(crate) fn assert_is_for_now(answer: &Answer) {
    match &*answer.code() {
        "idempotency_in_progress" => assert_eq!(answer.status, 409),
        "idempotency_outcome_unknown" => assert_outcome_unknown(answer),
        _ => assert_unavailable(answer),
    }
}

/// Places a call at all of the servers at once.
pub(crate) async fn place_at_all(servers: &[node::Server], key: &str) -> Vec<Answer> {
    let placing: JoinSet<_> = servers
        .iter()
        .map(|server| {
            let (door, key) = (**server, key.to_owned());
            async move { door.place(&key, CALL).await }
        })
        .collect();
    placing.join_all().await
}

/// The handler did not run.
pub(crate) fn assert_unavailable(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "idempotency_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// The handler ran, and its answer is not recorded yet.
pub(crate) fn assert_outcome_unknown(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "idempotency_outcome_unknown"));
    assert_eq!(answer.header("retry-after"), None);
}

/// Each call had its effect once, and is replayed as it was answered, at every server; the tables
/// hold nothing else.
pub(crate) async fn assert_exact(
    home: &Home,
    database: u16,
    servers: &[node::Server],
    placed: &[Placed],
) {
    let keys: BTreeSet<&str> = placed.iter().map(|placed| &*placed.key).collect();
    let effects = effects_by_key(home);
    for (key, effects) in &effects {
        assert_eq!(*effects, 1, "the effects of {key}");
    }
    let missing: Vec<_> = keys.iter().filter(|key| !effects.contains_key(**key)).collect();
    assert!(missing.is_empty(), "without an effect: {missing:?}");
    for (placed, server) in placed.iter().zip(servers.iter().cycle()) {
        let again = server.place(&placed.key, CALL).await;
        assert!(again.is_replay(), "{}: {again:?}", placed.key);
        assert_eq!(again.body, placed.answer.body, "{}", placed.key);
    }
    assert_tables_hold(home, database, effects.len()).await;
}

/// The number of effects of each key.
pub(crate) fn effects_by_key(home: &Home) -> BTreeMap<String, usize> {
    let mut effects = BTreeMap::new();
    for line in home.journal() {
        *effects.entry(line["key"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    effects
}

/// The tables hold so many records, each with its body, and no claims once those that were given up
/// are undone.
pub(crate) async fn assert_tables_hold(home: &Home, database: u16, records: usize) {
    let schema = home.schema();
    let is_calm = format!("SELECT NOT EXISTS (SELECT 1 FROM {schema}.key WHERE state < 3)");
    within(async {
        while !tells(database, &is_calm) {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    let bodies: Vec<String> =
        (0..12).map(|slot| format!("SELECT attempt FROM {schema}.body_{slot:02}")).collect();
    let bodies = bodies.join(" UNION ALL ");
    let has_all = format!(
        "SELECT (SELECT count(*) FROM {schema}.key) = {records} \
         AND (SELECT count(*) FROM ({bodies}) AS b) = {records} \
         AND (SELECT count(*) FROM {schema}.key JOIN ({bodies}) AS b USING (attempt)) = {records}"
    );
    assert!(tells(database, &has_all), "{records} records, each with its body");
}
