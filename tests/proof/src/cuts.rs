//! P2, P12: power cuts, at every place of a history, and again while the store recovers.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use refrain::{Error, Store};

use crate::chance::Chance;
use crate::history::{History, TRUSTED, open};
use crate::journal::{Expected, Found, Times, find};
use crate::machine::{Limits, Machine};
use crate::model::Known;
use crate::platter::{Event, Image, Platter};
use crate::reached::{self, State};
use crate::step::steps;
use crate::trial::{self, Failure};

/// Steps between two cuts that a history goes on from.
const STEPS: usize = 40;
/// Cuts that a history goes on from.
const BOOTS: usize = 3;
/// The time that a machine is off after most cuts.
const DOWNTIME: Duration = Duration::from_secs(60);
/// The times that a machine is off after the other cuts.
const LONG: [Duration; 2] =
    [Duration::from_secs(3 * 24 * 60 * 60), Duration::from_secs(10 * 24 * 60 * 60)];
/// The bytes that are free where a disk is nearly full: those that a store leaves for its openings, and
/// less than a log of the usual size needs beside them.
const LITTLE: Range<usize> = 192 * 1024..224 * 1024;
/// Images of each moment at which the power is cut; equal images are left out.
const IMAGES: usize = 4;

/// Lives through a history, and cuts the power at every moment of it. Returns the number of images
/// that were opened and compared with what had been acknowledged.
///
/// # Errors
///
/// If something was lost or came back, or a store did not open.
pub fn explore(seed: u64) -> Result<u64, Failure> {
    trial::run(|| format!("cuts --seed {seed}"), || history(seed))
}

fn history(seed: u64) -> Result<u64, String> {
    let mut chance = Chance::new(seed);
    let mut images = 0;
    let mut image = Image::default();
    let mut history = History::new(chance.draw());
    for _ in 0..BOOTS {
        live(&mut history, &mut chance)?;
        let trace = history.machine().trace();
        let life = Life { history: &history, image: &image, trace: &trace };
        let (next, times, found) = life.cut_everywhere(&mut chance, &mut images)?;
        let machine = Machine::new(&next, chance.draw());
        history.kill();
        history = History::begin(machine, times, found);
        image = next;
    }
    Ok(images)
}

/// Goes on with a history for some steps. Its disk does not fail, so nothing may.
fn live(history: &mut History, chance: &mut Chance) -> Result<(), String> {
    let failed = |error: Error| format!("on a sound disk: {error:?}");
    history.open().map_err(failed)?;
    history.look().map_err(|error| format!("it cannot be read: {error:?}"))?;
    for step in steps(STEPS, chance) {
        history.step_on_a_sound_disk(step)?;
    }
    Ok(())
}

/// The time that the machine is off.
pub fn downtime(chance: &mut Chance) -> Duration {
    if chance.one_in(10) { LONG[chance.below(LONG.len())] } else { DOWNTIME }
}

/// The image that a cut has left, the times once the machine is back, and what is found then.
type After = (Image, Times, Found);

/// All that happened on one machine.
struct Life<'a> {
    history: &'a History,
    /// The disk's content at the start.
    image: &'a Image,
    trace: &'a [Event],
}

impl Life<'_> {
    /// Cuts after every event, and returns what one of the cuts left.
    fn cut_everywhere(&self, chance: &mut Chance, images: &mut u64) -> Result<After, String> {
        let trace = self.trace;
        let mut platter = Platter::new(self.image);
        let chosen = chance.below(trace.len() + 1);
        let mut after = None;
        for events in 0..=trace.len() {
            if let Some(event) = events.checked_sub(1).and_then(|last| trace.get(last)) {
                platter.take(event);
            }
            let times = self.history.times();
            let times = times.reboot(times.at(events), downtime(chance));
            let expected = self.history.journal().expected(events);
            let mut seen = HashSet::new();
            for _ in 0..IMAGES {
                let (image, fingerprint) = platter.cut(chance);
                if !seen.insert(fingerprint) {
                    continue;
                }
                let (found, checked) = check(&image, &times, &expected, chance)
                    .map_err(|what| format!("cut after event {events}: {what}"))?;
                *images += checked;
                if chance.one_in(10) {
                    self.jump(&image, events, chance)
                        .map_err(|what| format!("cut after event {events}, clock ahead: {what}"))?;
                    *images += 1;
                }
                if events == chosen {
                    after = Some((image, times.clone(), found));
                }
            }
        }
        after.ok_or_else(|| "no image of the chosen moment".to_owned())
    }
}

impl Life<'_> {
    /// Opens an image that the cut after `events` has left, under a wall clock that is so far ahead
    /// that it is not believed. Whatever was live at the cut must be live.
    fn jump(&self, image: &Image, events: usize, chance: &mut Chance) -> Result<(), String> {
        let cut = self.history.times().at(events);
        let times = self.history.times().reboot(cut, TRUSTED * 2);
        let clock = times.clock_at(times.now);
        let store = open(Machine::new(image, chance.draw()).start(), clock)
            .map_err(|error| format!("it does not open: {error:?}"))?;
        let expected = self.history.journal().expected_live(events, cut + DOWNTIME);
        find(&store, &expected, cut).map_err(|miss| miss.to_string())?;
        store.reap().map_err(|error| format!("it cannot reap: {error:?}"))?;
        find(&store, &expected, cut).map(drop).map_err(|miss| format!("once reaped: {miss}"))
    }
}

/// Opens an image that a cut has left, and sometimes cuts the power again during the opening.
/// Returns what was found, and the number of images.
///
/// # Errors
///
/// If something was lost or came back, or the store did not open.
pub fn check(
    image: &Image,
    times: &Times,
    expected: &Expected,
    chance: &mut Chance,
) -> Result<(Found, u64), String> {
    let (machine, served, found) = recover(image, times, expected, chance)?;
    let mut images = 1;
    if chance.one_in(3) {
        let trace = machine.trace();
        // Most cuts fall into the opening, where the store has promised most and written least.
        let events = if chance.one_in(4) { trace.len() } else { served };
        let again = chance.below(events + 1);
        let mut platter = Platter::new(image);
        trace[..again].iter().for_each(|event| platter.take(event));
        let (image, _) = platter.cut(chance);
        // What was served must not be gone.
        let seen: Expected =
            found.iter().map(|(name, known)| (*name, vec![known.clone()])).collect();
        let expected = if again >= served { &seen } else { expected };
        recover(&image, &times.reboot(times.now, DOWNTIME), expected, chance)
            .map_err(|what| format!("and after event {again} of recovery: {what}"))?;
        images += 1;
    }
    Ok((found, images))
}

/// Leaves so little of a disk free that no log of the usual size can be made.
pub fn leave_little(machine: &Machine, chance: &mut Chance) {
    machine.leave_free((LITTLE.start + chance.below(LITTLE.len())) as u64);
}

type Recovered = (Machine, usize, Found);

fn recover(
    image: &Image,
    times: &Times,
    expected: &Expected,
    chance: &mut Chance,
) -> Result<Recovered, String> {
    let machine = Machine::new(image, chance.draw());
    let is_nearly_full = chance.one_in(4);
    if is_nearly_full {
        leave_little(&machine, chance);
    }
    let store = open(machine.start(), times.clock_at(times.now))
        .map_err(|error| format!("it does not open: {error:?}"))?;
    reached::note(State::NearlyFull, is_nearly_full);
    // From here on whatever it says is believed.
    let served = machine.events();
    if is_nearly_full {
        // Room for the keys that are asked for.
        machine.set_limits(Limits::default());
        store.reap().map_err(|error| format!("it cannot reap: {error:?}"))?;
    }
    let on = if is_nearly_full { " on a disk that is nearly full" } else { "" };
    let found = find(&store, expected, times.now).map_err(|miss| format!("{miss}{on}"))?;
    note_reached(image, &store, expected, &found, times);
    if chance.one_in(8) {
        store.verify().map_err(|error| format!("it does not verify: {error:?}"))?;
    }
    Ok((machine, served, found))
}

fn note_reached(image: &Image, store: &Store, expected: &Expected, found: &Found, times: &Times) {
    let stats = store.stats();
    let is_live =
        |known: &Known| matches!(known, Known::Done { .. }) && known.expires() > times.now;
    reached::note(State::Image, true);
    reached::note(State::Segment, stats.segments > 0);
    // The active one, and the one that the cut left.
    reached::note(State::FrozenLog, stats.logs > 2);
    reached::note(State::HalfMade, image.0.keys().any(|name| name.ends_with(".tmp")));
    reached::note(State::OpenClaim, stats.open_claims > 0);
    reached::note(
        State::LiveRecord,
        found.iter().any(|(_, known)| known.as_ref().is_some_and(is_live)),
    );
    reached::note(State::Unanswered, expected.iter().any(|(_, states)| states.len() > 1));
    reached::note(State::Creation, !image.0.contains_key("MANIFEST"));
}
