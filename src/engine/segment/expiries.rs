//! The times at which the records of a segment expire, coarsely: how much of it is live is known
//! without reading it.

use crate::clock::Moment;

use super::binding::Binding;

/// The most groups that the records are counted in.
const MAX_GROUPS: usize = 32;
/// The bytes of a group: moment, records, bytes.
const LEN: usize = 3 * 8;
/// The bytes of a digest.
const DIGEST: usize = 16;

/// Records and bytes, in groups that expire by a moment, the earliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expiries(Vec<Group>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    /// The moment at which all of its records have expired.
    until: Moment,
    amount: Amount,
}

/// A number of records, and the bytes that they take in a segment and its logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}

impl Expiries {
    /// Counts records, each with its expiry and its bytes.
    pub(super) fn of(mut records: Vec<(Moment, u64)>) -> Self {
        records.sort_unstable();
        let size = records.len().div_ceil(MAX_GROUPS).max(1);
        let group = |records: &[(Moment, u64)]| Group {
            until: records.last().map_or_else(Moment::default, |(until, _)| *until),
            amount: Amount {
                records: records.len() as u64,
                bytes: records.iter().map(|(_, bytes)| bytes).sum(),
            },
        };
        Self(records.chunks(size).map(group).collect())
    }

    /// Returns at least what has not expired by `now`.
    pub(crate) fn live(&self, now: Moment) -> Amount {
        let live = self.0.iter().filter(|group| group.until > now);
        live.fold(Amount::default(), |sum, group| sum.plus(group.amount))
    }

    /// Returns all, expired or not.
    pub(crate) fn all(&self) -> Amount {
        self.0.iter().fold(Amount::default(), |sum, group| sum.plus(group.amount))
    }

    /// Returns the groups as bytes, with a digest bound to the segment.
    pub(super) fn encode(&self, binding: &Binding) -> Vec<u8> {
        let numbers = |group: &Group| [group.until.0, group.amount.records, group.amount.bytes];
        let mut bytes: Vec<u8> =
            self.0.iter().flat_map(numbers).flat_map(u64::to_le_bytes).collect();
        let digest = binding.digest(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }

    /// Decodes the groups, or returns `None` if they are damaged.
    pub(super) fn decode(bytes: &[u8], binding: &Binding) -> Option<Self> {
        let (bytes, digest) = bytes.split_last_chunk::<DIGEST>()?;
        let (groups, []) = bytes.as_chunks::<LEN>() else { return None };
        if binding.digest(bytes) != *digest {
            return None;
        }
        let read = |bytes: &[u8; LEN]| {
            let (numbers, _) = bytes.as_chunks();
            let number = |at: usize| numbers.get(at).map(|bytes| u64::from_le_bytes(*bytes));
            let amount = Amount { records: number(1)?, bytes: number(2)? };
            Some(Group { until: Moment(number(0)?), amount })
        };
        groups.iter().map(read).collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, KEY};
    use super::*;

    #[test]
    fn what_is_live_is_counted_in_groups() {
        let expiries = Expiries::of((1..=320).rev().map(|n| (Moment(n), 10)).collect());
        assert_eq!(expiries.0.len(), MAX_GROUPS);
        assert_eq!(expiries.all(), Amount { records: 320, bytes: 3_200 });
        assert_eq!(expiries.live(Moment(0)), expiries.all());
        assert_eq!(expiries.live(Moment(10)).records, 310);
        assert_eq!(expiries.live(Moment(319)).records, 10, "the last of a group counts for all");
        assert_eq!(expiries.live(Moment(320)), Amount::default());
        assert_eq!(Expiries::of(Vec::new()).all(), Amount::default());
    }

    #[test]
    fn p5_groups_that_are_damaged_are_none() {
        let binding = Binding::new(&BASE, KEY);
        let expiries = Expiries::of(vec![(Moment(5), 7), (Moment(9), 8)]);
        let mut bytes = expiries.encode(&binding);
        assert_eq!(Expiries::decode(&bytes, &binding), Some(expiries));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Expiries::decode(&bytes, &binding), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
