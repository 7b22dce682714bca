//! The errors that keep the server from running, each with its remedy.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use refrain::Error;
use refrain::error::Cause;

use crate::advice;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot open the idempotency store")]
    Open(#[source] Error),
    #[cfg(feature = "postgres")]
    #[error("cannot open the idempotency store")]
    Connect(#[source] refrain_postgres::Error),
    #[cfg(not(feature = "postgres"))]
    #[error("this server is built without the feature postgres, which a store in a database needs")]
    NoDatabases,
    #[error("cannot open journal {}", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot listen on the socket {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[cfg(feature = "metrics")]
    #[error("cannot record metrics")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    #[error("a store in a database has no directory for a socket")]
    NoDirectory,
    #[error("operators who come to a port bring a token, and there is none")]
    NoToken,
    #[error("cannot use the token in {}", path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    #[error("cannot say where it listens")]
    Announce(#[source] io::Error),
    #[error("cannot serve")]
    Serve(#[source] io::Error),
    #[error("cannot close the idempotency store")]
    Close(#[source] Error),
}

impl Failure {
    /// Prints every level of the error, and its remedy.
    pub(crate) fn report(&self) {
        warn(&chain(self));
        if let Some(advice) = self.advice() {
            warn(&format!("  {advice}"));
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Open(error) => advice::on_opening(error),
            #[cfg(feature = "postgres")]
            Self::Connect(error) => advice::on_connecting(error),
            #[cfg(not(feature = "postgres"))]
            Self::NoDatabases => {
                Some("build it with --features postgres, or name a directory as --store")
            }
            Self::Journal { source, .. } => advice::of_system(Cause::of(source))
                .or(Some("name a file that this user may append to")),
            Self::Listen { source, .. } => advice::of_system(Cause::of(source))
                .or(Some("name another address, or port 0 for any port")),
            Self::Socket { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("remove what is there, unless a process answers at it")
            }
            Self::Socket { source, .. } => advice::of_system(Cause::of(source))
                .or(Some("give the store a shorter path, or --admin an address")),
            // There is no other recorder in this process.
            #[cfg(feature = "metrics")]
            Self::Metrics(_) => None,
            Self::NoDirectory => Some("give --admin an address, and --admin-token-file"),
            Self::NoToken => Some("give --admin-token-file"),
            Self::Token { source, .. } => advice::of_system(Cause::of(source))
                .or(Some("name a file with a token that this user may read")),
            Self::Signals(source) | Self::Announce(source) | Self::Serve(source) => {
                advice::of_system(Cause::of(source))
            }
            Self::Close(error) => advice::on_closing(error),
        }
    }
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[expect(clippy::print_stderr, reason = "whoever runs the server reads it there")]
pub(crate) fn warn(line: &str) {
    eprintln!("calls: {line}");
}
