//! The choice of the segments that are merged.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::engine::segment::{Segment, SegmentMeta};
use crate::engine::settings::Settings;

/// The fewest segments that are merged.
const MIN_RUN: usize = 4;
/// The number of larger segments that are merged.
const LARGE_RUN: usize = 8;
/// The most segments that are merged at a time.
const MAX_RUN: usize = 16;
/// The most logs that a segment has for its larger records.
const MAX_LOGS: usize = 64;
/// Larger segments are merged while there are more than this many: a lookup asks each for its key.
pub(super) const MAX_SEGMENTS: usize = 48;
/// The share of a log up to which a segment is small, and from which on it is worth rewriting what
/// is mostly dead.
pub(super) const SMALL: u64 = 16;
/// Segments are merged if the last records of each expire within this many rotation ages, so that
/// what has expired is not kept for long. Small ones may differ by more.
const MAX_SPAN: u32 = 2;

/// Decides which segments are merged.
pub(super) struct Due<'a> {
    pub(super) settings: &'a Settings,
    /// Newest first.
    pub(super) segments: &'a [Arc<Segment>],
    pub(super) now: Moment,
}

impl Due<'_> {
    /// Returns the segments that are merged next.
    pub(super) fn range(&self) -> Option<Range<usize>> {
        self.mostly_dead().or_else(|| self.small()).or_else(|| self.many())
    }

    /// The oldest segment that is worth rewriting.
    fn mostly_dead(&self) -> Option<Range<usize>> {
        let at = (0..self.segments.len()).rev().find(|at| {
            let segment = &self.segments[*at];
            let (live, all) = (segment.expiries.live(self.now), segment.expiries.all());
            let is_worth_it = all.bytes - live.bytes >= self.settings.log_bytes / SMALL;
            is_worth_it && self.is_mergeable(*at) && is_mostly_dead(segment, self.now)
        });
        at.map(|at| at..at + 1)
    }

    /// The oldest run of small neighbours.
    pub(super) fn small(&self) -> Option<Range<usize>> {
        let small = self.settings.log_bytes / SMALL;
        let is_small = |at: usize| self.is_mergeable(at) && self.bytes(at) <= small;
        let mut end = self.segments.len();
        while end >= MIN_RUN {
            let start = (0..end).rev().take_while(|at| is_small(*at)).last().unwrap_or(end);
            if let Some(run) = self.balanced(start..end) {
                return Some(run);
            }
            end = start.min(end - 1);
        }
        None
    }

    /// The cheapest run of neighbours that expire at about the same time, if there are too many.
    fn many(&self) -> Option<Range<usize>> {
        if self.segments.len() <= MAX_SEGMENTS {
            return None;
        }
        let span: Duration = self.settings.rotation_age() * MAX_SPAN;
        let is_close = |run: &Range<usize>| {
            let expiries = || run.clone().map(|at| self.segments[at].latest_expiry());
            let (first, last) = (expiries().min(), expiries().max());
            last.unwrap_or_default().since(first.unwrap_or_default()) <= span
        };
        let runs = (LARGE_RUN..=self.segments.len()).map(|end| end - LARGE_RUN..end);
        runs.filter(|run| run.clone().all(|at| self.is_mergeable(at)))
            .filter(is_close)
            .filter(|run| self.logs(run) <= MAX_LOGS && self.is_balanced(run))
            .min_by_key(|run| (self.total(run), Reverse(run.start)))
    }

    /// Returns a part of a run in which no segment is larger than all others together, so that each
    /// record is merged a few times only.
    fn balanced(&self, mut run: Range<usize>) -> Option<Range<usize>> {
        while run.len() >= MIN_RUN {
            run.start = run.start.max(run.end.saturating_sub(MAX_RUN));
            if self.is_balanced(&run) && self.logs(&run) <= MAX_LOGS {
                return Some(run);
            }
            let largest = run.clone().max_by_key(|at| self.bytes(*at))?;
            let (newer, older) = (run.start..largest, largest + 1..run.end);
            run = if newer.len() > older.len() { newer } else { older };
        }
        None
    }

    fn is_balanced(&self, run: &Range<usize>) -> bool {
        let largest = run.clone().map(|at| self.bytes(at)).max().unwrap_or_default();
        largest * 2 <= self.total(run)
    }

    /// Returns the bytes of a run that are live.
    pub(super) fn total(&self, run: &Range<usize>) -> u64 {
        run.clone().map(|at| self.bytes(at)).sum()
    }

    fn logs(&self, run: &Range<usize>) -> usize {
        run.clone().map(|at| self.segments[at].values.len()).sum()
    }

    /// The bytes of a segment that are live, never none: each costs a file.
    fn bytes(&self, at: usize) -> u64 {
        1 + self.segments[at].expiries.live(self.now).bytes
    }

    /// Returns true if the segment can be merged.
    fn is_mergeable(&self, at: usize) -> bool {
        let segment = &self.segments[at];
        segment.meta.format == SegmentMeta::FORMAT && !segment.is_left()
    }
}

/// Returns true if less than a quarter of a segment is live.
pub(super) fn is_mostly_dead(segment: &Segment, now: Moment) -> bool {
    let (live, all) = (segment.expiries.live(now).bytes, segment.expiries.all().bytes);
    live * 4 < all
}
