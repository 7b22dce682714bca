//! P10, P11: every operation of the disk fails, once and for good, in every way that it can.

use std::time::Duration;

use refrain::{Error, Result};

use crate::chance::Chance;
use crate::cuts;
use crate::history::History;
use crate::machine::{Fault, Faults, Reads};
use crate::model::{PATIENCE, TTL, operation};
use crate::platter::{Image, Platter};
use crate::step::{End, Step, steps};
use crate::trial::{self, Failure};

/// Steps of a workload.
const STEPS: usize = 24;
/// The number of times that a store which has stopped is asked, within [`PATIENCE`], before it must
/// say so.
const LOOKS: u32 = 1000;
/// Power cuts after each failure.
const CUTS: usize = 3;

/// Ways in which an operation fails.
const KINDS: [Fault; 4] = [Fault::Broken, Fault::Full, Fault::NoRoom, Fault::Short];
/// About the number of operations of a workload.
const OPERATIONS: usize = 600;

/// Fails one operation of a workload in one of the ways. Returns 1 if the workload came to it.
///
/// # Errors
///
/// Those of [`fail_at`].
pub fn fail_somewhere(seed: u64) -> std::result::Result<u64, Failure> {
    let mut chance = Chance::new(seed);
    let kind = KINDS[chance.below(KINDS.len())];
    let most = if kind == Fault::Broken { OPERATIONS } else { OPERATIONS / 4 };
    let (at, for_good) = (chance.below(most) as u64, chance.one_in(2));
    fail_at(seed, kind, at, for_good).map(u64::from)
}

/// The ways in which all operations of a workload fail in turn: each kind, once and for good.
pub const WAYS: u64 = 8;
const _: () = assert!(WAYS == 2 * KINDS.len() as u64);

/// Fails every operation of a workload in turn, in one of the [`WAYS`]; the seeds of each workload
/// follow each other. Returns the number of failed operations.
///
/// # Errors
///
/// Those of [`fail_at`].
pub fn fail_everywhere(seed: u64) -> std::result::Result<u64, Failure> {
    let (workload, for_good) = (seed / WAYS, seed % 2 == 1);
    let kind = KINDS[usize::try_from(seed % WAYS / 2).expect("there are few ways")];
    let mut at = 0;
    while fail_at(workload, kind, at, for_good)? {
        at += 1;
    }
    Ok(at)
}

/// Runs a workload while its `at`-th operation fails. Returns true if the workload came to it.
///
/// # Errors
///
/// If something was lost or came back, the store did not open, or it went on as if nothing had
/// happened.
pub fn fail_at(
    workload: u64,
    kind: Fault,
    at: u64,
    for_good: bool,
) -> std::result::Result<bool, Failure> {
    let again = || {
        let for_good = if for_good { " --for-good" } else { "" };
        let kind = match kind {
            Fault::NoRoom => "no-room".to_owned(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        format!("faults --seed {workload} --kind {kind} --at {at}{for_good}")
    };
    trial::run(again, || {
        let mut chance = Chance::new(workload);
        let mut history = History::new(chance.draw());
        history.machine().set_faults(Faults::At { kind, at, for_good });
        let mut plan = usual();
        plan.extend(steps(STEPS, &mut chance));
        let lived = match history.open() {
            Ok(()) => go_through(&mut history, plan, kind, for_good)?,
            Err(error) => Err(error),
        };
        if let Err(error) = lived {
            expect(&history, kind, &error)?;
        }
        let failed = history.machine().has_failed();
        if let (Fault::Full, Some(store)) = (kind, history.store()) {
            // A full disk damages nothing.
            store.verify().map_err(|error| format!("it does not verify: {error:?}"))?;
        }
        history.machine().set_faults(Faults::None);
        history.kill();
        recover(&mut history, &mut chance)?;
        Ok(failed)
    })
}

/// Steps that give the background thread a little of all its work.
fn usual() -> Vec<Step> {
    let run = |key, durable, end| {
        let (name, body, ttl) = ((0, key), 0, TTL);
        Step::Begin { name, body, durable, ttl, end }
    };
    vec![
        run(0, false, End::Complete),
        run(1, true, End::Hold),
        Step::Advance { hours: 2 },
        Step::Reap,
        Step::Burst { count: 11 },
        Step::EndAll { first: 0 },
        Step::Reap,
        Step::Advance { hours: 30 },
        Step::Purge,
        run(0, true, End::Complete),
    ]
}

/// Goes through the steps for as long as the store does.
fn go_through(
    history: &mut History,
    steps: Vec<Step>,
    kind: Fault,
    for_good: bool,
) -> std::result::Result<Result<()>, String> {
    for step in steps {
        let Err(error) = history.step(step) else { continue };
        let refused = matches!(
            error,
            Error::Full | Error::Behind | Error::Limit { .. } | Error::Unavailable { .. }
        );
        if !refused && !history.machine().has_failed() {
            return Err(format!("{step:?}: nothing has failed yet, and still: {error:?}"));
        }
        if matches!(error, Error::Stopped { .. }) || history.store().is_none() {
            return Ok(Err(error));
        }
        if refused || for_good || history.machine().must_stop() {
            continue;
        }
        // The fault is past, and what it hid must be there.
        match history.look() {
            Err(error @ Error::Stopped { .. }) => return Ok(Err(error)),
            Err(later) => return Err(format!("{step:?}: {kind:?} was past, and still: {later:?}")),
            Ok(()) => {}
        }
    }
    if history.machine().must_stop() {
        expect_stopped(history)?;
    }
    Ok(Ok(()))
}

/// Expects that a store which does not know what is on its disk takes no work, as soon as its
/// threads have said so.
fn expect_stopped(history: &History) -> std::result::Result<(), String> {
    let Some(store) = history.store() else { return Ok(()) };
    let mut outcome = String::new();
    for _ in 0..LOOKS {
        match store.begin(&operation((7, 7), 0, 0)).wait_timeout(Duration::ZERO) {
            Err(Error::Stopped { .. }) => return Ok(()),
            other => outcome = format!("{other:?}"),
        }
        std::thread::park_timeout(PATIENCE / LOOKS);
    }
    Err(format!("a log or MANIFEST has failed, and still a key gets {outcome}"))
}

/// Expects that an error comes only from the fault, and that nothing goes on after an error that
/// stops the store.
fn expect(history: &History, kind: Fault, error: &Error) -> std::result::Result<(), String> {
    if !history.machine().has_failed() {
        return Err(format!("nothing has failed yet, and still: {error:?}"));
    }
    let Some(store) = history.store() else { return Ok(()) };
    if kind == Fault::Full {
        return Err(format!("a full disk has stopped the store: {error:?}"));
    }
    for name in [(0, 0), (7, 7)] {
        let outcome = store.begin(&operation(name, 0, 0)).wait_timeout(PATIENCE);
        if !matches!(outcome, Err(Error::Stopped { .. })) {
            return Err(format!("it had stopped, and then {name:?} got {outcome:?}"));
        }
    }
    Ok(())
}

/// Expects that a new process finds everything, and so does a process after a power cut.
fn recover(history: &mut History, chance: &mut Chance) -> std::result::Result<(), String> {
    let from = history.machine().events();
    history.open().map_err(|error| format!("it does not open any more: {error:?}"))?;
    history.look().map_err(|error| format!("it cannot be read: {error:?}"))?;
    if let Some(store) = history.store() {
        store.verify().map_err(|error| format!("it does not verify any more: {error:?}"))?;
    }
    cut_after(history, from, chance)?;
    history.kill();
    Ok(())
}

/// Cuts the power somewhere after this many events, the last included.
fn cut_after(
    history: &History,
    from: usize,
    chance: &mut Chance,
) -> std::result::Result<(), String> {
    let trace = history.machine().trace();
    for _ in 0..CUTS {
        let events = from + chance.below(trace.len() + 1 - from);
        let mut platter = Platter::new(&Image::default());
        trace[..events].iter().for_each(|event| platter.take(event));
        let (image, _) = platter.cut(chance);
        let times = history.times().reboot(history.times().at(events), cuts::downtime(chance));
        let expected = history.journal().expected(events);
        cuts::check(&image, &times, &expected, chance)
            .map_err(|what| format!("the power fails after event {events}: {what}"))?;
    }
    Ok(())
}

/// Fails a sync, and ends the process. Another process of the same boot must find what the cache
/// says, and perhaps a sync fails for it in the same way; at last the power is cut. Returns true if
/// the workload came to that sync.
///
/// # Errors
///
/// If something was lost or came back, the store did not open, or it served something that was then
/// gone.
pub fn fail_sync(seed: u64) -> std::result::Result<bool, Failure> {
    trial::run(|| format!("syncs --seed {seed}"), || sync_fails(seed))
}

fn sync_fails(seed: u64) -> std::result::Result<bool, String> {
    let mut chance = Chance::new(seed);
    let mut history = History::new(chance.draw());
    let fails = |at: usize| Faults::At { kind: Fault::Sync, at: at as u64, for_good: false };
    history.machine().set_faults(fails(chance.below(60)));
    let plan = steps(STEPS, &mut chance);
    let lived = match history.open() {
        Ok(()) => go_through(&mut history, plan, Fault::Sync, false)?,
        Err(error) => Err(error),
    };
    if let Err(error) = lived {
        expect(&history, Fault::Sync, &error)?;
    }
    if !history.machine().has_failed() {
        history.kill();
        return Ok(false);
    }
    let reads = [Reads::Cached, Reads::Dropped, Reads::Mixed][chance.below(3)];
    // Half of the time the next process has the same trouble.
    history.kill_and_drop_caches(reads);
    let from = history.machine().events();
    history.machine().set_faults(Faults::None);
    if chance.one_in(2) {
        history.machine().set_faults(fails(chance.below(12)));
    }
    if let Err(error) = history.open().and_then(|()| history.look()) {
        if !history.machine().has_failed() {
            return Err(format!("with reads {reads:?}: {error:?}"));
        }
        history.kill_and_drop_caches(reads);
        history.machine().set_faults(Faults::None);
        let opened = history.open().and_then(|()| history.look());
        opened.map_err(|error| format!("with reads {reads:?}, again: {error:?}"))?;
    }
    let plan = steps(STEPS / 4, &mut chance);
    let lived = go_through(&mut history, plan, Fault::Sync, false)?;
    if let Err(error) = lived {
        expect(&history, Fault::Sync, &error)?;
    }
    cut_after(&history, from, &mut chance)
        .map_err(|what| format!("with reads {reads:?}, {what}"))?;
    history.kill();
    Ok(true)
}
