//! A copy of an open store opens as one of its own, and the two leave each other's files alone.

use super::killed::Killed;
use super::listing::{Dice, Lines};
use super::*;
use crate::engine::disk::{RESERVE_BYTES, read_all};

fn any_step(opened: &mut Opened, bench: &Bench, dice: &mut Dice, steps: usize) {
    for _ in 0..steps {
        opened.step(bench, dice);
    }
}

impl Opened {
    fn back_up(&self) -> Arc<MemoryDisk> {
        let target = Arc::new(MemoryDisk::default());
        self.ledger.back_up(&*target, || Ok(())).unwrap();
        target
    }

    /// The lookups of another store at the same time, less what has expired since.
    fn expect_as_in(&self, other: &Lines) {
        let lines = self.looked_up();
        assert!(lines.iter().all(|(name, body)| other.get(name) == Some(body)), "{lines:?}");
        self.ledger.verify().unwrap();
    }
}

/// A bench over another disk, in the same time.
fn beside(bench: &Bench, disk: &Arc<MemoryDisk>) -> Bench {
    let Bench { log_bytes, first_log_bytes, ref clock, .. } = *bench;
    Bench { disk: Arc::clone(disk), clock: clock.clone(), log_bytes, first_log_bytes }
}

#[test]
fn p2_a_backup_has_what_the_store_had_and_both_go_on() {
    let mut shared = 0;
    for seed in 1..12 {
        let (bench, mut dice) = (Bench { log_bytes: 1024 * 1024, ..Bench::default() }, Dice(seed));
        let mut opened = bench.open();
        any_step(&mut opened, &bench, &mut dice, 200);
        // A log that is listed, and not in the copy.
        opened.prepare();
        let (disk, lines) = (opened.back_up(), opened.looked_up());
        let names = disk.names().unwrap();
        assert!(!names.iter().any(|name| name == "BACKUP"), "{names:?}");
        let is_shared = |name: &&String| disk.open(name).unwrap().links().unwrap() > 1;
        let linked: Vec<_> = names.iter().filter(is_shared).collect();
        let content = |name: &str| {
            let file = disk.open(name).ok()?;
            read_all(&*file, 1 << 30).ok()
        };
        let before: Vec<_> = linked.iter().map(|name| content(name)).collect();
        assert!(!linked.iter().any(|name| [LOCK, MANIFEST].contains(&name.as_str())), "{linked:?}");
        shared += linked.len();

        // The store reaps, recycles and merges what the copy needs.
        any_step(&mut opened, &bench, &mut dice, 200);
        let own = opened.looked_up();
        for (name, before) in linked.iter().zip(&before) {
            assert_eq!(content(name), *before, "{name} was written to");
        }
        let copy = beside(&bench, &disk);
        let mut second = copy.open();
        let now = second.ledger.timeline.now();
        let live = second.looked_up();
        second.expect_as_in(&lines);
        for (name, body) in &lines {
            let expired = || opened_expiry(&second, name).is_none_or(|expiry| expiry <= now);
            assert!(live.get(name) == Some(body) || expired(), "{name} is missing");
        }
        // And the other way round.
        any_step(&mut second, &copy, &mut dice, 200);
        second.ledger.verify().unwrap();
        opened.expect_as_in(&own);
        any_step(&mut opened, &bench, &mut dice, 100);
        opened.ledger.verify().unwrap();
        let (own, copied) = (opened.looked_up(), second.looked_up());
        drop((opened, second));
        bench.open().expect_as_in(&own);
        copy.open().expect_as_in(&copied);
    }
    assert!(shared > 20, "{shared} files were linked");
}

/// The expiry of a key's record, if that is live.
fn opened_expiry(opened: &Opened, name: &str) -> Option<crate::clock::Moment> {
    opened.ledger.find(&opened.address(name)).unwrap().map(|record| record.expiry())
}

/// Two backups on the store's own disk took what an opening needs, and the store did not open again.
#[test]
fn p12_a_backup_leaves_the_space_that_an_opening_needs() {
    // The log is short, because this disk counts the sparse end of a copy as used.
    let bench = Bench { log_bytes: 128 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    opened.put("a", vec![1; 30_000]);
    let needed = opened.tail.end + RESERVE_BYTES;
    let back_up = |free| {
        let target = Killed { space: free, ..Killed::marked(usize::MAX, 0) };
        opened.ledger.back_up(&target, || Ok(()))
    };
    let refused = back_up(needed - 1).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(source, format!("{needed} bytes are needed"));
    // `MADE` takes a page of it.
    back_up(needed + PAGE).unwrap();
}

/// A store that lacks records would run their operations again.
#[test]
fn p5_a_backup_that_is_cut_short_anywhere_does_not_open() {
    let (bench, mut dice) = (Bench { log_bytes: 1024 * 1024, ..Bench::default() }, Dice(7));
    let mut opened = bench.open();
    any_step(&mut opened, &bench, &mut dice, 100);
    let lines = opened.looked_up();
    let mut finished = 0;
    let mut expect = |before, after| {
        let target = Killed::marked(before, after);
        let outcome = opened.ledger.back_up(&target, || Ok(()));
        // After a kill, and after a power cut.
        let cut = beside(&bench, &target.durable()).try_open();
        match &cut {
            Ok(cut) if cut.ledger.uuid == opened.ledger.uuid => assert_eq!(cut.looked_up(), lines),
            Ok(_) => assert!(outcome.is_err() && after > 0),
            Err(error) => assert!(outcome.is_err(), "{error}"),
        }
        let copy = beside(&bench, &target.disk);
        match (outcome, copy.try_open()) {
            (Err(_), Err(Error::Corrupt { .. } | Error::Foreign { .. })) => {}
            // All has been removed again.
            (Err(_), Ok(second)) if second.ledger.uuid != opened.ledger.uuid => assert!(after > 0),
            // All but the marker is done.
            (_, Ok(second)) => {
                assert_eq!(second.looked_up(), lines, "{before} {after}");
                second.ledger.verify().unwrap();
                finished += 1;
            }
            (outcome, refused) => panic!("{before} {after}: {outcome:?}, {:?}", refused.map(drop)),
        }
        !target.fate.has_failed()
    };
    for before in 0.. {
        let is_done = expect(before, 0);
        // What was written is removed, and that is cut short too.
        for after in 1..8 {
            expect(before, after);
        }
        if is_done {
            break;
        }
    }
    assert!(finished > 1, "{finished} of them open");
}

/// The directory can be used again.
#[test]
fn a_backup_that_fails_leaves_nothing_behind() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.put("a", vec![1; 5000]);
    let target = MemoryDisk::default();
    target.create("BACKUP").unwrap();
    let mut steps = 0;
    let refused = opened.ledger.back_up(&target, || {
        steps += 1;
        if steps == 2 { Err(Error::Behind) } else { Ok(()) }
    });
    assert!(matches!(refused, Err(Error::Behind)), "{refused:?}");
    assert_eq!(target.names().unwrap(), [""; 0]);
    opened.ledger.back_up(&target, || Ok(())).unwrap();
}

/// Files that are copied must not change under the copy.
#[test]
fn files_are_not_used_again_while_they_are_copied() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..4 {
        opened.put(&format!("key-{n}"), vec![n; 100]);
        opened.rotate();
    }
    let lines = opened.looked_up();
    // Another kind of directory takes no links.
    let target = Killed::marked(usize::MAX, 0);
    let (ledger, frozen) = (&opened.ledger, &mut opened.frozen);
    let (retired, mut is_first) = (&mut opened.retired, true);
    ledger
        .back_up(&target, || {
            if std::mem::take(&mut is_first) {
                bench.clock.advance(HOUR);
                let sealed = ledger.seal(frozen, || Ok(())).unwrap();
                retired.extend(ledger.retire(frozen.drain(..sealed)));
                let count = retired.len();
                assert!(count >= sealed && sealed > 0);
                ledger.prepare(retired).unwrap();
                ledger.free(retired, || Ok(())).unwrap();
                assert_eq!(retired.len(), count, "none is removed or used again");
            }
            Ok(())
        })
        .unwrap();
    let second = beside(&bench, &target.disk).open();
    assert_eq!(second.looked_up(), lines);
    second.ledger.verify().unwrap();
}

#[test]
fn a_log_that_a_backup_shares_is_not_cut_behind_its_end() {
    let bench = Bench { log_bytes: 8 * 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    opened.put("a", vec![7; 100_000]);
    opened.rotate();
    let disk = opened.back_up();
    let frozen = &opened.frozen[opened.frozen.len() - 1];
    let (name, size) = (frozen.log.name.clone(), frozen.log.size);
    let length = || disk.open(&name).unwrap().len().unwrap();
    assert!(frozen.end.offset < size / 2 && length() == size, "{size}");
    bench.clock.advance(HOUR);
    while opened.seal() > 0 {}
    assert_eq!(opened.ledger.snapshot().segments[0].values.len(), 1, "it is kept");
    assert_eq!(length(), size);
    let mut second = beside(&bench, &disk).open();
    while second.seal() > 0 {}
    assert_eq!(length(), size);
    for opened in [&opened, &second] {
        assert_eq!(opened.looked_up().len(), 0, "it has another name");
        assert!(opened.ledger.find(&opened.address("a")).unwrap().is_some());
        opened.ledger.verify().unwrap();
    }
}
