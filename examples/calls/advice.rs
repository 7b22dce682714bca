//! The remedy for each error that keeps the server from running: the cause decides, and not the place.

use std::io;

use refrain::Error;
use refrain::error::Cause;
use rustix::io::Errno;

/// The remedy for a store that does not open.
pub(crate) fn on_opening(error: &Error) -> Option<&'static str> {
    match error {
        Error::Locked { .. } => Some("stop the process that has it open, or name another --store"),
        Error::Foreign { .. } => Some(
            "name an empty directory, or one that is to be made; if a store was here, salvage it \
             instead",
        ),
        Error::Newer { .. } => Some("run the version that wrote it, or a later one"),
        Error::Corrupt { .. } => Some(
            "restore the file, or have `Store::salvage` write what can be proved into a new \
             directory: an empty one forgets every key",
        ),
        Error::Full => Some("free some disk space, or raise the quota"),
        Error::Io { cause: Cause::DiskFull, .. } => {
            Some("free some disk space, or enlarge the volume: the store needs a little more of it")
        }
        Error::Io { cause: Cause::Permission, .. } => {
            Some("name a directory that this user may write to")
        }
        Error::Io { source, .. } if is_missing(source) => {
            Some("name a directory whose parent exists; it may be on a volume that is not mounted")
        }
        Error::Io { cause, source, .. } => of_system(*cause).or_else(|| of_the_disk(source)),
        Error::Setting { name: "ttl", .. } => Some("choose another --ttl"),
        _ => None,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn of_the_disk(error: &io::Error) -> Option<&'static str> {
    (error.raw_os_error() == Some(Errno::IO.raw_os_error()))
        .then_some("check the disk, and the system's log: it could not be read or written")
}

/// The remedy for a refusal of the system, whatever it refused.
pub(crate) fn of_system(cause: Cause) -> Option<&'static str> {
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
pub(crate) fn on_closing(error: &Error) -> Option<&'static str> {
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
        Error::Io { cause: Cause::Permission, .. } => Some(
            "let this user write to the directory again, and start again: what was answered is \
             still there",
        ),
        Error::Io { cause, .. } => of_system(*cause),
        failure => on_opening(failure),
    }
}

/// The remedy for a database that cannot be used.
#[cfg(feature = "postgres")]
pub(crate) fn on_connecting(error: &refrain_postgres::Error) -> Option<&'static str> {
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
