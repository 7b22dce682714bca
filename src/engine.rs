//! The embedded backend: a log that acknowledges, and segments that keep.

pub(crate) mod builder;
pub(crate) mod commit;
pub(crate) mod core;
pub(crate) mod disk;
pub(crate) mod entry;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod reaper;
pub(crate) mod segment;
pub(crate) mod settings;
pub(crate) mod settler;
pub(crate) mod trouble;
pub(crate) mod writer;
