//! Three in the morning, as one script.

use std::process::Command;

use crate::keep::damage;
use crate::kit::{Holder, Home, Run};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/night.sh");

#[test]
fn each_trouble_of_a_night_is_solved_by_commands_alone() {
    let home = Home::filled();
    damage(&home);
    std::fs::rename(home.store(), home.path().join("damaged")).unwrap();
    for name in ["placed", "stuck", "held", "clock", "full"] {
        std::fs::rename(Home::filled().store(), home.path().join(name)).unwrap();
    }
    let mut holder = Holder::of(&home.path().join("held"));
    let mut script = Command::new(SCRIPT);
    script.current_dir(home.path()).env("REFRAIN", env!("CARGO_BIN_EXE_refrain"));
    // The killed process is this one's child, and holds the lock no more.
    let run = Run::of(&mut script);
    assert_eq!((run.code, run.error.as_str()), (0, ""), "{run:?}");
    assert!(run.out.lines().count() >= 6, "{}", run.out);
    assert!(!holder.process.wait().unwrap().success(), "the script has killed it");
}
