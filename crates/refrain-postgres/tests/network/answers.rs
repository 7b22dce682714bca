//! Answers that are lost or late, one for each statement that a call repeats.

use std::time::Duration;

use refrain::{Error, Outcome, Store};

use crate::kit::proxy::Proxy;
use crate::kit::room::{Room, execute, operation};
use crate::kit::server::{Server, address, runtime};

/// A store behind a network of its own.
fn behind(network: &Proxy, room: &Room, patience: Duration) -> Store {
    let builder = room.builder().node("behind").patience(patience);
    runtime().block_on(builder.connect(&address(network.port))).unwrap()
}

/// The second checkpoint was answered with `Fenced`, though the claim was this node's all the time.
#[test]
fn a_checkpoint_is_stored_though_the_one_before_has_not_arrived() {
    let room = Room::new();
    let network = Proxy::to(Server::shared().port);
    let store = behind(&network, &room, Duration::from_millis(300));
    let asked = operation("checkpoints").durable();
    let mut permit = execute(&store, &asked);
    network.stall();
    let lost = permit.checkpoint("first").wait();
    assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
    network.cut();
    network.mend();
    permit.checkpoint("second").wait().unwrap();
    drop(permit);
    let Outcome::Interrupted(attempt) = room.open("other").begin(&asked).wait().unwrap() else {
        panic!("the run was interrupted");
    };
    assert_eq!(attempt.checkpoints(), ["first", "second"]);
}
