//! The description of a segment: the same in its own file and in `MANIFEST`.

use std::path::Path;

use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"rfrn seg";
const FORMAT: u32 = 1;
const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<1024>,
> = bincode::config::standard().with_fixed_int_encoding().with_limit();

/// What a segment says about itself, and `MANIFEST` about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentMeta {
    pub(crate) uuid: [u8; 16],
    /// The logs it took over, by generation. The last one names the file.
    pub(crate) first_generation: u64,
    pub(crate) generation: u64,
    /// The batches of those logs.
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    /// When the last thing in it expires, in engine time.
    pub(crate) latest_expiry: u64,
    pub(crate) records: u64,
}

impl SegmentMeta {
    /// Magic, format, the fields in their order, SHA-256 of all that.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bincode::encode_into_std_write(self, &mut bytes, CONFIG)
            .expect("a vector takes the fields");
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = || Error::corrupt(path, "its meta row is damaged");
        let (content, checksum) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        let fields = content.strip_prefix(&MAGIC).ok_or_else(damaged)?;
        let (format, fields) = fields.split_first_chunk().ok_or_else(damaged)?;
        let format = u32::from_le_bytes(*format);
        if format > FORMAT {
            return Err(Error::Newer { file: path.into(), found: format, supported: FORMAT });
        }
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(damaged());
        }
        match bincode::decode_from_slice(fields, CONFIG) {
            Ok((meta, used)) if used == fields.len() => Ok(meta),
            _ => Err(damaged()),
        }
    }
}

pub(crate) fn segment_name(generation: u64) -> String {
    format!("{generation:016x}.redb")
}
