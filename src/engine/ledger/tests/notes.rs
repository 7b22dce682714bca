//! The notes of operators.

use super::*;

#[test]
fn notes_stay_in_their_order_over_a_restart_and_a_line_that_was_cut_off() {
    let bench = Bench::default();
    let opened = bench.open();
    assert!(opened.ledger.notes().unwrap().is_empty());
    opened.ledger.note("first").unwrap();
    let file = opened.ledger.disk.open("AUDIT").unwrap();
    file.write_at(b"cut o", file.len().unwrap()).unwrap();
    drop((file, opened));
    let opened = bench.open();
    opened.ledger.note("second").unwrap();
    assert_eq!(opened.ledger.notes().unwrap(), ["first", "cut o", "second"]);
    for wrong in ["two\nlines", &"x".repeat(2049)] {
        assert!(opened.ledger.note(wrong).is_err(), "{wrong}");
    }
    assert_eq!(opened.ledger.notes().unwrap().len(), 3);
}

#[test]
fn the_oldest_notes_go_first() {
    let opened = Bench::default().open();
    for n in 0..200 {
        opened.ledger.note(&format!("{n:0100}")).unwrap();
    }
    let notes = opened.ledger.notes().unwrap();
    assert!((40..81).contains(&notes.len()), "{}", notes.len());
    let expected: Vec<_> = (200 - notes.len()..200).map(|n| format!("{n:0100}")).collect();
    assert_eq!(notes, expected);
}
