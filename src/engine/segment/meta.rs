//! The description of a segment: the same in its own file and in `MANIFEST`.

use std::path::Path;

use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::engine::entry::End;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"rfrn seg";
const FORMAT: u32 = 2;
const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<{ 64 * 1024 }>,
> = bincode::config::standard().with_fixed_int_encoding().with_limit();

/// The description of a segment, stored in the segment and in `MANIFEST`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentMeta {
    pub(crate) uuid: [u8; 16],
    /// The format of the file.
    pub(crate) format: u32,
    /// The number in the file's name, which no other file has.
    pub(crate) file: u64,
    /// The generation of the oldest log that it took over.
    pub(crate) first_generation: u64,
    /// The generation of the newest log that it took over.
    pub(crate) generation: u64,
    /// The sequence of those logs' first batch.
    pub(crate) first_sequence: u64,
    /// The sequence of those logs' last batch.
    pub(crate) last_sequence: u64,
    /// The moment at which its last entry expires, in milliseconds of engine time.
    pub(crate) latest_expiry: u64,
    /// The number of records and forgets.
    pub(crate) records: u64,
    /// The number of addresses whose latest entry is damaged.
    pub(crate) damaged: u64,
    /// The ends of the logs that hold the larger records.
    pub(crate) values: Vec<End>,
}

/// A description in format 1.
#[derive(Clone, Copy, Decode)]
#[cfg_attr(test, derive(Encode))]
pub(crate) struct SegmentMeta1 {
    uuid: [u8; 16],
    first_generation: u64,
    generation: u64,
    first_sequence: u64,
    last_sequence: u64,
    latest_expiry: u64,
    records: u64,
}

impl SegmentMeta1 {
    /// Returns the same description in the form of format 2.
    pub(crate) fn upgrade(self) -> SegmentMeta {
        SegmentMeta {
            uuid: self.uuid,
            format: 1,
            file: self.generation,
            first_generation: self.first_generation,
            generation: self.generation,
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
            latest_expiry: self.latest_expiry,
            records: self.records,
            damaged: 0,
            values: Vec::new(),
        }
    }
}

impl SegmentMeta {
    /// The format of the segments that are written.
    pub(crate) const FORMAT: u32 = FORMAT;

    /// Returns magic, format, the fields in their order, and the SHA-256 of all these.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bincode::encode_into_std_write(self, &mut bytes, CONFIG)
            .expect("a vector takes the fields");
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Returns true if the bytes end with the SHA-256 of the others.
    pub(super) fn is_whole(bytes: &[u8]) -> bool {
        let checked = bytes.split_last_chunk::<32>();
        checked.is_some_and(|(content, checksum)| Sha256::digest(content)[..] == checksum[..])
    }

    /// Decodes and verifies a meta row; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] and [`Error::Corrupt`].
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
        let meta = match format {
            1 => decode_whole::<SegmentMeta1>(fields).map(SegmentMeta1::upgrade),
            _ => decode_whole::<Self>(fields).filter(|meta| meta.format == format),
        };
        meta.ok_or_else(damaged)
    }
}

fn decode_whole<T: Decode<()>>(fields: &[u8]) -> Option<T> {
    match bincode::decode_from_slice(fields, CONFIG) {
        Ok((meta, used)) if used == fields.len() => Some(meta),
        _ => None,
    }
}

/// Returns the name of the segment with this number.
pub(crate) fn segment_name(file: u64) -> String {
    format!("{file:016x}.redb")
}
