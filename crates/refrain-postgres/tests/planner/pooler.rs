//! Through pgbouncer in transaction mode, where it is installed.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::kit::room::{DAY, Room, until};
use crate::kit::server::{Server, address, runtime};

/// The connections that the pooler has to the server.
const POOL: usize = 6;

struct Bouncer {
    port: u16,
    dir: PathBuf,
    process: Child,
}

impl Bouncer {
    /// None where pgbouncer is not installed.
    #[allow(clippy::print_stderr, reason = "what is skipped is said")]
    fn start(role: &str) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists());
        let Some(program) = program else {
            eprintln!("skipped: pgbouncer is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("refrain-pgbouncer-{port}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let settings = dir.join("pgbouncer.ini");
        let mut file = std::fs::File::create(&settings).unwrap();
        write!(
            file,
            "[databases]\npostgres = host=127.0.0.1 port={server} user={role}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {POOL}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n",
            server = Server::shared().port,
        )
        .unwrap();
        // It does not run as root.
        let is_root = std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let mut command = if is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", program]);
            command
        } else {
            Command::new(program)
        };
        let process = command
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bouncer = Self { port, dir, process };
        until("pgbouncer answers", || {
            runtime().block_on(crate::kit::server::connect(port)).is_ok()
        });
        Some(bouncer)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // Whoever became another user passes this on.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_table_that_has_grown_is_read_by_its_index_through_pgbouncer() {
    for is_analyzed in [true, false] {
        let room = Room::with_ttl(DAY);
        let Some(bouncer) = Bouncer::start(&crate::role(&room)) else { return };
        let builder = room.builder().pooler(true).patience(std::time::Duration::from_secs(10));
        let store = runtime().block_on(builder.connect(&address(bouncer.port))).unwrap();
        crate::holds_when_grown(&room, &store, is_analyzed);
    }
}

#[test]
fn a_store_is_set_up_and_completes_in_transactions_through_pgbouncer() {
    use refrain_postgres::CompleteIn;

    let Some(bouncer) = Bouncer::start("refrain") else { return };
    let room = Room::empty(DAY);
    let through = address(bouncer.port);
    let builder = room.builder().pooler(true);
    runtime().block_on(builder.clone().migrate(&through)).unwrap();
    let store = runtime().block_on(builder.connect(&through)).unwrap();
    let asked = crate::operation("pooled");
    let mut permit = crate::execute(&store, &asked);
    let mut client = runtime().block_on(crate::kit::server::connect(bouncer.port)).unwrap();
    runtime().block_on(async {
        let transaction = client.transaction().await.unwrap();
        permit.complete_in(&transaction, &crate::response("pooled")).await.unwrap();
        transaction.commit().await.unwrap();
    });
    permit.release().wait().unwrap();
    assert_eq!(crate::kit::room::replayed(&store, &asked), "pooled");
}

/// The planner's settings stayed on the pooler's connections, and with them every other client's
/// plans. A channel that a store listened to stayed as well.
#[test]
fn a_store_leaves_no_settings_on_the_poolers_connections() {
    let Some(bouncer) = Bouncer::start("refrain") else { return };
    let room = Room::with_ttl(DAY);
    let builder = room.builder().pooler(true);
    let store = runtime().block_on(builder.connect(&address(bouncer.port))).unwrap();
    crate::work(&store, "pooled");
    let asked = crate::operation("waited");
    let elsewhere = room.open("elsewhere");
    let permit = crate::execute(&elsewhere, &asked);
    let begin = store.begin(&asked);
    let waiter = std::thread::Builder::new().spawn(move || begin.wait()).unwrap();
    until("the key is marked", || room.ask("SELECT bool_or(waited) FROM SCHEMA.key"));
    permit.complete(&crate::response("waited")).wait().unwrap();
    assert!(matches!(waiter.join().unwrap().unwrap(), refrain::Outcome::Replay(_)));
    // All of the pooler's connections, each taken by a transaction.
    let others: Vec<_> = (0..POOL)
        .map(|_| {
            runtime().block_on(async {
                let other = crate::kit::server::connect(bouncer.port).await.unwrap();
                other.batch_execute("BEGIN").await.unwrap();
                let row = other.query_typed("SHOW enable_seqscan", &[]).await.unwrap();
                assert_eq!(row[0].get::<_, String>(0), "on");
                let channels = "SELECT pg_listening_channels()";
                assert!(other.query_typed(channels, &[]).await.unwrap().is_empty());
                other
            })
        })
        .collect();
    drop(others);
}
