//! Filters of one shape, side by side: a lookup asks all of them for little more than one costs.
//!
//! A binary fuse filter holds an address if the fingerprints at three places, xored, are the
//! address's own. Filters of one shape have the same three places for an address, so their
//! fingerprints for one place lie in one line of memory:
//!
//! ```text
//!             filter 0   filter 1   …   filter 31
//!   place 0     u16        u16            u16       one line of 64 bytes
//!   place 1     u16        u16            u16
//!      ⋮
//! ```

use std::fmt;

use xorf::{BinaryFuse16, Descriptor};

use super::filter;

/// The filters in one group: their fingerprints for one place fill a line of the processor's cache.
const MAX_FILTERS: usize = 32;

/// Up to 32 filters of one shape, in the order in which they came. It is immutable.
pub(crate) struct Filters {
    shape: Descriptor,
    /// The number of filters.
    count: usize,
    /// The number of fingerprints for one place: a power of two, so that no place crosses a line.
    width: usize,
    lines: Box<[Line]>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u16; MAX_FILTERS]);

/// One filter on its way into a group.
#[derive(Clone, Copy)]
pub(crate) enum Lane<'a> {
    Alone(&'a BinaryFuse16),
    /// The one with this number in a group.
    Of(&'a Filters, usize),
}

impl Lane<'_> {
    fn shape(&self) -> &Descriptor {
        match self {
            Self::Alone(filter) => &filter.descriptor,
            Self::Of(filters, _) => &filters.shape,
        }
    }

    fn fingerprint(&self, place: usize) -> u16 {
        match *self {
            Self::Alone(filter) => filter.fingerprints[place],
            Self::Of(filters, number) => {
                let at = place * filters.width + number;
                filters.lines[at / MAX_FILTERS].0[at % MAX_FILTERS]
            }
        }
    }
}

impl Filters {
    /// Puts filters of one shape side by side: at least one, and no more than have
    /// [room](Self::has_room).
    ///
    /// # Panics
    ///
    /// If there are none, or too many.
    pub(crate) fn of(lanes: &[Lane<'_>]) -> Self {
        let shape = lanes[0].shape().clone();
        let (count, width) = (lanes.len(), lanes.len().next_power_of_two());
        let places = shape.segment_count_length as usize + 2 * shape.segment_length as usize;
        let mut lines = vec![Line([0; MAX_FILTERS]); (places * width).div_ceil(MAX_FILTERS)];
        let rows = lines.iter_mut().flat_map(|line| line.0.chunks_exact_mut(width));
        for (place, row) in rows.take(places).enumerate() {
            for (fingerprint, lane) in row.iter_mut().zip(lanes) {
                *fingerprint = lane.fingerprint(place);
            }
        }
        Self { shape, count, width, lines: lines.into() }
    }

    /// Returns true if a filter can be put beside `count` others, of which this is one.
    pub(crate) fn has_room(count: usize) -> bool {
        count < MAX_FILTERS
    }

    /// Returns true if the filter can be put beside these.
    pub(crate) fn have_shape_of(&self, filter: &BinaryFuse16) -> bool {
        self.shape == filter.descriptor
    }

    /// Returns the bytes of memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// Returns the numbers of the filters that do not exclude an address, by its hash.
    pub(crate) fn that_may_hold(&self, hash: u128) -> impl Iterator<Item = usize> {
        let matches = self.matches(filter::bits(hash));
        let count = if matches == 0 { 0 } else { self.count };
        (0..count).filter(move |number| matches >> number & 1 == 1)
    }

    /// Returns a bit for each filter that does not exclude these bits of an address.
    fn matches(&self, bits: u64) -> u32 {
        let hash = mix(bits.wrapping_add(self.shape.seed));
        match self.width {
            1 => self.compare::<1>(hash),
            2 => self.compare::<2>(hash),
            4 => self.compare::<4>(hash),
            8 => self.compare::<8>(hash),
            16 => self.compare::<16>(hash),
            _ => self.compare::<MAX_FILTERS>(hash),
        }
    }

    #[inline]
    fn compare<const WIDTH: usize>(&self, hash: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a fingerprint is 16 bits of the hash")]
        let own = (hash ^ hash >> 32) as u16;
        let [first, second, third] = self.places(hash).map(|place| self.row::<WIDTH>(place));
        let rest: [u16; WIDTH] = std::array::from_fn(|n| first[n] ^ second[n] ^ third[n] ^ own);
        // Few addresses match any filter, and this is the form that compiles to vectors.
        if !rest.iter().fold(false, |any, rest| any | (*rest == 0)) {
            return 0;
        }
        (0..WIDTH).filter(|n| rest[*n] == 0).fold(0, |matches, n| matches | 1 << n)
    }

    /// Returns the three places of a hash.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits choose within a part")]
    fn places(&self, hash: u64) -> [usize; 3] {
        let Descriptor { segment_length: part, segment_length_mask: mask, .. } = self.shape;
        let first = (u128::from(hash) * u128::from(self.shape.segment_count_length)) >> 64;
        let first = first as usize;
        let second = (first + part as usize) ^ ((hash >> 18) as u32 & mask) as usize;
        let third = (first + 2 * part as usize) ^ (hash as u32 & mask) as usize;
        [first, second, third]
    }

    /// Returns the fingerprints for one place.
    fn row<const WIDTH: usize>(&self, place: usize) -> &[u16; WIDTH] {
        let at = place * WIDTH;
        let row = &self.lines[at / MAX_FILTERS].0[at % MAX_FILTERS..];
        row.first_chunk().expect("a place does not cross a line")
    }
}

/// Spreads every bit over all others, as the filters do that are built: the end of MurmurHash3.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, count, width, .. } = self;
        f.debug_struct("Filters")
            .field("shape", shape)
            .field("count", count)
            .field("width", width)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use xorf::Filter;

    use super::*;

    /// The addresses of one segment, and others.
    fn bits(of: u64, n: u64) -> u64 {
        mix(of << 32 | n)
    }

    fn filters(size: u64, count: u64) -> Vec<BinaryFuse16> {
        let mut built =
            (0..).map(|of| filter::build((0..size).map(|n| bits(of, n)).collect()).unwrap());
        let first = built.next().unwrap();
        let shape = first.descriptor.clone();
        let same = built.filter(|filter| filter.descriptor == shape);
        std::iter::once(first).chain(same).take(usize::try_from(count).unwrap()).collect()
    }

    fn matches(filters: &Filters, bits: u64) -> Vec<usize> {
        filters.that_may_hold(u128::from(bits)).collect()
    }

    /// Each says what it says alone, wherever it comes from.
    #[test]
    fn p5_filters_side_by_side_say_what_each_says_alone() {
        for (size, count) in [(1, 1), (3, 2), (300, 3), (300, 32), (1000, 7), (5000, 17)] {
            let alone = filters(size, count);
            let lanes: Vec<_> = alone.iter().map(Lane::Alone).collect();
            let together = Filters::of(&lanes);
            let (first, second) = alone.split_at(alone.len() / 2);
            let moved = Filters::of(
                &(second.iter().map(Lane::Alone))
                    .chain((0..first.len()).map(|n| Lane::Of(&together, n)))
                    .collect::<Vec<_>>(),
            );
            for probe in (0..2 * count).flat_map(|of| (0..2 * size).map(move |n| bits(of, n))) {
                let says = |filters: &[BinaryFuse16]| -> Vec<bool> {
                    filters.iter().map(|filter| filter.contains(&probe)).collect()
                };
                let expected = |says: Vec<bool>| -> Vec<usize> {
                    (0..says.len()).filter(|n| says[*n]).collect()
                };
                assert_eq!(matches(&together, probe), expected(says(&alone)), "{size} {count}");
                let moved_says = [says(second), says(first)].concat();
                assert_eq!(matches(&moved, probe), expected(moved_says), "{size} {count}");
            }
        }
    }

    #[test]
    fn segments_of_about_the_same_size_have_filters_of_one_shape_as_a_rule() {
        let shape = |of: u64| {
            let size = 1100 + of;
            filter::build((0..size).map(|n| bits(of, n)).collect()).unwrap().descriptor
        };
        let usual = shape(0);
        let others = (1..100).filter(|of| shape(*of) != usual).count();
        assert!(others <= 10, "{others} of 99 have another shape");
    }
}
