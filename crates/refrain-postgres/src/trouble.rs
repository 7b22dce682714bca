//! Refusals of the database, by the reaction that each calls for.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

/// The database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{}", in_full(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("the database took too long")]
    Slow,
    #[error("the database took too long; it last said: {0}")]
    SlowAfter(String),
    #[error(transparent)]
    Shared(Arc<Self>),
    #[error("the store is closed")]
    Closed,
    /// The rows contradict each other.
    #[error("the store's tables are damaged: {0}")]
    Damaged(&'static str),
    /// A migration has left this version behind, or the schema was set up again.
    #[error("the schema is no longer this node's: another store's, or for later versions only")]
    Outdated,
    #[error("the key keeps changing")]
    Restless,
    #[error(transparent)]
    Transaction(TransactionError),
}

/// The fault of a transaction that was to complete an operation. It is the source of
/// [`refrain::Error::Unavailable`].
///
/// ```
/// use refrain_postgres::TransactionError;
///
/// /// Whether the operation can be run again at once, because nothing happened.
/// fn is_rolled_back(error: &refrain::Error) -> bool {
///     let refrain::Error::Unavailable { source, .. } = error else { return false };
///     matches!(source.downcast_ref(), Some(TransactionError::RolledBack))
/// }
/// # assert!(!is_rolled_back(&refrain::Error::Ended));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The verdict came before the transaction had ended. The key stays in flight until the
    /// transaction ends, and then follows it.
    #[error("the transaction that completes the operation is still open")]
    Open,

    /// The verdict said success, and the transaction was rolled back. The key is free.
    #[error("the transaction that was to complete the operation was rolled back")]
    RolledBack,

    /// The transaction is not in the store's database.
    #[error("the transaction is in a database that does not hold the store")]
    Elsewhere,
}

impl Trouble {
    /// Returns whether the same statement may succeed later, or may have taken effect already.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_transient(),
            Self::Slow | Self::SlowAfter(_) | Self::Restless => true,
            Self::Closed | Self::Damaged(_) | Self::Outdated | Self::Transaction(_) => false,
            Self::Database(error) => match error.code() {
                // The connection broke.
                None => true,
                Some(code) => is_transient(code),
            },
        }
    }

    /// Returns whether the connection no longer has the prepared statement.
    pub(crate) fn is_lost_statement(&self) -> bool {
        matches!(self, Self::Database(error) if error.code().is_some_and(|code| {
            *code == SqlState::INVALID_SQL_STATEMENT_NAME
                || *code == SqlState::DUPLICATE_PSTATEMENT
        }))
    }

    /// Returns whether another transaction has locked the row.
    pub(crate) fn is_locked(&self) -> bool {
        self.has_code(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Returns whether the database has no such table.
    pub(crate) fn is_no_table(&self) -> bool {
        self.has_code(&SqlState::UNDEFINED_TABLE)
    }

    /// Returns whether one row of a batch may be the reason, such as a row that is locked.
    pub(crate) fn may_be_of_one(&self) -> bool {
        [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::OUT_OF_MEMORY,
        ]
        .iter()
        .any(|code| self.has_code(code))
    }

    fn has_code(&self, code: &SqlState) -> bool {
        if let Self::Shared(shared) = self {
            return shared.has_code(code);
        }
        matches!(self, Self::Database(error) if error.code() == Some(code))
    }

    /// Returns whether another connection is called for: the old one leads to a server that is on its way
    /// out, or cannot write.
    pub(crate) fn wants_new_link(&self) -> bool {
        match self {
            Self::Slow => true,
            Self::Shared(shared) => shared.wants_new_link(),
            Self::Database(error) => error.code().is_none_or(|code| {
                *code == SqlState::READ_ONLY_SQL_TRANSACTION || code.code().starts_with("57P")
            }),
            Self::SlowAfter(_)
            | Self::Closed
            | Self::Damaged(_)
            | Self::Outdated
            | Self::Restless
            | Self::Transaction(_) => false,
        }
    }
}

fn is_transient(code: &SqlState) -> bool {
    let code = code.code();
    // Connection exceptions, operator's intervention, too few resources.
    ["08", "57P", "53"].iter().any(|class| code.starts_with(class))
        || [
            "57014", // cancelled, as by statement_timeout
            "40001", // serialization failure
            "40003", // nobody knows whether it was completed
            "40P01", // deadlock
            "55P03", // lock_timeout
            "25006", // read-only: an old primary
            "25P03", // idle in transaction
            "26000", // a prepared statement that a pooler lost
            "42P05", // or that another client of the pooler has
        ]
        .contains(&code)
}

/// The driver says "db error" and leaves the rest to its source.
fn in_full(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(database) => format!("{} ({})", database.message(), database.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
