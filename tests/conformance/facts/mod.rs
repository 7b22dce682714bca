//! The facts about a store's face, to be held against each backend.
//!
//! A backend joins by a [`House`] and one `suite!` in a module of that backend's name. The suite
//! asks for each capability: `yes`, or the reason why it is missing. The facts of a missing one are
//! shown as ignored, with that reason. A crate beside this one mounts the facts in its root:
//!
//! ```text
//! #[path = "../../../tests/conformance/facts/mod.rs"]
//! mod facts;
//! ```

#![allow(dead_code, reason = "a crate whose houses all lack a capability has no use for its facts")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::backend::Limits;
use refrain::{Operation, Store};

pub(crate) mod bounds;
pub(crate) mod claims;
pub(crate) mod closing;
pub(crate) mod expiry;
pub(crate) mod flight;
pub(crate) mod handles;
pub(crate) mod kit;
pub(crate) mod limits;
pub(crate) mod listing;
pub(crate) mod replay;
pub(crate) mod shared;
pub(crate) mod survival;

/// The limits of a store that no fact fills. Small logs have room for them.
pub(crate) const FEW: Limits = Limits { in_flight: 64, per_scope: 64, waiters: 64 };

/// A backend's place, and the time that it lives in. Its TTL is a day, and the longest response
/// body that it stores has 64 KiB.
pub(crate) trait House {
    fn new() -> Self;

    /// Opens the store with these limits on operations in flight.
    fn open_within(&self, limits: Limits) -> Store;

    /// Lets time pass for stores that are open, too.
    fn pass_time(&self, by: Duration);

    /// The shortest time that this house can tell from none.
    fn grain(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn open(&self) -> Store {
        self.open_within(FEW)
    }
}

/// A house that a store can be opened in again.
pub(crate) trait Survives: House {
    /// Leaves the house as a kill of the process would at this moment. Stores that are open go on
    /// outside it.
    fn crash(&self);
}

/// A house that limits durable claims.
pub(crate) trait Bounded: House {
    /// Opens the store for so many durable claims without a verdict, and so many of one scope.
    fn open_for_claims(&self, max: usize, max_per_scope: usize) -> Store;
}

/// A house whose records other nodes share, over a network.
pub(crate) trait Shared: House {
    /// Another node claims the key of this operation, and runs.
    fn run_elsewhere(&self, operation: &Operation);

    /// The other node completes what it runs.
    fn complete_elsewhere(&self, operation: &Operation, response: &Response<Bytes>);

    /// Cuts this house off for so long that another node takes over the claim of one of its
    /// permits, and completes the operation. The house is back as far as that permit can tell; for
    /// all else, [`reconnect`](Self::reconnect) the house.
    fn take_over(&self, operation: &Operation, response: &Response<Bytes>);

    /// Cuts the stores of this house off from their records.
    fn cut_off(&self);

    fn reconnect(&self);
}

/// The longest time that a fact may take. A backend that loses a key or a promise would hang.
const WITHIN: Duration = Duration::from_secs(120);

/// Runs a fact, and fails if it does not end.
pub(crate) fn in_time(fact: fn()) {
    let (running, ended) = mpsc::channel::<()>();
    let run = move || {
        fact();
        drop(running);
    };
    let thread = thread::Builder::new().spawn(run).unwrap();
    if ended.recv_timeout(WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the fact does not end within {WITHIN:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes a test of each fact: `yes`, or ignored for a reason.
macro_rules! tests {
    ($house:ty, yes: $($area:ident { $($fact:ident)* })*) => {
        $(mod $area {
            $(#[test]
            fn $fact() {
                crate::facts::in_time(|| {
                    crate::facts::$area::$fact(&<$house as crate::facts::House>::new());
                });
            })*
        })*
    };
    ($house:ty, $reason:literal: $($area:ident { $($fact:ident)* })*) => {
        $(mod $area {
            $(#[test]
            #[ignore = $reason]
            fn $fact() {
                panic!("does not apply: {}", $reason);
            })*
        })*
    };
}
pub(crate) use tests;

/// Makes a test of each fact for a house; see the head of this module.
macro_rules! suite {
    ($house:ty, survives: $survives:tt, bounded: $bounded:tt, shared: $shared:tt $(,)?) => {
        crate::facts::tests! { $house, yes:
            claims {
                p7_a_dropped_durable_permit_leaves_the_key_interrupted
                an_interrupted_key_conflicts_with_another_fingerprint
                an_interrupted_claim_expires_one_ttl_after_its_last_attempt
                a_checkpoint_does_not_keep_a_claim_for_longer
                a_retry_is_kept_for_the_time_that_it_asks_for
                a_key_in_flight_is_not_forgotten
                p15_a_claim_that_nobody_waits_for_is_taken_back
                volatile_operations_have_no_checkpoints
                p16_what_is_held_shows_its_request_and_never_its_key
            }
            closing {
                a_closed_store_answers_that_it_is_stopped
                closing_lets_a_running_operation_complete
            }
            expiry {
                p9_a_record_is_replayed_until_its_ttl_is_over_and_not_later
                p9_the_ttl_counts_from_the_commit_and_not_from_the_claim
                an_operation_may_expire_earlier_than_the_store
                an_operation_that_asks_for_more_than_the_stores_ttl_is_refused
            }
            flight {
                p1_p8_a_thousand_concurrent_requests_run_once_and_all_get_the_answer
                p8_a_wait_ends_by_its_deadline_with_the_holders_name
                p15_a_dropped_permit_hands_the_key_to_the_next_in_line
                p15_a_panic_frees_a_volatile_key
                p15_a_dropped_ticket_does_not_undo_the_commit
            }
            handles {
                a_permit_stays_whole_if_its_claim_is_asked_for_as_another_backends
                an_abandoned_volatile_key_stays_in_flight
                an_abandoned_durable_key_is_interrupted
                a_forgotten_key_runs_again
            }
            limits {
                p14_operations_in_flight_are_bounded
                p14_a_replay_is_answered_however_much_is_in_flight
                p14_checkpoints_are_bounded
                p14_a_response_over_the_limits_is_recorded_as_done_without_it
                p14_the_longest_response_is_replayed
            }
            listing {
                interrupted_runs_are_listed_a_page_at_a_time_in_the_order_of_their_keys
                pages_of_interrupted_runs_go_on_over_scopes
                a_listed_run_says_whose_it_is_and_how_far_it_came
                runs_that_go_on_are_judged_or_have_ended_or_expired_are_not_listed
                keys_in_flight_are_listed_the_oldest_first_until_their_verdicts_are_durable
                a_key_that_is_handed_on_is_listed_under_its_new_holders_name
                a_key_whose_outcome_nobody_knows_is_listed_as_retained
            }
            replay {
                p6_another_scope_does_not_see_the_record
                p3_a_replay_is_the_response_and_names_its_request
                p3_a_record_has_its_response_and_none_of_its_other_extensions
                p4_a_done_key_conflicts_with_another_fingerprint
                a_released_key_runs_again
            }
        }
        crate::facts::tests! { $house, $survives:
            survival {
                p7_a_retry_is_the_next_attempt_of_the_same_operation
                a_released_claim_is_gone_for_good
                a_completed_claim_is_not_interrupted_after_any_number_of_restarts
                forgetting_ends_an_interrupted_claim
                p7_p15_a_retry_that_nobody_waits_for_leaves_the_key_interrupted
                p7_an_operation_can_be_given_up_as_unknown_without_a_durable_claim
                what_was_not_recorded_before_closing_is_not_there
                what_was_recorded_while_closing_is_replayed
                p2_a_completed_operation_is_replayed_after_a_restart
                p14_what_was_done_without_its_response_is_so_after_a_restart
                p2_what_was_acknowledged_survives_a_crash
                p7_a_durable_run_is_interrupted_by_a_crash_and_a_volatile_one_runs_again
            }
        }
        crate::facts::tests! { $house, $bounded:
            bounds {
                p14_open_claims_are_bounded_and_a_refusal_leaves_nothing
                p14_open_claims_of_one_scope_are_bounded
                p14_an_operation_is_not_begun_if_its_unknown_outcome_could_not_be_kept
            }
        }
        crate::facts::tests! { $house, $shared:
            shared {
                p17_a_claim_that_another_node_took_over_records_nothing
                p17_a_claim_that_another_node_took_over_releases_nothing
                p8_a_wait_for_another_node_ends_by_its_deadline_with_the_holders_name
                p8_all_who_wait_for_another_node_get_its_answer
                a_key_in_flight_on_another_node_is_listed_under_its_holders_name
                a_store_that_is_cut_off_claims_nothing_and_says_so
                p1_a_key_whose_verdict_did_not_arrive_stays_claimed
            }
        }
    };
}
pub(crate) use suite;
