//! The store that a command works on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use refrain::admin::{Admin, Socket};
use refrain::codec::MAX_BODY_BYTES;
use refrain::{Error, Store};
use rustix::process::geteuid;

use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::holder::Holder;
use crate::owner;
use crate::served::{Address, Served};

/// The file with the identity of a store.
pub(crate) const LOCK: &str = "LOCK";
/// The file with the list of a store's files.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// The file that a backup has until it is finished.
const UNFINISHED: &str = "BACKUP";

/// The store, as it is named.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The directory of the store; if a server has it open, its socket there is asked [env:
    /// REFRAIN_STORE]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "admin")]
    store: Option<PathBuf>,
    /// The socket, or the http:// URL, at which a server answers operators [env: REFRAIN_ADMIN]
    #[arg(long, global = true, value_name = "SOCKET|URL")]
    admin: Option<String>,
    /// The file with the token for a URL, or `-` for standard input; it may be in
    /// REFRAIN_ADMIN_TOKEN instead
    #[arg(long, global = true, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// A place where a store is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A directory.
    Directory(PathBuf),
    /// A server that has it open.
    Server { address: Address, token: Option<String> },
}

impl Named {
    /// Returns the target, which has to be named, and once. What the command line names counts,
    /// whatever the environment does.
    pub(crate) fn target(self) -> Result<Target> {
        let (store, admin) = match (self.store, self.admin) {
            (None, None) => {
                (variable("REFRAIN_STORE").map(PathBuf::from), variable("REFRAIN_ADMIN"))
            }
            named => named,
        };
        let said = |sentence: &str| Err(Failure::Usage(sentence.into()));
        match (store, admin) {
            (Some(directory), None) => Ok(Target::Directory(directory)),
            (None, Some(admin)) => {
                let token = owner::token(self.admin_token_file.as_deref())?;
                address(admin).map(|address| Target::Server { address, token })
            }
            (None, None) => {
                said("no store is named; give its directory with --store, or in REFRAIN_STORE")
            }
            (Some(_), Some(_)) => said(
                "REFRAIN_STORE and REFRAIN_ADMIN name two places; give --store or --admin, or unset \
                 one of them",
            ),
        }
    }
}

/// Returns a variable of the environment, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn address(text: String) -> Result<Address> {
    match text.split_once("://") {
        Some(("http", _)) => Ok(Address::Url(text)),
        Some((scheme, _)) => Err(Failure::Usage(format!(
            "{scheme} is not spoken here; give the path of a socket, or an http:// URL"
        ))),
        None => Ok(Address::Socket(text.into())),
    }
}

impl Target {
    /// Asks the store, which must be there: it is opened for that, or its server is asked.
    ///
    /// Opening writes: it begins a new log, and the store does its work while it is open.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Desk) -> Result<T>) -> Result<T> {
        match self {
            Self::Directory(path) if belongs_to_another(path) => {
                work(&Desk::Served(serving(path).map_err(|_| Failure::Usage(foreign(path)))?))
            }
            Self::Directory(path) => match open(path) {
                Err(Error::Locked { .. }) => work(&Desk::Served(serving(path)?)),
                Err(error) => Err(refused(path, error)),
                Ok(store) => at_rest(&store, work),
            },
            Self::Server { address, token } => {
                work(&Desk::Served(Served::new(address.clone(), token.clone())?))
            }
        }
    }

    /// Returns the directory that holds the store, as far as it is known.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Server { address: Address::Socket(path), .. } => {
                let parent = path.parent()?;
                Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
            }
            Self::Server { address: Address::Url(_), .. } => None,
        }
    }

    /// Returns the directory, for a command that needs one.
    pub(crate) fn expect_directory(&self) -> Result<&Path> {
        let said = "this works on files, on the machine that has them: give their directory with \
                    --store";
        self.directory().ok_or_else(|| Failure::Usage(said.into()))
    }

    /// Returns the name by which the store is known.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Server { address, .. } => address.to_string(),
        }
    }
}

/// Makes sure that what is written to a store, or made of it, is its owner's.
pub(crate) fn expect_own(path: &Path) -> Result<()> {
    let is_own = !belongs_to_another(path);
    is_own.then_some(()).ok_or_else(|| Failure::Usage(foreign(path)))
}

fn belongs_to_another(path: &Path) -> bool {
    let owner = fs::metadata(path).map(|directory| directory.uid());
    owner.is_ok_and(|owner| owner != geteuid().as_raw())
}

fn foreign(path: &Path) -> String {
    let owner = fs::metadata(path).map_or(0, |directory| directory.uid());
    format!(
        "{} belongs to user {owner}, whose server could not open files of another user; run this \
         with `sudo -u '#{owner}'`",
        path.display()
    )
}

fn open(path: &Path) -> std::result::Result<Store, Error> {
    // A response that an operator hands in may be as long as any. A downtime that the server might
    // not believe is not counted: records live longer then, and never shorter.
    let builder = Store::builder().max_response_bytes(MAX_BODY_BYTES);
    builder.trusted_downtime(Duration::ZERO).open_existing(path)
}

fn at_rest<T>(store: &Store, work: impl FnOnce(&Desk) -> Result<T>) -> Result<T> {
    let done = work(&Desk::AtRest(Admin::new(store.clone())));
    // Nothing is in flight, and each verdict was waited for: what is left is to let go.
    let closed = store.close(Duration::ZERO).wait();
    let done = done?;
    closed?;
    Ok(done)
}

/// Returns the server that has a store open, if somebody listens at the store's socket.
fn serving(path: &Path) -> Result<Served> {
    let socket = Socket::path_in(path);
    if std::os::unix::net::UnixStream::connect(&socket).is_err() {
        return Err(Failure::Held { path: path.into(), holder: Holder::of(path) });
    }
    Served::new(Address::Socket(socket), None)
}

/// Says that there is no store in a directory, or only half of a backup.
pub(crate) fn missing(path: &Path) -> Failure {
    let lost = [LOCK, MANIFEST].into_iter().find(|name| !path.join(name).exists());
    match lost {
        _ if is_cut_short(path) => Failure::CutShort(path.into()),
        Some(name) if has_files(path) => Failure::Damaged(format!(
            "{} has files of a store, and no {name}; restore it, or write what can be proved into a \
             new store with `refrain salvage`",
            path.display()
        )),
        _ => Failure::Missing(path.into()),
    }
}

/// Returns true if a backup was begun in a directory and not finished: `MANIFEST` comes last.
fn is_cut_short(path: &Path) -> bool {
    path.join(UNFINISHED).exists() && !path.join(MANIFEST).exists()
}

/// Returns true if a directory has a file that only stores have.
fn has_files(path: &Path) -> bool {
    let is_of_store = |name: &str| {
        let number = name.strip_suffix(".log").or_else(|| name.strip_suffix(".redb"));
        let is_number =
            |number: &str| number.len() == 16 && u64::from_str_radix(number, 16).is_ok();
        name == MANIFEST || number.is_some_and(is_number)
    };
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_str().is_some_and(is_of_store))
}

/// Says why a directory does not open, as exactly as it can be seen.
pub(crate) fn refused(path: &Path, error: Error) -> Failure {
    match error {
        // It may be another directory, where there are two.
        Error::Locked { path, .. } => {
            let holder = Holder::of(&path);
            Failure::InUse { path, holder }
        }
        Error::Corrupt { file, .. } | Error::Foreign { file, .. }
            if is_cut_short(path) && file.starts_with(path) =>
        {
            Failure::CutShort(path.into())
        }
        Error::Missing { .. } => missing(path),
        error => Failure::Store(error),
    }
}
