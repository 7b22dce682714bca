//! The unit in which logs are written.

/// The alignment of batches, in bytes: a torn write never touches an acknowledged batch.
pub(crate) const PAGE: u64 = PAGE_BYTES as u64;
/// [`PAGE`], for lengths in memory.
pub(crate) const PAGE_BYTES: usize = 4096;
