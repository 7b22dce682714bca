//! A little of what `soak` does for hours: one seed of each way of trying.

use refrain_proof::machine::Fault;
use refrain_proof::reached::{self, State};
use refrain_proof::trial::Failure;
use refrain_proof::{codec, cuts, faults, histories, rot};

/// Fails with what was seen, and how to see it again.
fn hold(outcome: Result<u64, Failure>) -> u64 {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn p2_p12_a_power_cut_anywhere_loses_nothing_acknowledged() {
    assert!(hold(cuts::explore(1)) > 500);
    for state in [State::Segment, State::FrozenLog, State::HalfMade, State::OpenClaim] {
        assert!(reached::count(state) > 10, "{}", reached::line());
    }
    for state in [State::LiveRecord, State::Unanswered, State::Creation] {
        assert!(reached::count(state) > 10, "{}", reached::line());
    }
}

#[test]
fn p10_p11_whichever_operation_fails_nothing_acknowledged_is_lost() {
    for kind in [Fault::Broken, Fault::Full, Fault::Short] {
        for at in (0..100).step_by(7) {
            hold(faults::fail_at(1, kind, at, at % 2 == 0).map(u64::from));
        }
    }
}

#[test]
fn p10_what_only_the_cache_has_after_a_failed_sync_is_not_built_upon() {
    let failed: u64 = (0..60).map(|seed| hold(faults::fail_sync(seed).map(u64::from))).sum();
    assert!(failed > 20, "only {failed} syncs");
}

#[test]
fn every_short_history_with_some_beginnings_is_that_of_the_model() {
    for beginning in (0..histories::beginnings()).step_by(101) {
        hold(histories::short(beginning));
    }
}

#[test]
fn p5_whatever_is_damaged_is_never_taken_for_absent() {
    for seed in 0..4 {
        hold(rot::explore(seed));
    }
}

#[test]
fn p3_p14_a_record_survives_the_codec_exactly_or_is_refused() {
    hold(codec::explore(1));
}
