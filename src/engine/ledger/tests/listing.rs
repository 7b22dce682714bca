//! A list of records says what lookups say, wherever the records are.

use std::collections::BTreeMap;

use super::*;
use crate::backend::Detail;
use crate::cursor::Cursor;
use crate::engine::segment::segment_name;
use crate::key::{Key, random_bytes};
use crate::listed::Listed;

const KEYS: u64 = 60;

/// Chooses by a seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The body of each key that has a record, `None` for a damaged one.
pub(super) type Lines = BTreeMap<String, Option<Bytes>>;

fn name(n: u64) -> String {
    format!("key-{n:02}")
}

impl Opened {
    fn forget(&mut self, name: &str) {
        let until = self.ledger.longest_expiry();
        let entry = Entry::Forget(until.0);
        let encoded = Encoded::new(&self.ledger.digests, Some(&self.address(name)), &entry);
        let mut batch = BatchBuilder::new();
        batch.push(&encoded);
        let offset = self.tail.append(&mut batch, self.ledger.timeline.anchor()).unwrap();
        let batch = self.tail.log.batch_at(offset).unwrap().unwrap();
        let uuid = self.ledger.uuid;
        chain::enter(&self.tail.log, offset, &batch, &mut Vec::new(), uuid).unwrap();
    }

    /// Flips a byte of a key's entry in the active log: of its body, or of its scope.
    fn harm(&self, name: &str, in_scope: bool) {
        let Some(place) = self.tail.log.location(self.address(name).hash) else { return };
        let at = if in_scope { 3 } else { u64::from(place.length) - 1 };
        let mut byte = [0];
        self.tail.log.file.read_at(&mut byte, place.offset + at).unwrap();
        self.tail.log.file.write_at(&[!byte[0]], place.offset + at).unwrap();
    }

    /// Does something by chance. Logs hold few entries, and so do segments.
    pub(super) fn step(&mut self, bench: &Bench, dice: &mut Dice) {
        let name = name(dice.below(KEYS));
        if self.tail.room() < 8 * PAGE {
            self.rotate();
        }
        match dice.below(20) {
            0 => self.forget(&name),
            1 => {
                let address = Address::new(&self.ledger.uuid, Scope::new("t"), self.key(&name));
                self.put_at(&address, vec![9; 10], DAY);
            }
            2 if self.tail.end > 16 * PAGE => self.rotate(),
            3 => {
                bench.clock.advance(HOUR);
                self.seal();
            }
            4 => drop(self.ledger.merge(&mut self.retired, || Ok(())).unwrap()),
            5 => {
                self.ledger.drop_expired(&mut self.retired).unwrap();
                self.ledger.free(&mut self.retired, || Ok(())).unwrap();
            }
            n => {
                let size = if n % 2 == 0 { 2_000 } else { 20 };
                let ttl = [2 * HOUR, 5 * HOUR, DAY][usize::try_from(dice.below(3)).unwrap()];
                self.put_for(&name, random_bytes::<4>().repeat(size / 4), ttl);
            }
        }
    }

    fn key(&self, name: &str) -> Key {
        name.parse().unwrap()
    }

    /// The answers of lookups, of all keys.
    pub(super) fn looked_up(&self) -> Lines {
        let found = (0..KEYS).map(name).filter_map(|name| {
            let body = match self.ledger.find(&self.address(&name)) {
                Ok(None) => return None,
                Ok(Some(record)) => Some(record.response().unwrap().body().clone()),
                Err(Error::Corrupt { .. }) => None,
                Err(error) => panic!("{error}"),
            };
            Some((name, body))
        });
        found.collect()
    }

    fn list(&self, after: Option<&str>, detail: Detail) -> Listing {
        let scope = Scope::new("s");
        let after = after.map(|name| Cursor { scope, key: self.key(name) });
        self.ledger.list(Some(scope), after, detail)
    }

    /// The places that a list has, with whether the record can be read. They are in order.
    fn places(&self, mut listing: Listing) -> Vec<(Cursor, bool)> {
        let mut places = Vec::new();
        loop {
            let page = listing.next(&self.ledger, 7).unwrap();
            if page.is_empty() {
                assert!(places.is_sorted_by(|(a, _), (b, _)| a < b), "{places:?}");
                return places;
            }
            let place =
                |line: &Listed| Some((line.cursor()?, matches!(line, Listed::Record { .. })));
            places.extend(page.iter().filter_map(place));
        }
    }

    /// The list of all scopes is those of each, one behind the other, and goes on from any place.
    fn check_all(&self, dice: &mut Dice) {
        let all = self.places(self.ledger.list(None, None, Detail::Summaries));
        let mut scopes = [Scope::new("s"), Scope::new("t")];
        scopes.sort_unstable();
        let list = |scope| self.places(self.ledger.list(Some(scope), None, Detail::Summaries));
        assert_eq!(all, scopes.map(list).concat());
        let at = usize::try_from(dice.below(KEYS)).unwrap();
        if let Some((after, _)) = all.get(at) {
            let rest = self.ledger.list(None, Some(after.clone()), Detail::Responses);
            assert_eq!(self.places(rest), all[at + 1..]);
        }
    }

    /// The lines of a list, and the number of damaged records without a name.
    fn read(&self, mut listing: Listing) -> (Lines, usize) {
        let (mut lines, mut nameless, mut last) = (Lines::new(), 0, None);
        loop {
            let page = listing.next(&self.ledger, 7).unwrap();
            if page.is_empty() {
                return (lines, nameless);
            }
            for line in page {
                let Some(key) = line.key().cloned() else {
                    nameless += 1;
                    continue;
                };
                assert!(last.as_ref().is_none_or(|last| *last < key), "{key:?} is out of order");
                let body = match line {
                    Listed::Record { record, status, .. } => {
                        assert_eq!(status, Some(http::StatusCode::OK));
                        let body = record.response().map(|response| response.body().clone());
                        Some(body.unwrap_or_default())
                    }
                    Listed::Damaged { .. } => None,
                };
                assert!(lines.insert(key.as_str().into(), body).is_none());
                last = Some(key);
            }
        }
    }

    fn check(&self, dice: &mut Dice) {
        let expected = self.looked_up();
        let (lines, nameless) = self.read(self.list(None, Detail::Responses));
        let named = |lines: &Lines| -> Lines {
            lines
                .iter()
                .filter(|(_, body)| body.is_some())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        assert_eq!(named(&lines), named(&expected));
        let hidden = expected.keys().filter(|key| !lines.contains_key(*key)).count();
        assert!(hidden <= nameless, "{hidden} keys are damaged, and {nameless} are reported");
        assert!(lines.iter().all(|(key, body)| body.is_some() || expected[key].is_none()));
        // Without bodies, and from behind a key.
        let after = name(dice.below(KEYS));
        let (rest, none) = self.read(self.list(Some(&after), Detail::Summaries));
        let keys: Vec<_> = lines.keys().filter(|key| **key > after).collect();
        assert_eq!((rest.keys().collect::<Vec<_>>(), none), (keys, 0));
        assert!(rest.values().flatten().all(Bytes::is_empty));
        self.check_all(dice);
    }
}

#[test]
fn a_list_has_what_lookups_find_in_logs_and_segments() {
    for seed in 1..9 {
        let (bench, mut dice) = (Bench { log_bytes: 1024 * 1024, ..Bench::default() }, Dice(seed));
        let mut opened = bench.open();
        for round in 0..6 {
            for _ in 0..60 {
                opened.step(&bench, &mut dice);
            }
            opened.check(&mut dice);
            if round == 3 {
                opened = bench.open();
                opened.check(&mut dice);
            }
        }
        assert!(!opened.ledger.snapshot().segments.is_empty(), "seed {seed}");
    }
}

#[test]
fn p5_damaged_records_are_listed_as_what_they_are_and_hide_what_is_older() {
    let (mut named, mut nameless) = (0, 0);
    for seed in 1..9 {
        let (bench, mut dice) = (Bench { log_bytes: 1024 * 1024, ..Bench::default() }, Dice(seed));
        let mut opened = bench.open();
        for _ in 0..6 {
            for _ in 0..60 {
                opened.step(&bench, &mut dice);
                if dice.below(15) == 0 {
                    opened.harm(&name(dice.below(KEYS)), dice.below(2) == 0);
                }
            }
            opened.check(&mut dice);
        }
        let (lines, without_name) = opened.read(opened.list(None, Detail::Summaries));
        named += lines.values().filter(|body| body.is_none()).count();
        nameless += without_name;
    }
    assert!(named > 0 && nameless > 0, "{named} named, {nameless} not");
}

#[test]
fn p5_a_lost_list_of_damaged_keys_costs_the_keys_that_a_lookup_would_refuse() {
    let bench = Bench::default();
    let mut opened = bench.open();
    for n in 0..KEYS {
        opened.put(&name(n), vec![1; 9]);
    }
    opened.rotate();
    bench.clock.advance(HOUR);
    opened.seal();
    opened.put(&name(1), vec![2; 9]);
    opened.put(&name(2), vec![2; 9]);
    opened.harm(&name(1), false);
    opened.rotate();
    bench.clock.advance(HOUR);
    opened.seal();
    assert_eq!(opened.ledger.snapshot().segments.len(), 2);
    let hash = opened.address(&name(1)).hash.to_le_bytes();
    let segment = Arc::clone(&opened.ledger.snapshot().segments[0]);
    let mut bytes = vec![0; usize::try_from(segment.file.len().unwrap()).unwrap()];
    segment.file.read_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(16).position(|window| window == hash).expect("the list has it");
    opened
        .ledger
        .disk
        .open(&segment_name(segment.meta.file))
        .unwrap()
        .write_at(&[!bytes[at]], at as u64)
        .unwrap();
    drop((segment, opened));

    let opened = bench.open();
    assert!(opened.ledger.snapshot().segments[0].has_lost_damaged());
    let expected = opened.looked_up();
    let (listed, nameless) = opened.read(opened.list(None, Detail::Responses));
    assert_eq!((&listed, nameless), (&expected, 1));
    assert_eq!(expected.values().filter(|body| body.is_some()).count() as u64, KEYS - 1);
}

/// The log was read as frozen, and freed as one that was kept for a segment.
#[test]
fn a_log_that_a_list_reads_is_not_freed_with_the_segment_that_it_was_kept_for() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..40 {
        let ttl = if n == 7 { DAY } else { 2 * HOUR };
        opened.put_for(&name(n), vec![7; 20_000], ttl);
    }
    opened.rotate();
    let listing = opened.list(None, Detail::Responses);
    bench.clock.advance(HOUR);
    assert_eq!(opened.seal(), 1);
    assert_eq!(opened.ledger.snapshot().segments[0].values.len(), 1, "it is kept");
    bench.clock.advance(HOUR);
    assert_eq!(opened.ledger.merge(&mut opened.retired, || Ok(())).unwrap(), 1);
    opened.prepare();
    opened.ledger.free(&mut opened.retired, || Ok(())).unwrap();
    let line = (name(7), Some(Bytes::from(vec![7; 20_000])));
    assert_eq!(opened.read(listing), ([line].into(), 0));
}

#[test]
fn a_list_stays_at_the_moment_at_which_it_began() {
    for seed in 1..9 {
        let (bench, mut dice) = (Bench { log_bytes: 1024 * 1024, ..Bench::default() }, Dice(seed));
        let mut opened = bench.open();
        for _ in 0..150 {
            opened.step(&bench, &mut dice);
        }
        let (listing, expected) = (opened.list(None, Detail::Responses), opened.looked_up());
        let expiries: BTreeMap<_, _> = expected
            .keys()
            .map(|name| {
                let record = opened.ledger.find(&opened.address(name)).unwrap().unwrap();
                (name.clone(), record.expiry())
            })
            .collect();
        for _ in 0..150 {
            opened.step(&bench, &mut dice);
        }
        let now = opened.ledger.timeline.now();
        let live = expected.into_iter().filter(|(name, _)| expiries[name] > now).collect();
        assert_eq!(opened.read(listing), (live, 0), "seed {seed}");
    }
}
