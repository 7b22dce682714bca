//! P2, P7, P9, P10 and P12 against real kills: at random, and at every system call that changes the
//! disk.

use std::io::Write;
use std::process::Command;

use refrain_proof::kill::{
    Blow, Call, Fault, Injected, Kills, Stage, child_main, injected, is_child,
};

const ROUNDS: usize = 12;

/// Does nothing, unless another test starts it to be killed.
#[test]
fn child() {
    if is_child() {
        child_main().unwrap();
    }
}

fn start_child() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
    command.args(["--exact", "--nocapture", "child"]);
    command
}

#[test]
fn p2_p7_p9_p12_nothing_acknowledged_is_lost_whenever_the_process_is_killed() {
    let mut kills = Kills::new(1, Box::new(start_child)).unwrap();
    for _ in 0..ROUNDS {
        kills.random_round().unwrap_or_else(|what| panic!("{what}"));
    }
    assert!(kills.answers() > 1000, "only {} answers", kills.answers());
}

#[test]
fn p2_p7_p12_a_kill_at_any_call_that_changes_the_disk_loses_nothing_acknowledged() {
    if !has_strace() {
        return;
    }
    let mut kills = 0;
    for (stage, step) in
        [(Stage::Creation, 8), (Stage::Recovery, 4), (Stage::Commits, 1), (Stage::Upkeep, 1)]
    {
        for call in stage.calls() {
            kills += inject(Blow::Kill, stage, *call, step);
        }
    }
    assert!(kills >= 100, "only {kills} kills");
}

/// The store that failed here could not be opened again: the log that it had just prepared was
/// removed, though the new `MANIFEST` listed it or a later log had its name.
#[test]
fn p2_p10_p12_a_call_that_fails_loses_nothing_acknowledged() {
    if !has_strace() {
        return;
    }
    for blow in [Blow::Fail, Blow::Full] {
        inject(blow, Stage::Creation, Call::Allocate, 1);
        inject(blow, Stage::Recovery, Call::SyncNames, 1);
        inject(blow, Stage::Commits, Call::SyncFile, 1);
        inject(blow, Stage::Upkeep, Call::Write, 1);
    }
    inject(Blow::Fail, Stage::Upkeep, Call::SyncNames, 8);
    inject(Blow::Full, Stage::Upkeep, Call::Remove, 8);
}

/// Returns true if strace is installed. If not, says so past the capture of a test's output.
fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok_and(|said| said.status.success());
    if !found {
        let reason = "skipped: strace injects the faults, and is missing (apt-get install strace)";
        let _ = writeln!(std::io::stderr(), "{reason}");
    }
    found
}

/// Injects a fault at each N until the run ends before it, and returns their number. Beyond `dense`
/// some are left out, ever more.
fn inject(blow: Blow, stage: Stage, call: Call, dense: u32) -> u32 {
    let (mut nth, mut happened) = (1, 0);
    loop {
        let fault = Fault { stage, call, nth, blow };
        match injected(fault, u64::from(nth), &start_child) {
            Ok(Injected::Happened) => happened += 1,
            Ok(Injected::NeverCame) => return happened,
            Err(what) => panic!("{what}"),
        }
        nth += (nth / dense).max(1);
    }
}
