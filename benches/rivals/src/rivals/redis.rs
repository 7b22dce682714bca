//! Redis with its append-only file, synced before each answer; over a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use redis::{Client, Connection};

use super::{Rival, Session};
use crate::grouped::value;
use crate::server::{Server, command, find};
use crate::workload::Name;

pub struct Redis {
    socket: PathBuf,
    server: Server,
    /// The cursor of the expiry, which is 0 at its end.
    cursor: Mutex<Option<u64>>,
}

fn connect(socket: &Path) -> Result<Connection> {
    let url = format!("redis+unix://{}", socket.display());
    let mut connection = Client::open(url)?.get_connection()?;
    // It refuses everything else while it loads.
    redis::cmd("PING").query::<String>(&mut connection)?;
    Ok(connection)
}

impl Redis {
    pub fn open(directory: &Path) -> Result<Self> {
        let program = find("redis-server", &[]).context("install redis-server")?;
        let socket = directory.join("redis.sock");
        let mut command = command(program, None);
        command.arg("--port").arg("0").arg("--unixsocket").arg(&socket);
        command.arg("--dir").arg(directory).args(["--save", "", "--maxclients", "2000"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        let server = Server::start(command, &directory.join("errors"), || connect(&socket))?;
        Ok(Self { socket, server, cursor: Mutex::default() })
    }
}

impl Rival for Redis {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        Ok(Box::new(Answers(connect(&self.socket)?)))
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let mut connection = connect(&self.socket)?;
        let pattern = [&[Name::OLD][..], b"*"].concat();
        let mut cursor = self.cursor.lock().expect("nobody panics");
        let mut names: Vec<Vec<u8>> = Vec::new();
        while names.is_empty() && *cursor != Some(0) {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor.unwrap_or(0)).arg("MATCH").arg(&pattern).arg("COUNT").arg(max);
            let (next, found): (u64, Vec<Vec<u8>>) = scan.query(&mut connection)?;
            (*cursor, names) = (Some(next), found);
        }
        if !names.is_empty() {
            redis::cmd("UNLINK").arg(&names).query::<()>(&mut connection)?;
        }
        Ok(names.len())
    }

    fn processes(&self) -> Vec<u32> {
        self.server.processes()
    }
}

struct Answers(Connection);

impl Session for Answers {
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()> {
        let mut set = redis::cmd("SET");
        let set = set.arg(&name.bytes).arg(value(body)).arg("NX");
        let done: Option<String> = set.query(&mut self.0)?;
        done.map(drop).context("the key is known")
    }

    fn replay(&mut self, name: &Name) -> Result<bool> {
        let answer: Option<Vec<u8>> = redis::cmd("GET").arg(&name.bytes).query(&mut self.0)?;
        Ok(answer.is_some())
    }
}
