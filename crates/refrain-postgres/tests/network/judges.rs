//! When a node may say that another's lease is over.

use std::time::Duration;

use refrain::Outcome;

use crate::kit::room::{Room, address, execute, operation, until};
use crate::kit::server::runtime;

/// A node that had stood still for longer than a lease took over what others held who had stood still
/// with it: its lease was renewed, and it did not know yet that there had been a gap.
#[test]
fn p17_a_node_whose_lease_was_renewed_without_its_knowledge_judges_nobody() {
    let room = Room::new();
    let dead = room.builder().node("dead").lease(Duration::from_secs(3600));
    let dead = runtime().block_on(dead.connect(&address())).unwrap();
    let _held = [execute(&dead, &operation("first")), execute(&dead, &operation("second"))];
    let judge = room.builder().node("judge").lease(Duration::from_millis(300));
    let judge = runtime().block_on(judge.connect(&address())).unwrap();
    let takes = |name: &str| {
        let mut begun = judge.begin(&operation(name));
        begun.give_up();
        matches!(begun.wait(), Ok(Outcome::Execute(_)))
    };
    room.run("UPDATE SCHEMA.session SET lease_until = clock_timestamp() WHERE node = 'dead'");
    until("the judge has been up for a lease", || takes("first"));

    room.run("UPDATE SCHEMA.session SET dead = false WHERE node = 'dead'");
    room.run(
        "CREATE FUNCTION SCHEMA.longer() RETURNS trigger LANGUAGE plpgsql AS \
         $$BEGIN NEW.lease_until := NEW.lease_until + interval '1 hour'; RETURN NEW; END$$; \
         CREATE TRIGGER longer BEFORE UPDATE ON SCHEMA.session FOR EACH ROW \
         WHEN (NEW.node = 'judge') EXECUTE FUNCTION SCHEMA.longer()",
    );
    let is_longer =
        "SELECT lease_until > now() + interval '1 minute' FROM SCHEMA.session WHERE node = 'judge'";
    until("another has renewed the lease", || room.ask(is_longer));
    assert!(!takes("second"));
    room.run("DROP TRIGGER longer ON SCHEMA.session");
    until("the judge knows its lease again", || takes("second"));
}
