//! P7: durable claims say when nobody knows what happened.

use crate::kit::*;

#[test]
fn p7_a_claim_outlives_restarts_rotation_and_sealing() {
    let home = Home::new();
    let store = home.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("one").wait().unwrap();
    let downstream = permit.downstream_key("carrier").unwrap();
    assert_ne!(downstream, permit.downstream_key("other").unwrap());
    drop(permit);
    for round in 0..5 {
        run(&store, &format!("other-{round}"));
        seal(&store, &home);
    }
    drop(store);
    for _ in 0..3 {
        let store = home.open();
        let attempt = interrupted(&store, &durable("a"));
        assert_eq!(attempt.checkpoints(), ["one"]);
        assert_eq!(attempt.downstream_key("carrier"), downstream);
    }
}
