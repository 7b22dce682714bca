//! One row of a segment: a value, its successor's key, and a checksum over both and its own key.
//!
//! Invariants:
//! - The checksum is bound to the store, to the segment and to the row's key, so no row can stand
//!   in for another.
//! - A verified row proves that no key lies between its own and its successor's.
//! - Bytes that do not verify are `None`, and never a panic.

use std::cmp::Ordering;

use crate::engine::entry::Parts;
use crate::key::{Address, Key};

use super::binding::Binding;

/// A row's key: an address, and the number of a part of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey<'a> {
    pub(super) scope: &'a [u8; 32],
    pub(super) key: &'a [u8],
    pub(super) part: u16,
}

impl<'a> RowKey<'a> {
    /// The key before every address, so that each address has a row at or below it.
    pub(super) const SENTINEL: RowKey<'static> = RowKey { scope: &[0; 32], key: &[], part: 0 };

    /// Returns the key of one part of the value of an address.
    pub(super) fn of(address: &'a Address, part: u16) -> Self {
        Self { scope: address.scope.as_bytes(), key: address.key.as_bytes(), part }
    }

    /// Returns a key that was read, unless it is longer than a key can be.
    pub(super) fn from_redb((scope, key, part): (&'a [u8; 32], &'a [u8], u16)) -> Option<Self> {
        (key.len() <= Key::MAX_LEN).then_some(Self { scope, key, part })
    }

    /// Returns true if an entry is under this key.
    pub(super) fn is_of(&self, entry: &Parts<'_>) -> bool {
        entry.is_under(self.scope, self.key)
    }

    /// Returns the key in the form that redb takes.
    pub(super) fn as_redb(&self) -> (&'a [u8; 32], &'a [u8], u16) {
        (self.scope, self.key, self.part)
    }

    /// Returns the key of the next part of the same value.
    pub(super) fn next_part(&self) -> Option<Self> {
        Some(Self { part: self.part.checked_add(1)?, ..*self })
    }

    /// Returns an owned copy of the key.
    pub(super) fn joined(&self) -> Joined {
        Joined::new(&[self.scope, self.key], self.part)
    }
}

/// An owned row key: scope and key side by side, and the part. Its order is that of the rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    bytes: [u8; Self::MAX_LEN],
    len: usize,
    part: u16,
}

impl Joined {
    const MAX_LEN: usize = 32 + Key::MAX_LEN;

    fn new(pieces: &[&[u8]], part: u16) -> Self {
        let mut joined = Self { bytes: [0; Self::MAX_LEN], len: 0, part };
        for piece in pieces {
            joined.bytes[joined.len..][..piece.len()].copy_from_slice(piece);
            joined.len += piece.len();
        }
        joined
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::hash::Hash for Joined {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
        self.part.hash(state);
    }
}

impl PartialEq for Joined {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Joined {}

impl PartialOrd for Joined {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Joined {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes()).then(self.part.cmp(&other.part))
    }
}

/// The key of the next row, or the end. It is stored as the length of the prefix that it shares
/// with this row's key, and the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Successor(Option<Joined>);

/// The mark of the last row, in place of the length of the rest.
const END: u16 = u16::MAX;

impl Successor {
    /// Appends the successor in its stored form: length of the shared prefix, length of the rest,
    /// rest, part.
    fn encode(own: &RowKey<'_>, next: Option<&RowKey<'_>>, out: &mut Vec<u8>) {
        let Some(next) = next else {
            out.extend_from_slice(&0_u16.to_le_bytes());
            return out.extend_from_slice(&END.to_le_bytes());
        };
        let (own, next) = (own.joined(), next.joined());
        let same = own.bytes().iter().zip(next.bytes()).take_while(|(a, b)| a == b);
        let (shared, rest) = next.bytes().split_at(same.count());
        let length = |n: usize| u16::try_from(n).expect("keys are at most 287 bytes").to_le_bytes();
        out.extend_from_slice(&length(shared.len()));
        out.extend_from_slice(&length(rest.len()));
        out.extend_from_slice(rest);
        out.extend_from_slice(&next.part.to_le_bytes());
    }

    /// Decodes a successor, and returns it with the bytes after it.
    fn decode<'a>(own: &RowKey<'_>, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (shared, bytes) = bytes.split_first_chunk()?;
        let (length, bytes) = bytes.split_first_chunk()?;
        let (shared, length) = (u16::from_le_bytes(*shared), u16::from_le_bytes(*length));
        if length == END {
            return Some((Self(None), bytes));
        }
        let (rest, bytes) = bytes.split_at_checked(usize::from(length))?;
        let (part, bytes) = bytes.split_first_chunk()?;
        let own = own.joined();
        let shared = own.bytes().get(..usize::from(shared))?;
        let fits = shared.len() + rest.len() <= Joined::MAX_LEN;
        let key = fits.then(|| Joined::new(&[shared, rest], u16::from_le_bytes(*part)))?;
        Some((Self(Some(key)), bytes))
    }

    /// Compares the successor with a row's key. The end is greater than every key.
    pub(super) fn cmp_key(&self, key: &RowKey<'_>) -> Ordering {
        self.0.map_or(Ordering::Greater, |own| own.cmp(&key.joined()))
    }

    /// Returns the key, unless this is the end.
    pub(super) fn key(self) -> Option<Joined> {
        self.0
    }

    /// Returns true if the successor has this key.
    pub(super) fn is(&self, key: &RowKey<'_>) -> bool {
        self.cmp_key(key) == Ordering::Equal
    }
}

/// A row that has verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) key: RowKey<'a>,
    pub(super) successor: Successor,
    pub(super) value: &'a [u8],
}

/// The length of the checksum, in bytes.
const CHECKSUM: usize = 16;

impl<'a> Row<'a> {
    pub(super) fn encode(
        binding: &Binding,
        key: &RowKey<'_>,
        next: Option<&RowKey<'_>>,
        value: &[u8],
    ) -> Vec<u8> {
        let mut row = Vec::with_capacity(value.len() + 64);
        row.extend_from_slice(&[0; CHECKSUM]);
        Successor::encode(key, next, &mut row);
        row.extend_from_slice(value);
        let checksum = binding.digest_row(key.scope, key.key, key.part, &row[CHECKSUM..]);
        row[..CHECKSUM].copy_from_slice(&checksum);
        row
    }

    pub(super) fn decode(binding: &Binding, key: RowKey<'a>, row: &'a [u8]) -> Option<Self> {
        let (stored, rest) = row.split_first_chunk::<CHECKSUM>()?;
        if binding.digest_row(key.scope, key.key, key.part, rest) != *stored {
            return None;
        }
        let (successor, value) = Successor::decode(&key, rest)?;
        Some(Self { key, successor, value })
    }
}

#[cfg(test)]
mod tests {
    use super::super::meta::SegmentMeta;
    use super::super::tests::{BASE, KEY};
    use super::*;

    fn binding() -> Binding {
        Binding::new(&BASE, KEY)
    }

    fn key<'a>(key: &'a [u8], part: u16) -> RowKey<'a> {
        RowKey { scope: &[7; 32], key, part }
    }

    #[test]
    fn golden_row_of_formats_1_and_2() {
        let row = Row::encode(&binding(), &key(b"abc", 0), Some(&key(b"abd", 2)), b"value");
        let hex: String = row[CHECKSUM..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "2200010064020076616c7565");
        let last = Row::encode(&binding(), &key(b"abc", 0), None, b"");
        assert_eq!(last[CHECKSUM..], [0, 0, 0xff, 0xff]);
    }

    #[test]
    fn a_row_knows_its_successor() {
        let row = Row::encode(&binding(), &key(b"abc", 0), Some(&key(b"abd", 2)), b"value");
        let row = Row::decode(&binding(), key(b"abc", 0), &row).unwrap();
        assert_eq!(row.value, b"value");
        assert!(row.successor.is(&key(b"abd", 2)));
        for (other, order) in [
            (key(b"abd", 1), Ordering::Greater),
            (key(b"abd", 3), Ordering::Less),
            (key(b"abcz", 9), Ordering::Greater),
            (key(b"abda", 0), Ordering::Less),
            (RowKey { scope: &[8; 32], key: b"a", part: 0 }, Ordering::Less),
        ] {
            assert_eq!(row.successor.cmp_key(&other), order, "{other:?}");
        }
    }

    #[test]
    fn p14_a_key_that_is_longer_than_keys_are_is_none() {
        let (longest, longer) = ([b'k'; Key::MAX_LEN], [b'k'; Key::MAX_LEN + 1]);
        assert!(RowKey::from_redb((&[7; 32], &longer, 0)).is_none());
        let own = RowKey::from_redb((&[7; 32], &longest, 0)).unwrap();
        let row = Row::encode(&binding(), &own, Some(&own.next_part().unwrap()), b"value");
        assert!(
            Row::decode(&binding(), own, &row).unwrap().successor.is(&own.next_part().unwrap())
        );
        // All of its own key, and one byte more.
        let mut rest = [&287_u16.to_le_bytes()[..], &1_u16.to_le_bytes(), b"k", &[0; 2]].concat();
        assert!(Successor::decode(&own, &rest).is_none());
        rest[0] -= 1;
        assert!(Successor::decode(&own, &rest).is_some());
    }

    #[test]
    fn p5_a_row_under_another_key_or_from_another_file_does_not_verify() {
        let row = Row::encode(&binding(), &key(b"abc", 0), None, b"value");
        assert!(Row::decode(&binding(), key(b"abc", 0), &row).is_some());
        assert!(Row::decode(&binding(), key(b"abd", 0), &row).is_none());
        assert!(Row::decode(&binding(), key(b"abc", 1), &row).is_none());
        let other = Binding::new(&SegmentMeta { file: 4, ..BASE }, KEY);
        assert!(Row::decode(&other, key(b"abc", 0), &row).is_none());
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Row::decode(&binding(), key(b"abc", 0), &damaged).is_none(), "bit {bit}");
        }
    }
}
