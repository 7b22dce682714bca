//! The errors that keep the server from running, each with its remedy.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use refrain::Error;
use refrain::error::Cause;

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
            Self::Open(error) => opening_advice(error),
            #[cfg(feature = "postgres")]
            Self::Connect(error) => connecting_advice(error),
            #[cfg(not(feature = "postgres"))]
            Self::NoDatabases => {
                Some("build it with --features postgres, or name a directory as --store")
            }
            Self::Journal { source, .. } => system_advice(Cause::of(source))
                .or(Some("name a file that this user may append to")),
            Self::Listen { source, .. } => system_advice(Cause::of(source))
                .or(Some("name another address, or port 0 for any port")),
            Self::Signals(source) | Self::Announce(source) | Self::Serve(source) => {
                system_advice(Cause::of(source))
            }
            Self::Close(error) => closing_advice(error),
        }
    }
}

fn opening_advice(error: &Error) -> Option<&'static str> {
    match error {
        Error::Locked { .. } => Some("stop the process that has it open, or name another --store"),
        Error::Foreign { .. } => Some(
            "name an empty directory, or one that is to be made; if a store was here, salvage it instead",
        ),
        Error::Newer { .. } => Some("run the version that wrote it, or a later one"),
        Error::Corrupt { .. } => Some(
            "restore the file, or have `Store::salvage` write what can be proved into a new directory: an empty one forgets every key",
        ),
        Error::Full => Some("free some disk space"),
        Error::Io { cause: Cause::DiskFull, .. } => {
            Some("free some disk space, or enlarge the volume: the store needs a little more of it")
        }
        Error::Io { cause, source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory => {
                Some("name a directory that this user may write to and whose parent exists")
            }
            _ => system_advice(*cause),
        },
        Error::Setting { name: "ttl", .. } => Some("choose another --ttl"),
        _ => None,
    }
}

/// The remedy for a refusal of the system, whatever it refused.
fn system_advice(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::DiskFull => Some("free some disk space"),
        Cause::Quota => Some("free some of this user's disk quota, or raise it"),
        Cause::FileSize { max: Some(_), .. } => {
            Some("raise the limit on file sizes: ulimit -f, or LimitFSIZE= in a systemd unit")
        }
        Cause::FileSize { .. } => Some("use a file system that has larger files"),
        Cause::OpenFiles { max: Some(_), .. } => {
            Some("raise the limit of open files: ulimit -n, or LimitNOFILE= in a systemd unit")
        }
        Cause::OpenFiles { .. } => Some("raise the system's limit of open files: fs.file-max"),
        Cause::ReadOnly => Some(
            "mount the file system for writing, after a check if an error has made it read-only; a \
             systemd unit may need ReadWritePaths=",
        ),
        _ => None,
    }
}

/// The remedy for a store that has stopped by itself. A new process finds all that was answered, if
/// it finds the directory.
fn closing_advice(error: &Error) -> Option<&'static str> {
    let Error::Stopped { source: Some(failure), .. } = error else { return None };
    match &**failure {
        Error::Foreign { .. } => Some(
            "put the directory back in its place before a start: in an empty one every key runs again",
        ),
        Error::Io { cause: Cause::Other, .. } => {
            Some("check the disk and start again: what was answered is still there")
        }
        Error::Io { cause: Cause::ReadOnly, .. } => Some(
            "check the disk, mount it for writing and start again: what was answered is still there",
        ),
        Error::Io { cause, .. } => system_advice(*cause),
        _ => None,
    }
}

#[cfg(feature = "postgres")]
fn connecting_advice(error: &refrain_postgres::Error) -> Option<&'static str> {
    use refrain_postgres::Error;
    match error {
        Error::Address(_) => Some("write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE"),
        Error::Setting { name: "ttl", .. } => Some(
            "choose another --ttl; or another --schema, which is set up to keep responses so long",
        ),
        Error::Setting { name: "schema", .. } => Some("choose another --schema"),
        Error::Setting { name: "lease", .. } => Some("choose another --lease"),
        Error::Version { .. } => {
            Some("run a version that the schema serves, or name another --schema")
        }
        Error::Unsafe { .. } => Some("change it in the server's configuration"),
        Error::Database(_) => {
            Some("name a running server, and a role that may log in and create the schema")
        }
        _ => None,
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
