//! The unit in which logs are written.

/// Batches begin at multiples of this, so that a torn write never touches an acknowledged one.
pub(crate) const PAGE: u64 = PAGE_BYTES as u64;
pub(crate) const PAGE_BYTES: usize = 4096;
