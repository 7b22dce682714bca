//! The facts about a store's face, held against PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../../tests/conformance/facts/mod.rs"]
mod facts;
#[path = "../kit/mod.rs"]
mod kit;

mod on_postgres {
    crate::facts::suite! { crate::OnPostgres,
        survives: yes,
        bounded: "the database holds as many claims as come",
        shared: yes,
    }
}

use std::cell::{OnceCell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::backend::Limits;
use refrain::{Operation, Permit, Store};
use refrain_postgres::{Builder, Postgres, SCHEMA};

use facts::kit::{DAY, execute, interrupted};
use facts::{FEW, House, Shared, Survives};
use kit::bouncer::Bouncer;
use kit::proxy::Proxy;
use kit::server::{Server, address, runtime};

/// Short, so that a database which does not answer is noticed soon.
const PATIENCE: Duration = Duration::from_secs(3);

/// A schema of the test's own, behind a network of its own.
struct OnPostgres {
    /// The one in use is the last.
    schemas: RefCell<Vec<String>>,
    proxy: Proxy,
    /// Behind the proxy, where `REFRAIN_POSTGRES_POOLER` is set.
    pooler: Option<Bouncer>,
    /// Another node's store, with a network that holds.
    other: OnceCell<Store>,
    running: RefCell<Vec<Permit>>,
}

impl OnPostgres {
    fn schema(&self) -> String {
        self.schemas.borrow().last().unwrap().clone()
    }

    fn builder(&self) -> Builder {
        Postgres::builder()
            .schema(self.schema())
            .patience(PATIENCE)
            .connections(4)
            .pooler(self.pooler.is_some())
            .max_response_bytes(64 * 1024)
            .ttl(DAY)
    }

    fn other(&self) -> &Store {
        self.other.get_or_init(|| {
            let builder = self.builder().node("other").limits(FEW);
            runtime().block_on(builder.connect(&Server::shared().address())).unwrap()
        })
    }

    fn run(&self, statements: &str) {
        Server::shared().run(&statements.replace("SCHEMA", &self.schema()));
    }
}

fn new_schema() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("house_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl House for OnPostgres {
    fn new() -> Self {
        let server = Server::shared();
        let schema = new_schema();
        let builder = Postgres::builder().schema(&schema).ttl(DAY);
        runtime().block_on(builder.migrate(&server.address())).unwrap();
        let is_pooled = std::env::var_os("REFRAIN_POSTGRES_POOLER").is_some();
        let pooler = is_pooled.then(|| Bouncer::start("refrain")).flatten();
        Self {
            schemas: RefCell::new(vec![schema]),
            proxy: Proxy::to(pooler.as_ref().map_or(server.port, |pooler| pooler.port)),
            pooler,
            other: OnceCell::new(),
            running: RefCell::default(),
        }
    }

    fn open_within(&self, limits: Limits) -> Store {
        let builder = self.builder().node("this").limits(limits);
        runtime().block_on(builder.connect(&address(self.proxy.port))).unwrap()
    }

    /// The past moves away: the database's own clock cannot be set.
    fn pass_time(&self, by: Duration) {
        let ms = by.as_millis();
        self.run(&format!(
            "UPDATE SCHEMA.key SET expires_at = expires_at - {ms} * interval '1 millisecond', \
             sweep = sweep - {ms} / (SELECT slot_ms FROM SCHEMA.meta)"
        ));
    }

    /// The database's clock goes on while a fact is looked at.
    fn grain(&self) -> Duration {
        Duration::from_secs(60)
    }
}

impl Survives for OnPostgres {
    /// The tables as a killed process leaves them, in a schema where nobody is left.
    fn crash(&self) {
        let (old, new) = (self.schema(), new_schema());
        let mut copy = SCHEMA.replace("refrain", &new);
        copy += &format!("DELETE FROM {new}.meta;");
        let bodies = (0..12).map(|slot| format!("body_{slot:02}"));
        for table in ["meta", "key"].map(String::from).into_iter().chain(bodies) {
            copy += &format!("INSERT INTO {new}.{table} SELECT * FROM {old}.{table};");
        }
        // No session is there: those of the old schema are dead.
        Server::shared().run(&copy);
        self.schemas.borrow_mut().push(new);
    }
}

impl Shared for OnPostgres {
    fn run_elsewhere(&self, operation: &Operation) {
        self.running.borrow_mut().push(execute(self.other(), operation));
    }

    fn complete_elsewhere(&self, operation: &Operation, response: &Response<Bytes>) {
        let mut running = self.running.borrow_mut();
        let at = running.iter().position(|permit| permit.key() == operation.key()).unwrap();
        running.remove(at).complete(response).wait().unwrap();
    }

    fn take_over(&self, operation: &Operation, response: &Response<Bytes>) {
        self.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'this'");
        interrupted(self.other(), operation).complete(response).wait().unwrap();
    }

    fn cut_off(&self) {
        self.proxy.cut();
    }

    fn reconnect(&self) {
        self.proxy.mend();
    }
}
