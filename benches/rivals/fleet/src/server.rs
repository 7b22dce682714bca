//! A PostgreSQL server for the bench.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

pub struct Server {
    port: u16,
    pub postmaster: u32,
    /// It ends with its standard input.
    _script: Child,
}

impl Server {
    pub async fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../crates/refrain-postgres/tests/server.sh");
        let mut script = Command::new(script);
        script.arg(binaries()?).arg(port.to_string());
        script.args(["max_connections=200", "shared_buffers=512MB", "max_wal_size=4GB"]);
        let script = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        for _ in 0..600 {
            if let Ok(client) = connect(port).await {
                let row = client.query_one("SHOW data_directory", &[]).await?;
                let file = Path::new(row.get::<_, &str>(0)).join("postmaster.pid");
                let text = std::fs::read_to_string(file)?;
                let postmaster = text.lines().next().context("no pid")?.parse()?;
                return Ok(Self { port, postmaster, _script: script });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("PostgreSQL does not start");
    }

    pub fn address(&self) -> String {
        format!("postgres://refrain@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    pub async fn client(&self) -> Result<Client> {
        Ok(connect(self.port).await?)
    }
}

async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let address = format!("postgres://refrain@127.0.0.1:{port}/postgres");
    let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn binaries() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("REFRAIN_POSTGRES") {
        return Ok(named.into());
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = installed.map(|entry| entry.path().join("bin")).filter(|bin| bin.is_dir());
    versions.max().context("install PostgreSQL's server, or name its binaries in REFRAIN_POSTGRES")
}
