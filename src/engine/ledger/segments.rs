//! The segments of a store, and their filters, which say where a key may be.
//!
//! Invariants:
//! - Every segment is a member of exactly one group of filters, or has none to ask.
//! - The filters are those of the segments that are in the list, so the two change together.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use xorf::BinaryFuse16;

use crate::engine::segment::{Filters, Lane, Segment};
use crate::key::Address;

/// The segments, newest first. A changed copy shares what has not changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments {
    newest_first: Vec<Arc<Segment>>,
    groups: Vec<Arc<Group>>,
    /// Those whose filter is damaged: any address may be in them.
    unfiltered: Vec<Arc<Segment>>,
}

/// Segments with filters of one shape.
#[derive(Debug)]
struct Group {
    members: Vec<Arc<Segment>>,
    filters: Filters,
}

/// A group that is being changed.
struct Draft<'a> {
    old: Option<&'a Arc<Group>>,
    /// The members of the old group that stay.
    staying: Vec<usize>,
    added: Vec<(Arc<Segment>, BinaryFuse16)>,
}

impl Deref for Segments {
    type Target = [Arc<Segment>];

    fn deref(&self) -> &Self::Target {
        &self.newest_first
    }
}

impl From<Vec<Arc<Segment>>> for Segments {
    fn from(newest_first: Vec<Arc<Segment>>) -> Self {
        Self::default().changed(|segments| *segments = newest_first)
    }
}

impl Segments {
    /// Returns a changed copy. The filters of new segments are moved into it, and those beside them
    /// are copied, which takes a time: no lock should be held meanwhile.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) -> Self {
        let mut newest_first = self.newest_first.clone();
        change(&mut newest_first);
        let files = |segments: &[Arc<Segment>]| -> HashSet<u64> {
            segments.iter().map(|segment| segment.meta.file).collect()
        };
        let (old, stays) = (files(&self.newest_first), files(&newest_first));
        let mut unfiltered = self.unfiltered.clone();
        unfiltered.retain(|segment| stays.contains(&segment.meta.file));
        let mut drafts: Vec<_> = self.groups.iter().map(|group| Draft::of(group, &stays)).collect();
        for segment in newest_first.iter().filter(|segment| !old.contains(&segment.meta.file)) {
            match segment.take_filter() {
                Some(filter) => add(&mut drafts, Arc::clone(segment), filter),
                None => unfiltered.push(Arc::clone(segment)),
            }
        }
        let groups = drafts.into_iter().filter_map(Draft::finish).collect();
        Self { newest_first, groups, unfiltered }
    }

    /// Returns the segments that may hold an address, newest first. It is certain that no other
    /// does.
    pub(crate) fn that_may_hold(&self, address: &Address) -> Vec<&Arc<Segment>> {
        let mut found: Vec<_> = self.unfiltered.iter().collect();
        for Group { members, filters } in self.groups.iter().map(|group| &**group) {
            found.extend(filters.that_may_hold(address.hash).map(|number| &members[number]));
        }
        if found.len() > 1 {
            found.sort_by_cached_key(|segment| self.position(segment));
        }
        found
    }

    /// Returns the position of a segment in the list, from the newest on.
    pub(crate) fn position(&self, segment: &Arc<Segment>) -> Option<usize> {
        self.newest_first.iter().position(|listed| Arc::ptr_eq(listed, segment))
    }

    /// Returns the bytes of memory that the filters take.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.filters.bytes()).sum()
    }
}

/// Adds a segment to a group with filters of its shape, or begins one.
fn add(drafts: &mut Vec<Draft<'_>>, segment: Arc<Segment>, filter: BinaryFuse16) {
    let found = drafts.iter_mut().find(|draft| draft.has_room_for(&filter));
    let added = (segment, filter);
    match found {
        Some(draft) => draft.added.push(added),
        None => drafts.push(Draft { old: None, staying: Vec::new(), added: vec![added] }),
    }
}

impl<'a> Draft<'a> {
    fn of(group: &'a Arc<Group>, stays: &HashSet<u64>) -> Self {
        let members = group.members.iter().enumerate();
        let staying = members.filter(|(_, segment)| stays.contains(&segment.meta.file));
        let staying = staying.map(|(number, _)| number).collect();
        Self { old: Some(group), staying, added: Vec::new() }
    }

    fn has_room_for(&self, filter: &BinaryFuse16) -> bool {
        let has_shape = match (self.old, self.added.first()) {
            (Some(old), _) => old.filters.have_shape_of(filter),
            (None, Some((_, first))) => first.descriptor == filter.descriptor,
            (None, None) => false,
        };
        has_shape && Filters::has_room(self.staying.len() + self.added.len())
    }

    /// Returns the group, or `None` if nothing is left of it.
    fn finish(self) -> Option<Arc<Group>> {
        let Self { old, staying, added } = self;
        let old_members = old.map_or(&[][..], |old| &old.members);
        match old {
            Some(old) if added.is_empty() && staying.len() == old_members.len() => {
                return Some(Arc::clone(old));
            }
            _ if staying.is_empty() && added.is_empty() => return None,
            _ => {}
        }
        let stay = old
            .into_iter()
            .flat_map(|old| staying.iter().map(|number| Lane::Of(&old.filters, *number)));
        let lanes: Vec<_> =
            stay.chain(added.iter().map(|(_, filter)| Lane::Alone(filter))).collect();
        let filters = Filters::of(&lanes);
        let stay = staying.iter().map(|number| Arc::clone(&old_members[*number]));
        let members = stay.chain(added.iter().map(|(segment, _)| Arc::clone(segment))).collect();
        Some(Arc::new(Group { members, filters }))
    }
}
