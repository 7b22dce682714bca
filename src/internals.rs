//! The entries of the log, for the crate's own benches, proofs and fuzz targets. Outside semver.

pub use crate::engine::entry::{decode_record, encode_record};
