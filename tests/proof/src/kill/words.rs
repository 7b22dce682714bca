//! The lines that the child writes to its parent, each written whole before the child goes on.

use std::fmt;

/// The mark in front of every line, since a test's child also prints what its harness prints.
const MARK: &str = "kill";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The child opens the store once the parent lets it.
    Ready,
    /// The store is open, and the child begins its work once the parent lets it.
    Open,
    /// From here on the store's clock says this, in milliseconds. Nothing is under way.
    Tick(u64),
    /// The child is about to ask this about a key.
    Asks(String, Ask),
    /// The store has answered.
    Told(String, Answer),
    /// The child has done all that it was to do, and has closed the store.
    Ended,
    /// The store refused to go on.
    Stopped,
    /// Something that must never happen.
    Wrong(String),
}

/// A request of the child to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Begin,
    BeginDurable { request: String },
    Complete { request: String },
    CompleteWithoutResponse { request: String },
    Release,
    Interrupt { request: String },
    Checkpoint { data: String },
    Retry { request: String },
    Forget,
}

/// An answer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The store showed what it knows, or what it has just recorded.
    Saw(Sight),
    /// The request is done.
    Done,
    /// Nothing was done, for want of room or because of a limit.
    Refused,
    /// The store has stopped, and nobody knows whether the request was done.
    Unknown,
}

/// The store's knowledge of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    Free,
    Done { request: String, kept: bool },
    Interrupted { request: String, attempt: u32, checkpoints: Vec<String> },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK} ")?;
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Open => f.write_str("open"),
            Self::Tick(now) => write!(f, "tick {now}"),
            Self::Asks(key, ask) => write!(f, "asks {key} {ask}"),
            Self::Told(key, answer) => write!(f, "told {key} {answer}"),
            Self::Ended => f.write_str("ended"),
            Self::Stopped => f.write_str("stopped"),
            Self::Wrong(what) => write!(f, "wrong {}", what.replace('\n', " ")),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            Self::BeginDurable { request } => write!(f, "begin-durable {request}"),
            Self::Complete { request } => write!(f, "complete {request}"),
            Self::CompleteWithoutResponse { request } => write!(f, "complete-bare {request}"),
            Self::Release => f.write_str("release"),
            Self::Interrupt { request } => write!(f, "interrupt {request}"),
            Self::Checkpoint { data } => write!(f, "checkpoint {data}"),
            Self::Retry { request } => write!(f, "retry {request}"),
            Self::Forget => f.write_str("forget"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saw(sight) => sight.fmt(f),
            Self::Done => f.write_str("ok"),
            Self::Refused => f.write_str("refused"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::Done { request, kept: true } => write!(f, "done {request}"),
            Self::Done { request, kept: false } => write!(f, "done-bare {request}"),
            Self::Interrupted { request, attempt, checkpoints } => {
                write!(f, "interrupted {request} {attempt}")?;
                checkpoints.iter().try_for_each(|data| write!(f, " {data}"))
            }
        }
    }
}

impl Line {
    /// Reads a line; `None` if somebody else has written the line.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, String> {
        let Some(line) = line.strip_prefix(MARK).and_then(|line| line.strip_prefix(' ')) else {
            return Ok(None);
        };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (key, said) = rest.split_once(' ').unwrap_or((rest, ""));
        let parsed = match word {
            "ready" => Some(Self::Ready),
            "open" => Some(Self::Open),
            "tick" => rest.parse().ok().map(Self::Tick),
            "asks" => Ask::parse(said).map(|ask| Self::Asks(key.into(), ask)),
            "told" => Answer::parse(said).map(|answer| Self::Told(key.into(), answer)),
            "ended" => Some(Self::Ended),
            "stopped" => Some(Self::Stopped),
            "wrong" => Some(Self::Wrong(rest.into())),
            _ => None,
        };
        parsed.map(Some).ok_or_else(|| format!("the child said {line:?}"))
    }
}

impl Ask {
    fn parse(said: &str) -> Option<Self> {
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        let request = rest.to_owned();
        Some(match word {
            "begin" => Self::Begin,
            "begin-durable" => Self::BeginDurable { request },
            "complete" => Self::Complete { request },
            "complete-bare" => Self::CompleteWithoutResponse { request },
            "release" => Self::Release,
            "interrupt" => Self::Interrupt { request },
            "checkpoint" => Self::Checkpoint { data: rest.into() },
            "retry" => Self::Retry { request },
            "forget" => Self::Forget,
            _ => return None,
        })
    }
}

impl Answer {
    fn parse(said: &str) -> Option<Self> {
        Some(match said {
            "ok" => Self::Done,
            "refused" => Self::Refused,
            "unknown" => Self::Unknown,
            _ => Self::Saw(Sight::parse(said)?),
        })
    }
}

impl Sight {
    fn parse(said: &str) -> Option<Self> {
        let mut words = said.split(' ');
        let (word, request) = (words.next()?, words.next().map(str::to_owned));
        Some(match word {
            "free" => Self::Free,
            "done" => Self::Done { request: request?, kept: true },
            "done-bare" => Self::Done { request: request?, kept: false },
            "interrupted" => Self::Interrupted {
                request: request?,
                attempt: words.next()?.parse().ok()?,
                checkpoints: words.map(str::to_owned).collect(),
            },
            _ => return None,
        })
    }
}
