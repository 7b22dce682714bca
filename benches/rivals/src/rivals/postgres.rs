//! PostgreSQL, each commit synced; prepared statements over a Unix socket.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use postgres::{Client, Config, NoTls, Statement};

use super::{Rival, Session};
use crate::grouped::value;
use crate::server::{Server, User, command, find};
use crate::workload::Name;

pub struct Postgres {
    directory: PathBuf,
    server: Server,
}

fn connect(directory: &Path) -> Result<Client> {
    Ok(Config::new().host_path(directory).user("bench").dbname("postgres").connect(NoTls)?)
}

impl Postgres {
    pub fn open(directory: &Path) -> Result<Self> {
        let mut places: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
            .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
            .unwrap_or_default();
        places.sort();
        places.reverse();
        let postgres = find("postgres", &places).context("install postgresql")?;
        let initdb = find("initdb", &places).context("install postgresql")?;
        // It refuses to run as root.
        let user = rustix::process::geteuid().is_root().then(|| User::named("postgres"));
        let user = user.transpose()?;
        if let Some(user) = user {
            user.own(directory)?;
        }
        let data = directory.join("data");
        if !data.join("PG_VERSION").exists() {
            run(command(initdb, user).arg("--pgdata").arg(&data).args([
                "--username=bench",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ]))?;
        }
        let mut start = command(postgres, user);
        start.arg("-D").arg(&data).arg("-k").arg(directory);
        for setting in [
            "listen_addresses=",
            "fsync=on",
            "synchronous_commit=on",
            "max_connections=300",
            "shared_buffers=1GB",
            "max_wal_size=4GB",
        ] {
            start.args(["-c", setting]);
        }
        let errors = directory.join("errors");
        let server = Server::start(start, &errors, || connect(directory))?;
        connect(directory)?.batch_execute(
            "CREATE TABLE IF NOT EXISTS records (name bytea PRIMARY KEY, answer bytea NOT NULL)",
        )?;
        Ok(Self { directory: directory.to_owned(), server })
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Rival for Postgres {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        let mut client = connect(&self.directory)?;
        let insert =
            client.prepare("INSERT INTO records VALUES ($1, $2) ON CONFLICT DO NOTHING")?;
        let select = client.prepare("SELECT answer FROM records WHERE name = $1")?;
        Ok(Box::new(Connection { client, insert, select }))
    }

    fn settle(&self) -> Result<()> {
        Ok(connect(&self.directory)?.batch_execute("CHECKPOINT")?)
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let delete = "DELETE FROM records WHERE name IN \
                      (SELECT name FROM records WHERE name >= $1 AND name < $2 LIMIT $3)";
        let (from, to) = (&[Name::OLD][..], &[Name::OLD + 1][..]);
        let count = connect(&self.directory)?.execute(delete, &[&from, &to, &(max as i64)])?;
        Ok(usize::try_from(count)?)
    }

    fn processes(&self) -> Vec<u32> {
        self.server.processes()
    }
}

struct Connection {
    client: Client,
    insert: Statement,
    select: Statement,
}

impl Session for Connection {
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()> {
        let count = self.client.execute(&self.insert, &[&&name.bytes[..], &value(body)])?;
        ensure!(count == 1, "the key is known");
        Ok(())
    }

    fn replay(&mut self, name: &Name) -> Result<bool> {
        let row = self.client.query_opt(&self.select, &[&&name.bytes[..]])?;
        Ok(row.is_some_and(|row| !row.get::<_, &[u8]>(0).is_empty()))
    }
}
