//! The place where a command asks: the store itself, or the server that has it open.

use std::path::Path;

use refrain::admin::{Admin, Done, Entry, Held, Mandate, Note, Status, Verdict};
use refrain::backend::Cursor;
use refrain::{Key, Scope};

use crate::failure::Result;
use crate::served::Served;

/// A list that is read as it is printed.
pub(crate) type List<'a, T> = Box<dyn Iterator<Item = Result<T>> + 'a>;

/// The place where a command asks. Each act is durable when it returns.
pub(crate) enum Desk {
    /// This process has the store open.
    AtRest(Admin),
    /// A server has it open.
    Served(Served),
}

impl Desk {
    pub(crate) fn status(&self) -> Result<Status> {
        match self {
            Self::AtRest(admin) => Ok(admin.status()),
            Self::Served(served) => served.get("status", &[]),
        }
    }

    /// Finds what is known about a key.
    pub(crate) fn find(&self, scope: Scope, key: &Key) -> Result<Option<Entry>> {
        match self {
            Self::AtRest(admin) => Ok(admin.find(scope, key)?),
            Self::Served(served) => served.find(scope, key),
        }
    }

    /// Lists the records of a scope, or of all, in their order, behind `after`.
    pub(crate) fn records(
        &self,
        scope: Option<Scope>,
        after: Option<Cursor>,
        with_responses: bool,
    ) -> Result<List<'_, Entry>> {
        match self {
            Self::AtRest(admin) => {
                let records = admin.records(scope, after, with_responses);
                Ok(Box::new(records.map(|entry| Ok(entry?))))
            }
            Self::Served(served) => served.records(scope, after, with_responses),
        }
    }

    /// Lists the interrupted runs of a scope, or of all, in their order.
    pub(crate) fn interrupted(&self, scope: Option<Scope>) -> Result<List<'_, Entry>> {
        match self {
            Self::AtRest(admin) => Ok(Box::new(admin.interrupted(scope).map(|entry| Ok(entry?)))),
            Self::Served(served) => served.interrupted(scope),
        }
    }

    /// Lists the keys in flight, the oldest first.
    pub(crate) fn in_flight(&self) -> Result<List<'_, Held>> {
        match self {
            Self::AtRest(admin) => Ok(Box::new(admin.in_flight().into_iter().map(Ok))),
            Self::Served(served) => served.in_flight(),
        }
    }

    pub(crate) fn resolve(
        &self,
        scope: Scope,
        key: &Key,
        verdict: &Verdict,
        mandate: &Mandate,
    ) -> Result<Done> {
        match self {
            Self::AtRest(admin) => Ok(admin.resolve(scope, key, verdict, mandate)?),
            Self::Served(served) => served.resolve(scope, key, verdict, mandate),
        }
    }

    pub(crate) fn forget(&self, scope: Scope, key: &Key, mandate: &Mandate) -> Result<Done> {
        match self {
            Self::AtRest(admin) => Ok(admin.forget(scope, key, mandate)?),
            Self::Served(served) => served.forget(scope, key, mandate),
        }
    }

    pub(crate) fn reap(&self, erase: bool, mandate: &Mandate) -> Result<Done> {
        match self {
            Self::AtRest(admin) => Ok(admin.reap(erase, mandate)?),
            Self::Served(served) => served.reap(erase, mandate),
        }
    }

    /// Lists the notes of what operators have done, the oldest first.
    pub(crate) fn audit(&self) -> Result<List<'_, Note>> {
        match self {
            Self::AtRest(admin) => Ok(Box::new(admin.audit()?.into_iter().map(Ok))),
            Self::Served(served) => served.audit(),
        }
    }

    /// Reads everything, and returns the first damage.
    pub(crate) fn verify(&self) -> Result<Option<String>> {
        match self {
            Self::AtRest(admin) => Ok(admin.verify()?),
            Self::Served(served) => served.verify(),
        }
    }

    pub(crate) fn backup(&self, path: &Path) -> Result<()> {
        match self {
            Self::AtRest(admin) => Ok(admin.backup(path)?),
            Self::Served(served) => served.backup(path),
        }
    }

    /// Returns true if a server has the store open.
    pub(crate) fn is_served(&self) -> bool {
        matches!(self, Self::Served(_))
    }
}
