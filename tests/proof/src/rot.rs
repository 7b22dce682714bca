//! P5: whatever is damaged, swapped or missing, a store's answer is true, or says that the store
//! cannot tell. What is salvaged of it is true too, and nothing is missing that the report does not
//! announce.

use std::ops::Range;
use std::time::Duration;

use refrain::{Error, Store};

use crate::chance::Chance;
use crate::content::{Content, PAGE};
use crate::cuts;
use crate::history::{History, builder, open};
use crate::journal::{Miss, Times, find};
use crate::machine::{Limits, Machine};
use crate::model::Known;
use crate::platter::Image;
use crate::step::steps;
use crate::trial::{self, Failure};

/// Steps before the damage.
const STEPS: usize = 40;
/// Damages of each store, one at a time.
const HARMS: u64 = 60;

/// Lives through a history, and damages the files that it left. Returns the number of damages.
///
/// # Errors
///
/// If a record was taken for absent, or came out wrong.
pub fn explore(seed: u64) -> Result<u64, Failure> {
    trial::run(|| format!("rot --seed {seed}"), || damage(seed))
}

fn damage(seed: u64) -> Result<u64, String> {
    let mut chance = Chance::new(seed);
    let mut history = History::new(chance.draw());
    let failed = |error: Error| format!("on a sound disk: {error:?}");
    history.open().map_err(failed)?;
    for step in steps(STEPS, &mut chance) {
        history.step_on_a_sound_disk(step)?;
    }
    history.kill();
    let whole = history.machine().image();
    let Some(last_batch) = history.machine().last_batch() else { return Ok(0) };
    match look(&whole, &history, &mut chance)? {
        Seen::Whole => {}
        Seen::Noticed => return Err("nothing is damaged, and it says so".to_owned()),
    }
    match salvage(&whole, &history, &mut chance)? {
        Saved::All => {}
        Saved::Part(report) => return Err(format!("nothing is damaged, and it lost: {report}")),
    }
    let mut harms = 0;
    for _ in 0..HARMS {
        let mut image = whole.clone();
        let Some(harm) = harm(&mut image, &last_batch, &mut chance) else { continue };
        look(&image, &history, &mut chance).map_err(|what| format!("{harm}: {what}"))?;
        salvage(&image, &history, &mut chance)
            .map_err(|what| format!("{harm}, salvaged: {what}"))?;
        harms += 1;
    }
    Ok(harms)
}

/// The condition of a store after damage.
enum Seen {
    /// The store is as it was, and says so.
    Whole,
    /// The store says that something is wrong.
    Noticed,
}

/// To any rule, rot in the newest log's last batch looks like a torn write.
type LastBatch = (String, Range<usize>);

/// Damages an image in one way, and returns a description of it; `None` if the image would be the
/// same.
fn harm(image: &mut Image, last_batch: &LastBatch, chance: &mut Chance) -> Option<String> {
    let names: Vec<String> = image.0.keys().cloned().collect();
    let any = |chance: &mut Chance| names[chance.below(names.len())].clone();
    let (name, other) = (any(chance), any(chance));
    match chance.below(6) {
        0 => {
            image.0.remove(&name);
            Some(format!("without {name}"))
        }
        1 if name != other => {
            let (a, b) = (image.0[&name].clone(), image.0[&other].clone());
            image.0.extend([(name.clone(), b), (other.clone(), a)]);
            Some(format!("{name} and {other} swapped"))
        }
        2 => {
            let content = image.0.get_mut(&name).expect("it is one of them");
            let len = content.len() * chance.below(8) as u64 / 8;
            content.set_len(len);
            Some(format!("{name} cut to {len}"))
        }
        3 => splice(image, &name, &other, last_batch, chance),
        _ => flip(image, &name, last_batch, chance),
    }
}

/// Puts a page where another was.
fn splice(
    image: &mut Image,
    name: &str,
    other: &str,
    last_batch: &LastBatch,
    chance: &mut Chance,
) -> Option<String> {
    let from = used_page(&image.0[other], chance)?;
    let page = image.0[other].page(from).cloned();
    let content = image.0.get_mut(name).expect("it is one of them");
    let to = used_page(content, chance)?;
    if is_last(last_batch, name, to) || content.page(to) == page.as_ref() {
        return None;
    }
    content.put(to, page);
    Some(format!("page {to} of {name} is page {from} of {other}"))
}

fn flip(
    image: &mut Image,
    name: &str,
    last_batch: &LastBatch,
    chance: &mut Chance,
) -> Option<String> {
    let content = image.0.get_mut(name).expect("it is one of them");
    let page = used_page(content, chance)?;
    if is_last(last_batch, name, page) {
        return None;
    }
    let at = chance.below(PAGE);
    content.page_mut(page)[at] ^= 1 << chance.below(8);
    Some(format!("a bit at {} of {name} flipped", page * PAGE + at))
}

fn is_last((log, pages): &LastBatch, name: &str, page: usize) -> bool {
    log == name && pages.contains(&page)
}

fn used_page(content: &Content, chance: &mut Chance) -> Option<usize> {
    let used: Vec<usize> =
        (0..content.pages()).filter(|page| content.page(*page).is_some()).collect();
    used.get(chance.below(used.len())).copied()
}

/// Expects that each key is what it was, or cannot be read, and that `verify` reports what cannot.
fn look(image: &Image, history: &History, chance: &mut Chance) -> Result<Seen, String> {
    let times: Times = history.times().reboot(history.times().now, cuts::downtime(chance));
    let machine = Machine::new(image, chance.draw());
    let is_nearly_full = chance.one_in(4);
    if is_nearly_full {
        cuts::leave_little(&machine, chance);
    }
    let store = match open(machine.start(), times.clock_at(times.now)) {
        Ok(store) => store,
        Err(error) if is_damage(&error) => return Ok(Seen::Noticed),
        Err(error) => return Err(format!("opening calls damage {error:?}")),
    };
    if is_nearly_full {
        // Room for the keys that are asked for. What the round meets is met below.
        machine.set_limits(Limits::default());
        let _ = store.reap();
    }
    let mut failed = None;
    for expected in history.journal().expected(usize::MAX) {
        let is_live = |known: &Known| known.expires() > times.now;
        let is_kept = expected.1.iter().flatten().any(is_live);
        match find(&store, &vec![expected], times.now) {
            Ok(_) => {}
            // What has expired may be dropped before it is verified, damage and all.
            Err(Miss::Failed(_, error)) if is_damage(&error) && !is_kept => {}
            Err(Miss::Failed(name, error)) if is_damage(&error) => failed = Some((name, error)),
            Err(miss) => return Err(miss.to_string()),
        }
    }
    match (store.verify(), failed) {
        (Ok(()), Some((name, error))) => {
            Err(format!("{name:?} cannot be had, and verify sees nothing: {error:?}"))
        }
        (Ok(()), None) => Ok(Seen::Whole),
        (Err(error), _) if is_damage(&error) => Ok(Seen::Noticed),
        (Err(error), _) => Err(format!("verify calls damage {error:?}")),
    }
}

/// What was saved of a store.
enum Saved {
    /// Each key is what it was, or is known to be damaged.
    All,
    /// The report says that keys are missing.
    Part(String),
}

/// Salvages an image, and expects that each key is what it was, or damaged; or, where the report
/// says that keys are missing, what it was at some time.
fn salvage(image: &Image, history: &History, chance: &mut Chance) -> Result<Saved, String> {
    let times: Times = history.times().reboot(history.times().now, cuts::downtime(chance));
    let from = Machine::new(image, chance.draw());
    let into = Machine::new(&Image::default(), chance.draw());
    let settings = builder(times.clock_at(times.now));
    let report = match settings.salvage_on(from.start(), into.start()) {
        Ok(report) => report,
        Err(error) if is_damage(&error) => return Ok(Saved::Part(error.to_string())),
        Err(error) => return Err(format!("damage is called {error:?}")),
    };
    if from.image().0 != image.0 {
        return Err("the old directory was changed".to_owned());
    }
    let store = open(into.start(), times.clock_at(times.now));
    let store = store.map_err(|error| format!("it does not open: {error:?}"))?;
    let is_all = report.is_absence_proven();
    let journal = history.journal();
    // Without the latest batch it is not known how late it is, and records may live longer.
    let (states, now) = match is_all {
        true => (journal.expected(usize::MAX), times.now),
        false => (journal.ever(), Duration::ZERO),
    };
    for expected in states {
        match find(&store, &vec![expected], now) {
            Ok(_) => {}
            Err(Miss::Failed(_, error)) if is_damage(&error) && report.damaged_keys > 0 => {}
            // The verdict of an operation may be lost, and its claim not.
            Err(Miss::Wrong(said)) if !is_all && tells_of_a_claim(&store, &said) => {}
            Err(miss) => return Err(format!("{miss}\n{report}")),
        }
    }
    match store.verify() {
        Err(error) if report.damaged_keys == 0 => Err(format!("it does not verify: {error:?}")),
        _ if is_all => Ok(Saved::All),
        _ => Ok(Saved::Part(report.to_string())),
    }
}

/// Returns true if an answer is that of an interrupted run: the claim itself, or a conflict with it.
fn tells_of_a_claim(store: &Store, said: &str) -> bool {
    let claims = store.interrupted(None, usize::MAX).wait().unwrap_or_default();
    said.contains("Interrupted(")
        || claims.iter().any(|claim| said.contains(&format!("{:?}", claim.request_id)))
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::Foreign { .. } | Error::Newer { .. })
}
