//! Histories against a model: whatever is asked, in whatever order, over restarts and steps of the
//! clock, a store says what a map would say.

use std::collections::HashMap;

use bytes::Bytes;
use http::Response;
use proptest::prelude::*;

use super::*;
use crate::clock::SimulatedClock;
use crate::disk::MemoryDisk;
use crate::{Attempt, Fingerprint, Outcome, Permit, RequestId};

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// One of two scopes, and one of their two keys.
type Name = (u8, u8);

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Complete,
    CompleteWithoutResponse,
    Release,
    Drop,
    Interrupt,
    /// It goes on, until another step ends it or the process dies.
    Hold,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin {
        name: Name,
        body: u8,
        durable: bool,
        end: End,
    },
    EndHeld {
        which: u8,
        end: End,
    },
    Checkpoint {
        which: u8,
    },
    /// Judges an interrupted attempt; if there is none, it is a look.
    Resume {
        name: Name,
        body: u8,
        judgement: Judgement,
    },
    Forget {
        name: Name,
    },
    Advance {
        hours: u8,
    },
    Wall {
        hours: i8,
    },
    Reap,
    Restart {
        cleanly: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Judgement {
    Leave,
    Complete,
    Release,
    Retry(End),
}

/// What is known of a key.
#[derive(Debug, Clone)]
enum Known {
    Done { body: u8, request: u32, kept: bool, expires: Duration },
    Interrupted { body: u8, request: u32, attempt: u32, checkpoints: usize, expires: Duration },
}

/// A run that has not ended.
struct Held {
    name: Name,
    permit: Permit,
    body: u8,
    request: u32,
    /// When its durable claim expires, if it has one.
    claim: Option<Duration>,
}

struct Machine {
    disk: Arc<MemoryDisk>,
    clock: SimulatedClock,
    store: Store,
    now: Duration,
    requests: u32,
    known: HashMap<Name, Known>,
    held: Vec<Held>,
}

fn request_id(request: u32) -> RequestId {
    format!("req-{request}").parse().unwrap()
}

fn address(name: Name) -> (Scope, Key) {
    (Scope::new([name.0]), format!("key-{}", name.1).parse().unwrap())
}

fn response(body: u8, request: u32) -> Response<Bytes> {
    Response::new(Bytes::from(format!("{body} by {request}")))
}

impl Machine {
    fn new() -> Self {
        let (disk, clock) = (Arc::<MemoryDisk>::default(), SimulatedClock::new());
        let store = Self::open(&disk, &clock);
        let (known, held) = (HashMap::new(), Vec::new());
        Self { disk, clock, store, now: Duration::ZERO, requests: 0, known, held }
    }

    fn open(disk: &Arc<MemoryDisk>, clock: &SimulatedClock) -> Store {
        let builder = Store::builder().ttl(TTL).log_bytes(1024 * 1024).clock(clock.clone());
        builder.open_on(Arc::clone(disk) as Arc<dyn Disk>).unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin { name, body, durable, end } => self.begin(name, body, durable, end),
            Step::EndHeld { which, end } => {
                if let Some(which) = usize::from(which).checked_rem(self.held.len()) {
                    let held = self.held.swap_remove(which);
                    self.end(held, end);
                }
            }
            Step::Checkpoint { which } => self.checkpoint(which),
            Step::Resume { name, body, judgement } => self.resume(name, body, judgement),
            Step::Forget { name } => self.forget(name),
            Step::Advance { hours } => {
                self.clock.advance(HOUR * u32::from(hours));
                self.now += HOUR * u32::from(hours);
            }
            Step::Wall { hours } => {
                // Years after the epoch, so that it may go back.
                let wall = HOUR * 24 * 365 * 50 + self.now;
                let step = HOUR * u32::from(hours.unsigned_abs());
                self.clock.set_wall(if hours < 0 { wall - step } else { wall + step });
            }
            Step::Reap => self.store.reap().unwrap(),
            Step::Restart { cleanly } => self.restart(cleanly),
        }
        self.check_absent_and_done();
    }

    /// Asks for a key, and holds the answer against what is known.
    fn ask(&mut self, name: Name, body: u8, durable: bool) -> Option<Asked> {
        self.requests += 1;
        let request = self.requests;
        let (scope, key) = address(name);
        let mut operation =
            Operation::new(scope, key, Fingerprint::of([[body]])).request_id(request_id(request));
        operation.durable = durable;
        let outcome = self.store.begin(&operation).wait_timeout(Duration::ZERO).unwrap();
        if let Some(held) = self.held.iter().find(|held| held.name == name) {
            let expected = request_id(held.request);
            assert!(matches!(&outcome, Outcome::InFlight { holder } if *holder == expected));
            return None;
        }
        match (self.live(name), outcome) {
            (None, Outcome::Execute(permit)) => {
                assert_eq!((permit.attempt(), permit.checkpoints().len()), (1, 0));
                let claim = durable.then(|| self.now + TTL);
                Some(Asked::Run(Held { name, permit, body, request, claim }))
            }
            (Some(Known::Done { body: used, request: original, kept, .. }), outcome) => {
                self.check_done(&outcome, used == body, (used, original, kept));
                None
            }
            (
                Some(Known::Interrupted {
                    body: used,
                    request: original,
                    attempt,
                    checkpoints,
                    ..
                }),
                outcome,
            ) => match outcome {
                Outcome::Interrupted(found) if used == body => {
                    assert_eq!(*found.request_id(), request_id(original));
                    assert_eq!((found.number(), found.checkpoints().len()), (attempt, checkpoints));
                    Some(Asked::Interrupted(found, request))
                }
                Outcome::Conflict { original: named } if used != body => {
                    assert_eq!(named, request_id(original));
                    None
                }
                other => panic!("{name:?} is interrupted, and begin says {other:?}"),
            },
            (known, outcome) => panic!("{name:?} is {known:?}, and begin says {outcome:?}"),
        }
    }

    fn check_done(&self, outcome: &Outcome, same: bool, (body, request, kept): (u8, u32, bool)) {
        match outcome {
            Outcome::Replay(record) if same => {
                assert_eq!(*record.request_id(), request_id(request));
                let expected = kept.then(|| response(body, request).into_body());
                assert_eq!(record.response().map(|response| response.body().clone()), expected);
            }
            Outcome::Conflict { original } if !same => assert_eq!(*original, request_id(request)),
            other => panic!("it was done, and begin says {other:?}"),
        }
    }

    fn begin(&mut self, name: Name, body: u8, durable: bool, end: End) {
        if let Some(Asked::Run(held)) = self.ask(name, body, durable) {
            self.known.remove(&name);
            self.end(held, end);
        }
    }

    fn end(&mut self, held: Held, end: End) {
        let Held { name, permit, body, request, claim } = held;
        let attempt = permit.attempt();
        let checkpoints = permit.checkpoints().len();
        let interrupted =
            |expires| Known::Interrupted { body, request, attempt, checkpoints, expires };
        let known = match end {
            End::Hold => return self.held.push(Held { name, permit, body, request, claim }),
            End::Complete => {
                permit.complete(&response(body, request)).wait().unwrap();
                Some(Known::Done { body, request, kept: true, expires: self.now + TTL })
            }
            End::CompleteWithoutResponse => {
                permit.complete_without_response().wait().unwrap();
                Some(Known::Done { body, request, kept: false, expires: self.now + TTL })
            }
            End::Release => {
                permit.release().wait().unwrap();
                None
            }
            End::Drop => {
                drop(permit);
                claim.map(interrupted)
            }
            End::Interrupt => {
                permit.interrupt().wait().unwrap();
                Some(interrupted(claim.unwrap_or(self.now + TTL)))
            }
        };
        self.set(name, known);
    }

    fn checkpoint(&mut self, which: u8) {
        let Some(which) = usize::from(which).checked_rem(self.held.len()) else { return };
        let Held { permit, claim, .. } = &mut self.held[which];
        // One that has expired may be forgotten already, and then nothing hands them back.
        if claim.is_some_and(|expires| expires > self.now) {
            permit.checkpoint("x").wait().unwrap();
        }
    }

    fn resume(&mut self, name: Name, body: u8, judgement: Judgement) {
        let (attempt, request) = match self.ask(name, body, false) {
            Some(Asked::Interrupted(attempt, request)) => (attempt, request),
            Some(Asked::Run(held)) => return drop(held),
            None => return,
        };
        let original = self.known[&name].clone();
        let Known::Interrupted { request: first, .. } = original else { unreachable!() };
        let known = match judgement {
            Judgement::Leave => Some(original),
            Judgement::Release => {
                attempt.release().wait().unwrap();
                None
            }
            Judgement::Complete => {
                attempt.complete(&response(body, first)).wait().unwrap();
                Some(Known::Done { body, request: first, kept: true, expires: self.now + TTL })
            }
            Judgement::Retry(end) => {
                let permit = attempt.retry().wait().unwrap();
                let claim = Some(self.now + TTL);
                self.known.remove(&name);
                return self.end(Held { name, permit, body, request, claim }, end);
            }
        };
        self.set(name, known);
    }

    fn forget(&mut self, name: Name) {
        let (scope, key) = address(name);
        let forgotten = self.store.forget(scope, &key).wait();
        if self.held.iter().any(|held| held.name == name) {
            assert!(matches!(forgotten, Err(Error::InFlight { .. })));
        } else {
            forgotten.unwrap();
            self.known.remove(&name);
        }
    }

    /// What was claimed durably is interrupted, and what was claimed in memory never was.
    fn restart(&mut self, cleanly: bool) {
        if cleanly {
            let stragglers = self.store.close(Duration::ZERO).unwrap();
            assert_eq!(stragglers, self.held.len());
        }
        let held = std::mem::take(&mut self.held);
        for Held { name, permit, body, request, claim } in &held {
            let (attempt, checkpoints) = (permit.attempt(), permit.checkpoints().len());
            let known = claim.map(|expires| Known::Interrupted {
                body: *body,
                request: *request,
                attempt,
                checkpoints,
                expires,
            });
            self.set(*name, known);
        }
        // The old process is gone before a new one opens the directory, and ends nothing.
        let unopened = SimulatedClock::new();
        let empty = Self::open(&Arc::default(), &unopened);
        drop(std::mem::replace(&mut self.store, empty));
        self.store = Self::open(&self.disk, &self.clock);
        drop(held);
    }

    fn set(&mut self, name: Name, known: Option<Known>) {
        match known {
            Some(known) => drop(self.known.insert(name, known)),
            None => drop(self.known.remove(&name)),
        }
    }

    fn live(&self, name: Name) -> Option<Known> {
        self.known.get(&name).cloned().filter(|known| {
            let (Known::Done { expires, .. } | Known::Interrupted { expires, .. }) = known;
            *expires > self.now
        })
    }

    /// No key has a record but those that should.
    fn check_absent_and_done(&self) {
        for name in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (scope, key) = address(name);
            let record = self.store.get(scope, &key).unwrap();
            let expected = match self.live(name) {
                Some(Known::Done { request, .. }) => Some(request_id(request)),
                _ => None,
            };
            assert_eq!(record.map(|record| record.request_id().clone()), expected, "{name:?}");
        }
    }
}

enum Asked {
    Run(Held),
    Interrupted(Attempt, u32),
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Complete),
        1 => Just(End::CompleteWithoutResponse),
        1 => Just(End::Release),
        2 => Just(End::Drop),
        1 => Just(End::Interrupt),
        3 => Just(End::Hold),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let name = || (0..2_u8, 0..2_u8);
    let judgement = prop_oneof![
        Just(Judgement::Leave),
        Just(Judgement::Complete),
        Just(Judgement::Release),
        end().prop_map(Judgement::Retry),
    ];
    prop_oneof![
        12 => (name(), 0..2_u8, any::<bool>(), end())
            .prop_map(|(name, body, durable, end)| Step::Begin { name, body, durable, end }),
        4 => (any::<u8>(), end()).prop_map(|(which, end)| Step::EndHeld { which, end }),
        2 => any::<u8>().prop_map(|which| Step::Checkpoint { which }),
        6 => (name(), 0..2_u8, judgement)
            .prop_map(|(name, body, judgement)| Step::Resume { name, body, judgement }),
        2 => name().prop_map(|name| Step::Forget { name }),
        3 => (1..30_u8).prop_map(|hours| Step::Advance { hours }),
        1 => (-48..48_i8).prop_map(|hours| Step::Wall { hours }),
        2 => Just(Step::Reap),
        2 => any::<bool>().prop_map(|cleanly| Step::Restart { cleanly }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_history_is_that_of_the_model(steps in prop::collection::vec(step(), 1..100)) {
        let mut machine = Machine::new();
        for step in steps {
            machine.step(step);
        }
    }
}

/// All histories of up to three steps, and all of four that begin with the first key: the others are
/// those with the names exchanged.
#[test]
fn every_short_history_is_that_of_the_model() {
    let names = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let mut alphabet = vec![Step::Advance { hours: 25 }, Step::Restart { cleanly: false }];
    for name in names {
        let begin = |body, durable, end| Step::Begin { name, body, durable, end };
        alphabet.extend([
            begin(0, false, End::Complete),
            begin(1, true, End::Drop),
            begin(0, true, End::Hold),
            Step::Resume { name, body: 1, judgement: Judgement::Retry(End::Complete) },
            Step::Forget { name },
        ]);
    }
    let first = |step: &Step| match step {
        Step::Begin { name, .. } | Step::Resume { name, .. } | Step::Forget { name } => {
            *name == (0, 0)
        }
        _ => false,
    };
    let mut histories = 0;
    for one in alphabet.iter().filter(|step| first(step)) {
        for two in &alphabet {
            for three in &alphabet {
                let mut machine = Machine::new();
                for step in [one, two, three] {
                    machine.step(*step);
                }
                // Of the fourth step, which changes the machine, those that only look come first.
                for name in names {
                    drop(machine.ask(name, 0, false));
                }
                histories += 1;
            }
        }
    }
    assert!(histories > 2000, "only {histories}");
}
