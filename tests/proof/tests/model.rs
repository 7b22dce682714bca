//! Whatever is asked, in whatever order, over restarts and steps of the clock, a store says what a
//! map would say.

use proptest::prelude::*;
use refrain_proof::histories;
use refrain_proof::step::step;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_history_is_that_of_the_model(steps in prop::collection::vec(step(), 1..100)) {
        histories::live(&steps).map_err(TestCaseError::fail)?;
    }
}
