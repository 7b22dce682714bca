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

use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, read_all, remove_leftover};
use crate::engine::entry::End;
use crate::engine::log::Identity;
use crate::engine::segment::{SegmentMeta, SegmentMeta1};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};

/// The file that is locked by the process that has the store open.
pub(crate) const LOCK: &str = "LOCK";
/// The file that lists all others.
pub(crate) const MANIFEST: &str = "MANIFEST";

const LOCK_FILE: Kind = Kind { name: LOCK, magic: *b"rfrn lck", format: 1 };
const MANIFEST_FILE: Kind = Kind { name: MANIFEST, magic: *b"rfrn man", format: 2 };
/// The largest `MANIFEST`, in bytes; the limit bounds the allocation that a damaged length can
/// cause.
const MAX_BYTES: usize = 16 * 1024 * 1024;
const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX_BYTES>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit();

/// The files that the store consists of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Manifest {
    pub(crate) uuid: [u8; 16],
    /// The key of the digests of all files.
    pub(crate) digests: DigestKey,
    /// The longest TTL that the store ever had, in milliseconds: what is damaged says no TTL.
    pub(crate) longest_ttl: u64,
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
        let Some((format, content)) = read(disk, &MANIFEST_FILE)? else { return Ok(None) };
        let decoded = match format {
            1 => decode::<Manifest1>(&content).map(Manifest1::upgrade),
            _ => decode(&content),
        };
        let damaged = || Error::corrupt(disk.path_of(MANIFEST), "it cannot be decoded");
        decoded.ok_or_else(damaged).map(Some)
    }

    /// Returns the identity that every log has in its header.
    pub(crate) fn identity(&self) -> Identity {
        Identity { uuid: self.uuid, entries: self.digests }
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
        write(disk, &MANIFEST_FILE, &content)
    }

    /// Returns true if the segment of this generation is listed.
    pub(super) fn lists_segment(&self, generation: u64) -> bool {
        self.segments.iter().any(|segment| segment.file == generation)
    }

    /// Returns true if the log of this generation is listed, as a log or for the records in it.
    pub(super) fn lists_log(&self, generation: u64) -> bool {
        let is_kept =
            |segment: &SegmentMeta| segment.values.iter().any(|log| log.generation == generation);
        self.logs.contains(&generation) || self.segments.iter().any(is_kept)
    }
}

/// `MANIFEST` in format 1.
#[derive(Decode)]
struct Manifest1 {
    uuid: [u8; 16],
    next_generation: u64,
    sealed: Option<End>,
    logs: Vec<u64>,
    segments: Vec<SegmentMeta1>,
}

impl Manifest1 {
    /// Returns the same list in format 2, under a new key for the digests of what is to come.
    fn upgrade(self) -> Manifest {
        let Self { uuid, next_generation, sealed, logs, segments } = self;
        Manifest {
            uuid,
            digests: DigestKey::random(),
            longest_ttl: 0,
            next_generation,
            sealed,
            logs,
            segments: segments.into_iter().map(SegmentMeta1::upgrade).collect(),
        }
    }
}

fn decode<T: Decode<()>>(content: &[u8]) -> Option<T> {
    match bincode::decode_from_slice(content, CONFIG) {
        Ok((decoded, used)) if used == content.len() => Some(decoded),
        _ => None,
    }
}

/// Reads the store's uuid, or `None` if the directory has no `LOCK`.
///
/// # Errors
///
/// [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`] and [`Error::Io`].
pub(super) fn read_lock(disk: &dyn Disk) -> Result<Option<[u8; 16]>> {
    let Some((_, content)) = read(disk, &LOCK_FILE)? else { return Ok(None) };
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
    write(disk, &LOCK_FILE, &uuid).map_err(Trouble::into_error).map(|()| uuid)
}

/// A file with an envelope: magic, format, content, and the SHA-256 of all these.
struct Kind {
    name: &'static str,
    magic: [u8; 8],
    /// The format that is written, and the latest that is read.
    format: u32,
}

impl Kind {
    /// Returns the SHA-256 of magic, format and content.
    fn checksum(&self, format: u32, content: &[u8]) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(self.magic);
        hasher.update(format.to_le_bytes());
        hasher.update(content);
        hasher.finalize().into()
    }
}

/// Reads a file and returns its format and its content.
fn read(disk: &dyn Disk, kind: &Kind) -> Result<Option<(u32, Vec<u8>)>> {
    let path = || disk.path_of(kind.name);
    let file = match disk.open(kind.name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| Error::io("open", path(), error))?,
    };
    let bytes =
        read_all(&*file, MAX_BYTES as u64).map_err(|error| Error::io("read", path(), error))?;
    let Some((format, rest)) = bytes.strip_prefix(&kind.magic).and_then(<[u8]>::split_first_chunk)
    else {
        return Err(Error::foreign(path(), "it does not begin like a file of refrain"));
    };
    let found = u32::from_le_bytes(*format);
    if found > kind.format {
        return Err(Error::Newer { file: path(), found, supported: kind.format });
    }
    match rest.split_last_chunk::<32>() {
        Some((content, checksum)) if kind.checksum(found, content) == *checksum => {
            Ok(Some((found, content.to_vec())))
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
fn write(disk: &dyn Disk, kind: &Kind, content: &[u8]) -> Result<(), Trouble> {
    let temporary = format!("{}.tmp", kind.name);
    let mut bytes = kind.magic.to_vec();
    bytes.extend_from_slice(&kind.format.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&kind.checksum(kind.format, content));
    let failed = |error| Error::io("replace", disk.path_of(kind.name), error);
    let stage = || -> io::Result<()> {
        remove_leftover(disk, &temporary)?;
        let file = disk.create(&temporary)?;
        file.write_at(&bytes, 0)?;
        file.sync()
    };
    stage().map_err(failed).map_err(Trouble::classify)?;
    let replace = disk.rename(&temporary, kind.name).and_then(|()| disk.sync());
    replace.map_err(failed).map_err(Trouble::Fatal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::MemoryDisk;

    fn manifest() -> Manifest {
        Manifest {
            uuid: [1; 16],
            digests: DigestKey::from_bytes([2; 32]),
            longest_ttl: 60_000,
            next_generation: 9,
            sealed: Some(End { generation: 5, offset: 4096, sequence: 70 }),
            logs: vec![6, 8],
            segments: Vec::new(),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn u64s(values: &[u64]) -> String {
        hex(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Format 2 is on users' disks: these bytes never change.
    #[test]
    fn golden_manifest_of_format_2() {
        let disk = MemoryDisk::default();
        manifest().write(&disk).unwrap();
        let bytes = read_all(&*disk.open(MANIFEST).unwrap(), 1000).unwrap();
        let expected = format!(
            "7266726e206d616e02000000{}{}{}01{}{}{}",
            "01".repeat(16),
            "02".repeat(32),
            u64s(&[60_000, 9]),
            u64s(&[5, 4096, 70]),
            u64s(&[2, 6, 8]),
            u64s(&[0])
        );
        assert_eq!(hex(&bytes[..bytes.len() - 32]), expected);
        assert_eq!(Manifest::read(&disk).unwrap(), Some(manifest()));
    }

    #[test]
    fn a_manifest_of_format_1_is_read() {
        let disk = MemoryDisk::default();
        let u64s = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let content = [&[1; 16][..], &u64s(&[9]), &[1], &u64s(&[5, 4096, 70, 2, 6, 8, 0])].concat();
        write(&disk, &Kind { format: 1, ..MANIFEST_FILE }, &content).unwrap();
        let read = Manifest::read(&disk).unwrap().unwrap();
        let digests = read.digests;
        assert_eq!(read, Manifest { digests, longest_ttl: 0, ..manifest() });
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
