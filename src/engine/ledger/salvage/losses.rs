//! The batches that are missing between those that can be read.

use crate::engine::log::log_name;
use crate::salvage::Loss;

use super::sources::{Batches, Place, Sources};

/// Notes the ranges of the logs that held batches which cannot be read.
pub(super) fn of_batches(sources: &Sources, batches: &Batches, losses: &mut Vec<Loss>) {
    let mut before: Option<Place> = None;
    let first = batches.iter().next().map_or(0, |(sequence, _)| sequence);
    // Without a list nobody knows whether what came before has expired or is missing.
    let mut expected = (sources.sealed + 1).max(if sources.is_listed { 0 } else { first });
    for (sequence, place) in batches.iter() {
        // What is sealed is in segments, or has expired.
        if sequence > expected {
            losses.push(gap(sources, before, place, sequence - expected));
        }
        expected = expected.max(sequence + 1);
        before = Some(place);
    }
    for log in sources.cut() {
        let loss = Loss::of_file(&*sources.disk, &log.name, "it is cut short", true);
        losses.push(Loss { bytes: Some(log.missing()), ..loss });
    }
    if batches.last_sequence() <= sources.sealed {
        let reason = "no log behind the segments has a batch that can be read";
        let file = sources.disk.path().into();
        let loss =
            Loss { file, bytes: None, written: None, reason: reason.into(), hides_keys: true };
        losses.push(loss);
    }
}

/// The loss of batches before one that can be read.
fn gap(sources: &Sources, before: Option<Place>, after: Place, missing: u64) -> Loss {
    let reason = match missing {
        1 => "1 batch cannot be read".to_owned(),
        missing => format!("{missing} batches cannot be read"),
    };
    let same = before.filter(|before| before.log == after.log);
    let bytes = same.map(|before| before.end..after.offset);
    let log = same.or(before).map_or(after.log, |place| place.log);
    let written =
        before.map(|before| (before.anchor.at.to_system_time(), after.anchor.at.to_system_time()));
    let file = sources.disk.path_of(&log_name(log));
    Loss { file, bytes, written, reason, hides_keys: true }
}
