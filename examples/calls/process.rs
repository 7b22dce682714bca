//! The limits of the process, and the signal of one of them. They are the program's to decide, and
//! so the store leaves them alone.

use std::io;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Raises the limit of open files as far as this user may.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it stays as it is, the error of a file that cannot be opened names it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Lets the process live on when one of its files reaches the limit on file sizes. The write then
/// fails with an error that says so.
pub(crate) fn outlive_file_sizes() -> io::Result<()> {
    // The handler outlives the value that is dropped.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}
