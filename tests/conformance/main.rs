//! The facts about a store's face, held against each backend.
//!
//! A backend joins with a module of its own: implement [`House`], list `facts!`, and, if it keeps
//! its records when the process ends, implement [`Survives`] and list `survival!`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use refrain::Store;
use refrain::backend::{Limits, Table};
use refrain::clock::SimulatedClock;

mod claims;
mod embedded;
mod expiry;
mod flight;
mod handles;
mod kit;
mod limits;
mod listing;
mod replay;
mod survival;
mod toy;

/// A backend's place, and the time that it lives in. Its TTL is a day, and the longest response
/// body that it stores has 64 KiB.
trait House {
    fn new() -> Self;

    /// Opens the store with these limits on operations in flight.
    fn open_within(&self, limits: Limits) -> Store;

    /// Lets time pass for stores that are open, too.
    fn pass_time(&self, by: Duration);

    fn open(&self) -> Store {
        self.open_within(Limits::default())
    }
}

/// A house that a store can be opened in again.
trait Survives: House {
    /// Leaves the house as a kill of the process would at this moment. Stores that are open go on
    /// outside it.
    fn crash(&self);
}

struct OnToy(SimulatedClock);

impl House for OnToy {
    fn new() -> Self {
        Self(SimulatedClock::new())
    }

    fn open_within(&self, limits: Limits) -> Store {
        let table = Table::new(limits);
        let toy = toy::Toy::new(&table, &self.0);
        Store::new(toy)
    }

    fn pass_time(&self, by: Duration) {
        self.0.advance(by);
    }
}

macro_rules! tests {
    ($house:ty: $($area:ident { $($fact:ident)* })*) => {
        $(mod $area {
            $(#[test]
            fn $fact() {
                crate::$area::$fact(&<$house as crate::House>::new());
            })*
        })*
    };
}

macro_rules! facts {
    ($house:ty) => {
        tests! { $house:
            claims {
                p7_a_dropped_durable_permit_leaves_the_key_interrupted
                an_interrupted_key_conflicts_with_another_fingerprint
                an_interrupted_claim_expires_one_ttl_after_its_last_attempt
                a_retry_is_kept_for_the_time_that_it_asks_for
                a_key_in_flight_is_not_forgotten
                a_claim_that_nobody_waits_for_is_taken_back
                volatile_operations_have_no_checkpoints
                p16_what_is_held_shows_its_request_and_never_its_key
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
                a_closed_store_answers_that_it_is_stopped
            }
            limits {
                p14_operations_in_flight_are_bounded
            }
            listing {
                interrupted_runs_are_listed_a_page_at_a_time_in_the_order_of_their_keys
                pages_of_interrupted_runs_go_on_over_scopes
                a_listed_run_says_whose_it_is_and_how_far_it_came
                runs_that_go_on_are_judged_or_have_ended_or_expired_are_not_listed
            }
            replay {
                p6_another_scope_does_not_see_the_record
                p3_a_replay_is_the_response_and_names_its_request
                p4_a_done_key_conflicts_with_another_fingerprint
                a_released_key_runs_again
            }
        }
    };
}

macro_rules! survival {
    ($house:ty) => {
        tests! { $house:
            survival {
                p7_a_retry_is_the_next_attempt_of_the_same_operation
                a_released_claim_is_gone_for_good
                a_completed_claim_is_not_interrupted_after_any_number_of_restarts
                forgetting_ends_an_interrupted_claim
                p7_a_retry_that_nobody_waits_for_leaves_the_key_interrupted
                p7_an_operation_can_be_given_up_as_unknown_without_a_durable_claim
                closing_waits_for_operations_in_flight_and_reports_stragglers
                closing_lets_a_running_operation_complete
                p2_a_completed_operation_is_replayed_after_a_restart
                p14_a_response_over_the_limits_is_recorded_as_done_without_it
                p2_what_was_acknowledged_survives_a_crash
                p7_a_durable_run_is_interrupted_by_a_crash_and_a_volatile_one_runs_again
            }
        }
    };
}

mod on_disk {
    facts!(crate::embedded::OnDisk);
    survival!(crate::embedded::OnDisk);
}

mod in_memory {
    facts!(crate::embedded::InMemory);
}

mod on_a_toy {
    facts!(crate::OnToy);
}
