//! `LOCK` and `MANIFEST`: the uuid of the store, and the list of its files.
//!
//! Invariants:
//! - `LOCK` is written once, when the store is created.
//! - `MANIFEST` is replaced whole: written under another name, synced, renamed, and the directory
//!   synced.
//! - A listed file that is missing is damage; an unlisted file of this store is a leftover.
//! - `MANIFEST` has its content twice, and damage to one copy costs nothing. What `LOCK` says is in
//!   `MANIFEST` too.

use std::io;
use std::path::Path;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, read_all, remove_leftover};
use crate::engine::entry::End;
use crate::engine::log::{Identity, PAGE};
use crate::engine::segment::{SegmentMeta, SegmentMeta1};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};

/// The file that is locked by the process that has the store open.
pub(crate) const LOCK: &str = "LOCK";
/// The file that lists all others.
pub(crate) const MANIFEST: &str = "MANIFEST";

const LOCK_FILE: Kind = Kind { name: LOCK, magic: *b"rfrn lck", format: 1, copies: 1 };
const MANIFEST_FILE: Kind = Kind { name: MANIFEST, magic: *b"rfrn man", format: 2, copies: 2 };
/// The most bytes of `LOCK` that are wrong in a file that is still known to be this store's.
const MAX_WRONG_BYTES: usize = 4;
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
        let Some(Envelope { format, content, .. }) = read(disk, &MANIFEST_FILE)? else {
            return Ok(None);
        };
        let decoded = match format {
            1 => decode::<Manifest1>(&content).map(Manifest1::upgrade),
            _ => decode(&content),
        };
        let damaged = || Error::corrupt(disk.path_of(MANIFEST), "it cannot be decoded");
        decoded.ok_or_else(damaged).map(Some)
    }

    /// Returns true if no copy of the content is damaged.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub(super) fn is_whole(disk: &dyn Disk) -> Result<bool> {
        Ok(read(disk, &MANIFEST_FILE)?.is_some_and(|envelope| envelope.is_whole))
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

    /// Returns the bytes that the file takes on a disk.
    pub(super) fn file_bytes(&self) -> u64 {
        let content = bincode::encode_to_vec(self, CONFIG).map_or(0, |content| content.len());
        let bytes = MANIFEST_FILE.encode(&vec![0; content]).len() * MANIFEST_FILE.copies;
        (bytes as u64).next_multiple_of(PAGE)
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
    let Some(envelope) = read(disk, &LOCK_FILE)? else { return Ok(None) };
    match <[u8; 16]>::try_from(envelope.content) {
        Ok(uuid) => Ok(Some(uuid)),
        Err(_) => Err(Error::corrupt(disk.path_of(LOCK), "it has no uuid")),
    }
}

/// Returns true if `LOCK` is that of the store with this uuid, but for a few damaged bytes.
pub(super) fn is_damaged_lock(disk: &dyn Disk, uuid: [u8; 16]) -> bool {
    let found = disk.open(LOCK).and_then(|file| read_all(&*file, MAX_BYTES as u64));
    let (found, expected) = (found.unwrap_or_default(), LOCK_FILE.encode(&uuid));
    let wrong = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
    found.len() == expected.len() && wrong <= MAX_WRONG_BYTES
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
    /// The number of times that all this is written.
    copies: usize,
}

/// The content of such a file.
struct Envelope {
    format: u32,
    content: Vec<u8>,
    /// No copy is damaged.
    is_whole: bool,
}

impl Kind {
    /// Returns the SHA-256 of magic, format and content.
    fn checksum(&self, format: u32, content: &[u8]) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(self.magic);
        hasher.update(format.to_le_bytes());
        hasher.update(content);
        hasher.finalize().into()
    }

    /// Returns the content in its envelope, once.
    fn encode(&self, content: &[u8]) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(&self.checksum(self.format, content));
        bytes
    }

    /// Returns the format and the content of one copy; `path` is for messages.
    fn decode(&self, bytes: &[u8], path: &Path) -> Result<(u32, Vec<u8>)> {
        let fields = bytes.strip_prefix(&self.magic).and_then(<[u8]>::split_first_chunk);
        let Some((format, rest)) = fields else {
            return Err(Error::foreign(path, "it does not begin like a file of refrain"));
        };
        let found = u32::from_le_bytes(*format);
        if found > self.format {
            return Err(Error::Newer { file: path.into(), found, supported: self.format });
        }
        match rest.split_last_chunk::<32>() {
            Some((content, checksum)) if self.checksum(found, content) == *checksum => {
                Ok((found, content.to_vec()))
            }
            _ => Err(Error::corrupt(path, "it does not match its checksum")),
        }
    }
}

/// Reads a file, by whichever copy of its content is whole.
fn read(disk: &dyn Disk, kind: &Kind) -> Result<Option<Envelope>> {
    let path = disk.path_of(kind.name);
    let file = match disk.open(kind.name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| Error::io("open", &path, error))?,
    };
    let max = kind.copies * MAX_BYTES;
    let bytes = read_all(&*file, max as u64).map_err(|error| Error::io("read", &path, error))?;
    let mut copies = bytes.chunks(bytes.len().div_ceil(kind.copies).max(1));
    let is_whole = copies.clone().all(|copy| kind.decode(copy, &path).is_ok());
    let found = kind.decode(&bytes, &path).map(|found| {
        // Format 1 has one copy.
        let is_whole = kind.copies == 1 || found.0 == 1;
        (found, is_whole)
    });
    let found = found.or_else(|error| {
        let found = copies.find_map(|copy| kind.decode(copy, &path).ok());
        found.map(|found| (found, is_whole)).ok_or(error)
    });
    let ((format, content), is_whole) = found?;
    Ok(Some(Envelope { format, content, is_whole }))
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
    let bytes = kind.encode(content).repeat(kind.copies);
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
        let (first, second) = bytes.split_at(bytes.len() / 2);
        assert_eq!(hex(&first[..first.len() - 32]), expected);
        assert_eq!(first, second, "it is there twice");
        assert_eq!(Manifest::read(&disk).unwrap(), Some(manifest()));
    }

    #[test]
    fn a_manifest_of_format_1_is_read() {
        let disk = MemoryDisk::default();
        let u64s = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        let content = [&[1; 16][..], &u64s(&[9]), &[1], &u64s(&[5, 4096, 70, 2, 6, 8, 0])].concat();
        write(&disk, &Kind { format: 1, copies: 1, ..MANIFEST_FILE }, &content).unwrap();
        let read = Manifest::read(&disk).unwrap().unwrap();
        let digests = read.digests;
        assert_eq!(read, Manifest { digests, longest_ttl: 0, ..manifest() });
    }

    #[test]
    fn p5_a_flipped_bit_costs_nothing_and_is_noticed_and_a_truncation_is_damage() {
        let disk = MemoryDisk::default();
        manifest().write(&disk).unwrap();
        assert!(Manifest::is_whole(&disk).unwrap());
        let file = disk.open(MANIFEST).unwrap();
        let bytes = read_all(&*file, 1000).unwrap();
        for bit in 0..bytes.len() * 8 {
            let byte = bytes[bit / 8] ^ (1 << (bit % 8));
            file.write_at(&[byte], (bit / 8) as u64).unwrap();
            assert_eq!(Manifest::read(&disk).unwrap(), Some(manifest()), "bit {bit}");
            assert!(!Manifest::is_whole(&disk).unwrap(), "bit {bit}");
            // The same bit in both copies.
            let other = (bit / 8 + bytes.len() / 2) % bytes.len();
            file.write_at(&[byte], other as u64).unwrap();
            assert!(Manifest::read(&disk).is_err(), "bit {bit}");
            file.write_at(&bytes, 0).unwrap();
        }
        for length in (0..bytes.len()).rev() {
            file.set_len(length as u64).unwrap();
            // The first copy alone is enough.
            let is_enough = length == bytes.len() / 2 || length == bytes.len() - 1;
            assert_eq!(Manifest::read(&disk).is_ok(), is_enough, "{length} bytes");
            assert!(!is_enough || !Manifest::is_whole(&disk).unwrap(), "{length} bytes");
        }
    }

    #[test]
    fn p5_a_lock_with_a_flipped_bit_is_known_and_another_is_not() {
        let disk = MemoryDisk::default();
        write_lock(&disk, [1; 16]).unwrap();
        let file = disk.open(LOCK).unwrap();
        let bytes = read_all(&*file, 1000).unwrap();
        for bit in 0..bytes.len() * 8 {
            let byte = bytes[bit / 8] ^ (1 << (bit % 8));
            file.write_at(&[byte], (bit / 8) as u64).unwrap();
            assert!(read_lock(&disk).is_err() && is_damaged_lock(&disk, [1; 16]), "bit {bit}");
            file.write_at(&bytes, 0).unwrap();
        }
        assert!(!is_damaged_lock(&disk, [2; 16]));
        file.set_len(bytes.len() as u64 - 1).unwrap();
        assert!(!is_damaged_lock(&disk, [1; 16]));
    }
}
