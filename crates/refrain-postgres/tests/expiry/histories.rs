//! Random histories of two nodes over a store with a TTL of seconds: no live record is ever lost,
//! and none comes back.

use std::collections::HashMap;
use std::time::Duration;

use refrain::{Outcome, Record, Store};

use crate::kit::room::{Room, operation, response};
use crate::{TTL, pass_time};

const STEPS: usize = 400;
const KEYS: u64 = 12;
/// Records younger than this are live, whatever a slow machine does between two looks.
const MARGIN: Duration = Duration::from_millis(500);

/// A generator of numbers that a seed repeats.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the history knows of a key: the body of its latest record, and how much time has been
/// passed since it by hand.
struct Known {
    body: String,
    passed: Duration,
    record: Record,
}

#[test]
fn no_live_record_is_ever_lost() {
    let seed = std::env::var("REFRAIN_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    let mut numbers = Numbers(seed);
    let room = Room::with_ttl(TTL);
    let nodes = [room.open("this"), room.open("other")];
    let mut known: HashMap<String, Known> = HashMap::new();
    for step in 0..STEPS {
        let node = &nodes[usize::try_from(numbers.below(2)).unwrap()];
        match numbers.below(10) {
            0 => node.reap().unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}")),
            1 => {
                let by = Duration::from_millis(numbers.below(400));
                pass_time(&room, by);
                for known in known.values_mut() {
                    known.passed += by;
                }
            }
            _ => {
                let name = format!("k{}", numbers.below(KEYS));
                ask(node, &name, &mut known, &format!("seed {seed}, step {step}"));
            }
        }
    }
}

fn ask(node: &Store, name: &str, known: &mut HashMap<String, Known>, at: &str) {
    let before = node_now(node);
    match node.begin(&operation(name)).wait().unwrap() {
        Outcome::Execute(permit) => {
            if let Some(known) = known.get(name) {
                let end = known.record.expires_at() - known.passed;
                assert!(before + MARGIN >= end, "{at}: {name} was live");
            }
            let body = format!("{name} {at}");
            let record = permit.complete(&response(&body)).wait().unwrap();
            known.insert(name.to_owned(), Known { body, passed: Duration::ZERO, record });
        }
        Outcome::Replay(record) => {
            let known = known.get(name).unwrap_or_else(|| panic!("{at}: {name} was never done"));
            assert_eq!(record.response().unwrap().body(), known.body.as_bytes(), "{at}");
            let end = known.record.expires_at() - known.passed;
            assert!(before <= end + MARGIN, "{at}: {name} was over");
        }
        other => panic!("{at}: {other:?}"),
    }
}

/// The time by the machine's clock, which is the database's too.
#[allow(clippy::disallowed_methods, reason = "the database has no other clock")]
fn node_now(_: &Store) -> std::time::SystemTime {
    std::time::SystemTime::now()
}
