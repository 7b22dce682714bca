//! The binary fuse filter of a segment, as bytes: descriptor, fingerprints, checksum.
//!
//! A filter is built over the addresses of its segment, and over others that make their number a
//! round one. So the filters of segments of about the same size have the same shape, as a rule, and
//! a lookup asks all of them at once: see [`Filters`](super::Filters).

use bincode::{Decode, Encode};
use xorf::{BinaryFuse16, Descriptor};

use super::binding::Binding;

/// The fewest addresses that a filter is built over.
const MIN_SIZE: usize = 256;

/// Returns the bits of an address that the filter is built over, from its hash. The hash is seeded
/// with the store's uuid.
pub(super) fn bits(hash: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the filter's")]
    let low = hash as u64;
    low
}

#[derive(Encode, Decode)]
struct StoredFilter {
    seed: u64,
    segment_length: u32,
    segment_length_mask: u32,
    segment_count_length: u32,
    fingerprints: Vec<u16>,
}

/// The limit bounds the allocation that a damaged length can cause.
const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<{ 1 << 28 }>,
> = bincode::config::standard().with_fixed_int_encoding().with_limit();

/// Builds the filter of these bits. Duplicates do no harm.
///
/// # Errors
///
/// The reason, if no filter can be built over them.
pub(super) fn build(mut bits: Vec<u64>) -> Result<BinaryFuse16, &'static str> {
    bits.sort_unstable();
    bits.dedup();
    let count = bits.len();
    bits.extend((count..round_size(count)).map(|n| u64::MAX - n as u64));
    bits.sort_unstable();
    bits.dedup();
    BinaryFuse16::try_from(bits)
}

/// Returns the size of the filter for this many addresses. There are four sizes from one power of
/// two to the next.
fn round_size(count: usize) -> usize {
    count.max(MIN_SIZE).next_multiple_of(count.max(MIN_SIZE).next_power_of_two() / 8)
}

/// Returns the filter as bytes, with a checksum bound to the segment.
pub(super) fn encode(filter: &BinaryFuse16, binding: &Binding) -> Vec<u8> {
    let descriptor = &filter.descriptor;
    let stored = StoredFilter {
        seed: descriptor.seed,
        segment_length: descriptor.segment_length,
        segment_length_mask: descriptor.segment_length_mask,
        segment_count_length: descriptor.segment_count_length,
        fingerprints: filter.fingerprints.to_vec(),
    };
    let mut bytes = bincode::encode_to_vec(stored, CONFIG).expect("a vector takes every filter");
    let digest = binding.digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Decodes a filter that ends with a digest of `digest` bytes, or returns `None` if it is damaged,
/// is another segment's, or has a shape that a lookup could panic on.
pub(super) fn decode(bytes: &[u8], binding: &Binding, digest: usize) -> Option<BinaryFuse16> {
    let (bytes, stored) = bytes.split_at_checked(bytes.len().checked_sub(digest)?)?;
    if !stored.starts_with(&binding.digest(bytes)) {
        return None;
    }
    let (stored, used): (StoredFilter, usize) = bincode::decode_from_slice(bytes, CONFIG).ok()?;
    let reach = u64::from(stored.segment_count_length) + 2 * u64::from(stored.segment_length);
    let safe = used == bytes.len()
        && stored.segment_length.is_power_of_two()
        && stored.segment_count_length > 0
        && stored.segment_count_length.is_multiple_of(stored.segment_length)
        && stored.segment_length_mask == stored.segment_length - 1
        && stored.fingerprints.len() as u64 >= reach;
    safe.then(|| BinaryFuse16 {
        descriptor: Descriptor {
            seed: stored.seed,
            segment_length: stored.segment_length,
            segment_length_mask: stored.segment_length_mask,
            segment_count_length: stored.segment_count_length,
        },
        fingerprints: stored.fingerprints.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::meta::SegmentMeta;
    use super::super::tests::{BASE, KEY};
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_the_next_quarter_of_a_power_of_two() {
        let sizes = [0, 1, 256, 257, 320, 321, 500, 512, 513, 300_000];
        let round = [256, 256, 256, 320, 320, 384, 512, 512, 640, 327_680];
        assert_eq!(sizes.map(round_size), round);
    }

    /// Without its checksum, a filter with changed bits would deny an address that the segment
    /// holds.
    #[test]
    fn p5_a_filter_that_is_damaged_or_of_another_segment_is_none() {
        let binding = Binding::new(&BASE, KEY);
        let filter = build(vec![1, 2, 3, 3]).unwrap();
        let mut bytes = encode(&filter, &binding);
        assert_eq!(decode(&bytes, &binding, 16).unwrap().fingerprints, filter.fingerprints);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, &binding, 16).is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], &binding, 16).is_none(), "{length} bytes");
        }
        for other in [SegmentMeta { file: 4, ..BASE }, SegmentMeta { uuid: [2; 16], ..BASE }] {
            assert!(decode(&bytes, &Binding::new(&other, KEY), 16).is_none(), "{other:?}");
        }
    }
}
