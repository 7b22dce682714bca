//! The remedy for each failure: its cause decides.

use std::io;

use refrain::Error;
use refrain::admin::Code;
use refrain::error::Cause;

/// Returns the remedy for an error of the store.
pub(crate) fn on_store(error: &Error) -> Option<&'static str> {
    match error {
        Error::Missing { .. } => Some("check the path, and that its volume is mounted"),
        Error::Foreign { .. } => Some("name another directory, or move those files away"),
        Error::Newer { .. } => {
            Some("use the `refrain` of the version that wrote it, or a later one")
        }
        Error::Corrupt { .. } => Some(
            "restore the file if you have it; if the store does not open, write what can be proved \
             into a new one with `refrain salvage`",
        ),
        Error::InFlight { .. } | Error::Behind | Error::Limit { .. } => {
            Some("run this again later")
        }
        Error::Full => Some("then run this again"),
        Error::Io { source, .. } => on_system(source),
        Error::Stopped { source: Some(failure), .. } => on_store(failure),
        _ => None,
    }
}

/// Returns the remedy for the refusal of a server.
pub(crate) fn on_refusal(code: Code) -> Option<&'static str> {
    match code {
        Code::NotFound => {
            Some("check the key and the scope, or list what is there with `refrain ls`")
        }
        Code::NotInterrupted => Some("see it with `refrain get`"),
        Code::Unauthorized => Some("give it with --admin-token-file, or in REFRAIN_ADMIN_TOKEN"),
        Code::SocketOnly => Some("run this on that machine, with --store"),
        Code::Occupied => Some("name another directory, or move those files away"),
        Code::InFlight | Code::Busy => Some("run this again later"),
        Code::Full => Some("then run this again"),
        Code::LeftOut => Some("free some space there"),
        Code::Damaged => Some(
            "find out what the operation did, and then `refrain forget` the key; check the disk",
        ),
        Code::Stopped => Some("restart the server"),
        _ => None,
    }
}

/// Returns the remedy for an error of the operating system.
pub(crate) fn on_system(error: &io::Error) -> Option<&'static str> {
    let of_kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some("check the path"),
        _ => None,
    };
    of_kind.or_else(|| of_cause(Cause::of(error))).or_else(|| of_disk(error))
}

fn of_cause(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::DiskFull => Some("free some space there, or use another disk"),
        Cause::Quota => Some("free some of this user's quota there, or raise it"),
        Cause::FileSize { max: Some(_), .. } => Some("raise the limit with `ulimit -f`"),
        Cause::FileSize { .. } => Some("use a file system that has larger files"),
        Cause::OpenFiles { max: Some(_), .. } => Some("raise the limit with `ulimit -n`"),
        Cause::OpenFiles { .. } => Some("raise the system's limit, fs.file-max"),
        Cause::ReadOnly => Some("check the disk, and mount the file system for writing"),
        Cause::Permission => Some("run this as the user that owns it"),
        _ => None,
    }
}

fn of_disk(error: &io::Error) -> Option<&'static str> {
    (error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()))
        .then_some("check the disk, and the system's log")
}
