//! A standby that is promoted after its link to the primary was cut.

use std::io::Write as _;
use std::time::Duration;

use refrain::{Error, Fingerprint, Operation, Scope};
use refrain_postgres::Postgres;

use crate::client::CALL;
use crate::kit::proxy::Proxy;
use crate::kit::server::{Server as Database, connect};
use crate::load::{
    Load, assert_exact, assert_is_for_now, assert_tables_hold, assert_unavailable, effects_by_key,
    place_at_all,
};
use crate::node::{self, PAUSE, within};
use crate::server::Home;

const BRIEF: [&str; 2] = ["--wait", "100ms"];

/// A primary, and a standby whose link can be cut.
struct Pair {
    primary: Database,
    link: Proxy,
    standby: u16,
}

impl Pair {
    fn start() -> Self {
        let primary =
            Database::start(&["max_connections=200", "wal_retrieve_retry_interval=100ms"]);
        let link = Proxy::to(primary.port);
        let standby = primary.start_standby(link.port);
        Self { primary, link, standby }
    }

    /// Has the primary's commits wait for the standby.
    async fn make_synchronous(&self) {
        self.primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.primary.run("SELECT pg_reload_conf()");
        self.until_primary_tells(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync')",
        )
        .await;
    }

    /// The address of whichever of both takes writes.
    fn address(&self) -> String {
        let (primary, standby) = (self.primary.port, self.standby);
        format!(
            "postgres://refrain@127.0.0.1:{primary},127.0.0.1:{standby}/postgres\
             ?sslmode=disable&target_session_attrs=read-write"
        )
    }

    async fn until_primary_tells(&self, query: &str) {
        within(async {
            while !self.primary.tells(query) {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }
}

async fn terminate_waiting(primary: u16) {
    let client = connect(primary).await.unwrap();
    loop {
        let terminated = client.batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
        );
        terminated.await.unwrap();
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promoting_a_synchronous_standby_loses_no_acknowledged_record() {
    let pair = Pair::start();
    pair.make_synchronous().await;
    let home = Home::over(pair.address());
    let servers = [home.node(&[]), home.node(&[]), home.node(&[])];
    let mut load = Load::on(&servers, 32);
    load.until_placed(200).await;
    pair.link.cut();
    // What was committed without the standby is not acknowledged.
    pair.until_primary_tells(
        "SELECT count(*) > 2 FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    )
    .await;
    for answer in place_at_all(&servers, "without-standby").await {
        assert_unavailable(&answer);
    }
    // A backend that is terminated while it waits leaves its commit in place, where the next try
    // finds it.
    let answers = tokio::select! {
        answers = place_at_all(&servers, "terminated") => answers,
        () = terminate_waiting(pair.primary.port) => unreachable!("it goes on and on"),
    };
    answers.iter().for_each(assert_is_for_now);
    pair.primary.crash();
    pair.primary.promote_standby();
    load.until_placed(200).await;
    let placed = load.stop().await;
    assert_exact(&home, pair.standby, &servers, &placed).await;
}

/// What is lost runs again when it is asked for, and nothing tells that run from a first one. The
/// claim of a lost record may be there: its key is in progress until its server's session ends.
#[tokio::test(flavor = "multi_thread")]
async fn promoting_an_asynchronous_standby_forgets_what_it_had_not_received() {
    let pair = Pair::start();
    pair.until_primary_tells(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE state = 'streaming')",
    )
    .await;
    let home = Home::over(pair.address());
    let servers = [home.node(&BRIEF), home.node(&BRIEF), home.node(&BRIEF)];
    let mut load = Load::on(&servers, 32);
    load.until_placed(200).await;
    let received = load.placed();
    pair.link.cut();
    load.until_placed(200).await;
    pair.primary.crash();
    let acknowledged = load.placed();
    pair.primary.promote_standby();
    load.until_placed(200).await;
    let placed = load.stop().await;

    let (mut lost, mut held) = (0, Vec::new());
    for (placed, server) in placed.iter().zip(servers.iter().cycle()) {
        let again = server.place(&placed.key, CALL).await;
        if again.code() == "idempotency_in_progress" {
            held.push(&placed.key);
        } else if again.is_replay() {
            assert_eq!(again.body, placed.answer.body);
        } else {
            assert_eq!(again.status, 201);
            lost += 1;
        }
    }
    say(&format!(
        "asynchronous promotion: of {acknowledged} acknowledged records, of which {} were after \
         the cut, {lost} were lost and ran again, and {} were lost but for their claims",
        acknowledged - received,
        held.len(),
    ));
    assert!(lost > 0, "the standby was cut off");
    servers.into_iter().for_each(node::Server::kill);
    let server = home.node(&[]);
    for key in &held {
        let again = server.place(key, CALL).await;
        assert_eq!(again.status, 201);
        assert!(!again.is_replay());
    }
    let effects = effects_by_key(&home);
    let twice = effects.values().filter(|effects| **effects > 1).count();
    assert!(twice >= lost + held.len(), "what was lost has run again");
    assert_tables_hold(&home, pair.standby, effects.len()).await;
}

/// Says it past the capture of a test's output.
#[allow(clippy::explicit_write, reason = "what is printed otherwise is captured")]
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// Each caller gives up in its time, and the database goes on waiting for the standby. Were its
/// connection given up too, the next would be another, until the server had none left for anybody.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_standby_is_gone_a_node_holds_no_more_connections_than_it_may() {
    const CONNECTIONS: usize = 4;
    let pair = Pair::start();
    pair.make_synchronous().await;
    let builder = Postgres::builder()
        .connections(CONNECTIONS)
        .patience(Duration::from_millis(300))
        .lease(Duration::from_millis(600));
    builder.clone().migrate(&pair.primary.address()).await.unwrap();
    let store = builder.connect(&pair.primary.address()).await.unwrap();
    let operation = |n: usize| {
        let fingerprint = Fingerprint::of(["POST", "/v1/calls"]);
        Operation::new(Scope::from_api_key("sk"), format!("k{n}").parse().unwrap(), fingerprint)
    };
    pair.link.cut();
    for n in 0..30 {
        let refused = store.begin(&operation(n)).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    }
    // With one for the lease, and one that asks whether another is worked on.
    let held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'refrain'";
    let few = format!("SELECT ({held}) <= {}", CONNECTIONS + 2);
    assert!(pair.primary.tells(&few));

    pair.link.mend();
    within(async { while store.begin(&operation(0)).await.is_err() {} }).await;
}
