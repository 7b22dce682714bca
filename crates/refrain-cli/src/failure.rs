//! The one error of the command, with its exit codes.

use std::fmt;
use std::io;
use std::path::PathBuf;

use refrain::admin::{Code, Refusal};
use refrain::{Error, Key, Scope};

use crate::advice;
use crate::holder::Holder;

/// A result whose error is [`Failure`].
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The reason for which a command did not do its work. `Display` is one sentence: what happened,
/// and what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's error.
    Store(Error),
    /// The refusal of the server that has the store open.
    Refused(Refusal),
    /// A key was forgotten, and its bytes were not erased, for this reason.
    Unerased(Key, Box<Self>),
    /// That server cannot be asked, as the sentence says.
    Served(String),
    /// Another process has a directory open that is wanted closed.
    InUse { path: PathBuf, holder: Option<Holder> },
    /// Another process has the store open, and answers nobody.
    Held { path: PathBuf, holder: Option<Holder> },
    /// The directory holds a backup that was not finished.
    CutShort(PathBuf),
    /// The directory holds no store.
    Missing(PathBuf),
    /// The scope has no such key.
    Unknown { scope: Scope, key: Key },
    /// The key has nothing of what was asked for, as the sentence says.
    Absent(String),
    /// The arguments, or what they lead to, cannot be used.
    Usage(String),
    /// A file, other than the store's, cannot be used.
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// Standard output cannot be written.
    Output(io::Error),
    /// Standard input cannot be read.
    Input(io::Error),
    /// The question was answered with no.
    Declined,
    /// So many checks have failed.
    Unfit(u64),
    /// Something is damaged, as the sentence says.
    Damaged(String),
}

impl Failure {
    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        const FAILED: u8 = 1;
        const USAGE: u8 = 2;
        const NOT_FOUND: u8 = 3;
        const BUSY: u8 = 4;
        const DAMAGED: u8 = 5;
        match self {
            Self::Refused(Refusal { code, .. }) => match code {
                Code::NotFound | Code::NotInterrupted => NOT_FOUND,
                Code::BadRequest | Code::Unauthorized | Code::SocketOnly => USAGE,
                Code::InFlight | Code::Busy => BUSY,
                Code::Damaged => DAMAGED,
                _ => FAILED,
            },
            Self::Unerased(_, failure) => failure.code(),
            Self::Usage(_) => USAGE,
            Self::Unknown { .. } | Self::Absent(_) => NOT_FOUND,
            Self::Held { .. } | Self::InUse { .. } => BUSY,
            Self::Store(
                Error::Locked { .. }
                | Error::Behind
                | Error::Limit { .. }
                | Error::InFlight { .. }
                | Error::Unavailable { .. },
            ) => BUSY,
            Self::Store(Error::Corrupt { .. }) | Self::CutShort(_) | Self::Damaged(_) => DAMAGED,
            Self::Store(_)
            | Self::Served(_)
            | Self::Missing(_)
            | Self::File { .. }
            | Self::Output(_)
            | Self::Input(_)
            | Self::Declined
            | Self::Unfit(_) => FAILED,
        }
    }

    /// Returns true if the store, or a part of it, cannot be read.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Store(Error::Corrupt { .. }) | Self::Refused(Refusal { code: Code::Damaged, .. })
        )
    }

    /// Returns true if nobody reads the output any more, as in `refrain ls | head`: there is nothing
    /// to say about that.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal.error {
            Some(error) => Self::Store(error),
            None => Self::Refused(refusal),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => {
                f.write_str(&chain(error))?;
                advice::on_store(error).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::Refused(refusal) => {
                f.write_str(&in_words_of_the_command(&refusal.message))?;
                advice::on_refusal(refusal.code).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::Unerased(key, failure) => write!(
                f,
                "{} is forgotten, and the next request with it runs, but its bytes are not erased \
                 yet: {failure}; erase them with `refrain reap --erase`",
                key.as_str()
            ),
            Self::InUse { path, holder: Some(holder) } => write!(
                f,
                "{} is open in {holder}; stop that process, and run this again",
                path.display()
            ),
            Self::Held { path, holder: Some(holder) } => write!(
                f,
                "{} is open in {holder}, which does not answer operators there; let it serve its \
                 admin socket, or run this again once it has ended",
                path.display()
            ),
            Self::Held { path, holder: None } | Self::InUse { path, holder: None } => write!(
                f,
                "{} is open in a process that cannot be seen from here, as in another container; \
                 stop that process, and run this again",
                path.display()
            ),
            Self::CutShort(path) => write!(
                f,
                "{} holds a backup that was cut short; remove it, and make or use another",
                path.display()
            ),
            Self::Missing(path) => write!(
                f,
                "there is no store in {}; check the path, and that its volume is mounted",
                path.display()
            ),
            Self::Input(source) => {
                write!(f, "cannot read the answer: {source}; give --yes instead")
            }
            Self::Declined => f.write_str("nothing was done, because the answer was not yes"),
            Self::Unfit(1) => f.write_str("1 check has failed; do what its line advises"),
            Self::Unfit(checks) => {
                write!(f, "{checks} checks have failed; do what their lines advise")
            }
            Self::Unknown { scope, key } => write!(
                f,
                "{} is unknown in scope {scope}; check the key and the scope, or list what is there \
                 with `refrain ls`",
                key.as_str()
            ),
            Self::Usage(sentence)
            | Self::Absent(sentence)
            | Self::Damaged(sentence)
            | Self::Served(sentence) => f.write_str(sentence),
            Self::File { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())?;
                advice::on_system(source).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::Output(source) => {
                write!(f, "cannot write the output: {source}")?;
                advice::on_system(source).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
        }
    }
}

/// Says an error with its causes, in the words of the command line.
pub(crate) fn chain(error: &Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    in_words_of_the_command(&said)
}

/// Names a command where the library names its function.
pub(crate) fn in_words_of_the_command(said: &str) -> String {
    said.replace("Store::salvage", "`refrain salvage`")
}
