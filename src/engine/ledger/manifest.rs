//! `LOCK` and `MANIFEST`: the uuid of the store, and the list of its files.
//!
//! Invariants:
//! - `LOCK` is written once, when the store is created.
//! - `MANIFEST` is replaced whole: written under another name, synced, renamed, and the directory
//!   synced.
//! - A listed file that is missing is damage; an unlisted file of this store is a leftover.

use std::io;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::engine::disk::{Disk, read_all, remove_leftover};
use crate::engine::entry::End;
use crate::engine::segment::SegmentMeta;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};

/// The file that is locked by the process that has the store open.
pub(crate) const LOCK: &str = "LOCK";
/// The file that lists all others.
pub(crate) const MANIFEST: &str = "MANIFEST";

const FORMAT: u32 = 1;
const LOCK_MAGIC: [u8; 8] = *b"rfrn lck";
const MANIFEST_MAGIC: [u8; 8] = *b"rfrn man";
/// The largest `MANIFEST`, in bytes; the limit bounds the allocation that a damaged length can
/// cause.
const MAX_BYTES: usize = 16 * 1024 * 1024;
const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX_BYTES>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit();

/// The files that the store consists of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Manifest {
    pub(crate) uuid: [u8; 16],
    /// No file has this generation or a later one.
    pub(crate) next_generation: u64,
    /// The end of the newest log that is sealed: what the oldest log must follow.
    pub(crate) sealed: Option<End>,
    /// Generations, oldest first: the chain, and the log prepared to be the next.
    pub(crate) logs: Vec<u64>,
    /// Oldest first.
    pub(crate) segments: Vec<SegmentMeta>,
}

impl Manifest {
    /// Reads `MANIFEST`, or `None` if the directory has none.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`] and [`Error::Io`].
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>> {
        let Some(content) = read(disk, MANIFEST, MANIFEST_MAGIC)? else { return Ok(None) };
        match bincode::decode_from_slice(&content, CONFIG) {
            Ok((manifest, used)) if used == content.len() => Ok(Some(manifest)),
            _ => Err(Error::corrupt(disk.path_of(MANIFEST), "it cannot be decoded")),
        }
    }

    /// Replaces `MANIFEST`.
    ///
    /// # Errors
    ///
    /// A transient error, such as a full disk, leaves the old file in place. After a fatal one it
    /// is unknown which of the two is on disk.
    ///
    /// # Durability
    ///
    /// The new file is durable when this returns.
    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<(), Trouble> {
        let content = bincode::encode_to_vec(self, CONFIG)
            .expect("a vector takes every list of files within the limits");
        write(disk, MANIFEST, MANIFEST_MAGIC, &content)
    }

    /// Returns true if the segment of this generation is listed.
    pub(super) fn lists_segment(&self, generation: u64) -> bool {
        self.segments.iter().any(|segment| segment.generation == generation)
    }
}

/// Reads the store's uuid, or `None` if the directory has no `LOCK`.
///
/// # Errors
///
/// [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`] and [`Error::Io`].
pub(super) fn read_lock(disk: &dyn Disk) -> Result<Option<[u8; 16]>> {
    let Some(content) = read(disk, LOCK, LOCK_MAGIC)? else { return Ok(None) };
    match <[u8; 16]>::try_from(content) {
        Ok(uuid) => Ok(Some(uuid)),
        Err(_) => Err(Error::corrupt(disk.path_of(LOCK), "it has no uuid")),
    }
}

/// Writes `LOCK`, and returns the uuid.
///
/// # Errors
///
/// [`Error::Io`].
///
/// # Durability
///
/// The file is durable when this returns.
pub(super) fn write_lock(disk: &dyn Disk, uuid: [u8; 16]) -> Result<[u8; 16]> {
    write(disk, LOCK, LOCK_MAGIC, &uuid).map_err(Trouble::into_error).map(|()| uuid)
}

/// Reads a file and returns its content, without magic, format and checksum.
fn read(disk: &dyn Disk, name: &str, magic: [u8; 8]) -> Result<Option<Vec<u8>>> {
    let path = || disk.path_of(name);
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| Error::io("open", path(), error))?,
    };
    let bytes =
        read_all(&*file, MAX_BYTES as u64).map_err(|error| Error::io("read", path(), error))?;
    let Some((format, rest)) = bytes.strip_prefix(&magic).and_then(<[u8]>::split_first_chunk)
    else {
        return Err(Error::foreign(path(), "it does not begin like a file of refrain"));
    };
    let found = u32::from_le_bytes(*format);
    if found > FORMAT {
        return Err(Error::Newer { file: path(), found, supported: FORMAT });
    }
    match rest.split_last_chunk::<32>() {
        Some((content, checksum)) if checksum_of(&magic, found, content) == *checksum => {
            Ok(Some(content.to_vec()))
        }
        _ => Err(Error::corrupt(path(), "it does not match its checksum")),
    }
}

/// Replaces a file by magic, format, content and checksum.
///
/// # Errors
///
/// Before the rename an error may be transient; from the rename on it is fatal.
///
/// # Durability
///
/// The file and its name are durable when this returns.
fn write(disk: &dyn Disk, name: &str, magic: [u8; 8], content: &[u8]) -> Result<(), Trouble> {
    let temporary = format!("{name}.tmp");
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&checksum_of(&magic, FORMAT, content));
    let failed = |error| Error::io("replace", disk.path_of(name), error);
    let stage = || -> io::Result<()> {
        remove_leftover(disk, &temporary)?;
        let file = disk.create(&temporary)?;
        file.write_at(&bytes, 0)?;
        file.sync()
    };
    stage().map_err(failed).map_err(Trouble::classify)?;
    let replace = disk.rename(&temporary, name).and_then(|()| disk.sync());
    replace.map_err(failed).map_err(Trouble::Fatal)
}

/// Returns the SHA-256 of magic, format and content.
fn checksum_of(magic: &[u8; 8], format: u32, content: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(magic);
    hasher.update(format.to_le_bytes());
    hasher.update(content);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::MemoryDisk;

    fn manifest() -> Manifest {
        Manifest {
            uuid: [1; 16],
            next_generation: 9,
            sealed: Some(End { generation: 5, offset: 4096, sequence: 70 }),
            logs: vec![6, 8],
            segments: Vec::new(),
        }
    }

    #[test]
    fn golden_manifest_of_format_1() {
        let disk = MemoryDisk::default();
        manifest().write(&disk).unwrap();
        let bytes = read_all(&*disk.open(MANIFEST).unwrap(), 1000).unwrap();
        let hex: String =
            bytes[..bytes.len() - 32].iter().map(|byte| format!("{byte:02x}")).collect();
        let u64s = |values: &[u64]| -> String {
            values.iter().flat_map(|v| v.to_le_bytes()).map(|b| format!("{b:02x}")).collect()
        };
        let expected = format!(
            "7266726e206d616e01000000{}{}01{}{}{}",
            "01".repeat(16),
            u64s(&[9]),
            u64s(&[5, 4096, 70]),
            u64s(&[2, 6, 8]),
            u64s(&[0])
        );
        assert_eq!(hex, expected);
        assert_eq!(Manifest::read(&disk).unwrap(), Some(manifest()));
    }

    #[test]
    fn p5_every_flipped_bit_and_every_truncation_is_noticed() {
        let disk = MemoryDisk::default();
        manifest().write(&disk).unwrap();
        let file = disk.open(MANIFEST).unwrap();
        let bytes = read_all(&*file, 1000).unwrap();
        for bit in 0..bytes.len() * 8 {
            let byte = bytes[bit / 8] ^ (1 << (bit % 8));
            file.write_at(&[byte], (bit / 8) as u64).unwrap();
            assert!(Manifest::read(&disk).is_err(), "bit {bit}");
            file.write_at(&bytes[bit / 8..=bit / 8], (bit / 8) as u64).unwrap();
        }
        for length in (0..bytes.len()).rev() {
            file.set_len(length as u64).unwrap();
            assert!(Manifest::read(&disk).is_err(), "{length} bytes");
        }
    }
}
