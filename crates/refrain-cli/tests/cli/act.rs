//! Commands that act: `resolve`, `forget` and `reap`. What counts is the store that is opened after
//! them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use refrain::{Fingerprint, Operation, Outcome, Store};

use crate::kit::{API_KEY, Home, Run, scope};

/// What the next request with a key is told.
fn outcome(home: &Home, key: &str) -> Outcome {
    let store = Store::open_existing(home.store()).unwrap();
    let fingerprint = Fingerprint::of(["POST", "/v1/calls", key]);
    let operation = Operation::new(scope(), key.parse().unwrap(), fingerprint).durable();
    store.begin(&operation).wait().unwrap()
}

fn resolve(home: &Home, verdict: &[&str]) -> Run {
    let command = ["resolve", "payment-9", "--api-key-file", "api-key"];
    home.run(&[&command[..], verdict].concat())
}

#[test]
fn a_run_that_did_nothing_is_released_and_the_next_request_runs() {
    let home = Home::filled();
    let said = resolve(&home, &["--release", "--yes"]).done();
    assert_eq!(said, "done: payment-9 is released, and the next request with it runs\n");
    assert!(matches!(outcome(&home, "payment-9"), Outcome::Execute(_)));
}

#[test]
fn a_run_that_was_done_is_completed_with_the_response_that_curl_prints() {
    let home = Home::filled();
    let printed = "HTTP/2 201 \r\ndate: now\r\ncontent-type: text/plain\r\n\r\npaid";
    fs::write(home.path().join("response"), printed).unwrap();
    let json = resolve(&home, &["--complete", "response", "--yes", "--json"]).json();
    assert_eq!((&json["act"], &json["done"]), (&"complete".into(), &true.into()));
    let Outcome::Replay(record) = outcome(&home, "payment-9") else { panic!("it is done") };
    let response = record.response().unwrap();
    assert_eq!((response.status().as_u16(), &response.body()[..]), (201, &b"paid"[..]));
    assert_eq!(response.headers().len(), 1);
    assert_eq!(record.request_id().as_str(), "req_payment-9");
}

#[test]
fn a_run_whose_response_is_lost_is_completed_without_it() {
    let home = Home::filled();
    resolve(&home, &["--without-response", "--yes"]).done();
    let Outcome::Replay(record) = outcome(&home, "payment-9") else { panic!("it is done") };
    assert!(record.response().is_none());
}

#[test]
fn a_dry_run_changes_nothing() {
    let home = Home::filled();
    let said = resolve(&home, &["--release", "--dry-run"]).done();
    assert!(said.starts_with("would be done: payment-9 is released"), "{said}");
    let forget = ["forget", "call-1", "--api-key-file", "api-key", "--erase", "--dry-run"];
    assert_eq!(home.run(&[&forget[..], &["--json"]].concat()).json()["done"], false);
    home.run(&["reap", "--dry-run"]).done();
    assert!(matches!(outcome(&home, "payment-9"), Outcome::Interrupted(_)));
    assert!(matches!(outcome(&home, "call-1"), Outcome::Replay(_)));
}

#[test]
fn nothing_is_done_off_a_terminal_without_a_yes() {
    let home = Home::filled();
    let said = resolve(&home, &["--release"]).refusal(2);
    let advice = "give --yes to do it, or --dry-run to see what would be done";
    assert_eq!(said, format!("nobody can be asked here; {advice}"));
    assert_eq!(home.run(&["reap"]).refusal(2), said);
    let forget = ["forget", "call-1", "--api-key-file", "api-key"];
    assert_eq!(home.run(&forget).refusal(2), said);
    assert!(matches!(outcome(&home, "payment-9"), Outcome::Interrupted(_)));
}

#[test]
#[allow(clippy::print_stderr, reason = "what is skipped is said")]
fn on_a_terminal_the_question_is_asked_and_only_a_yes_counts() {
    let home = Home::filled();
    let on_terminal = |answer: &str| {
        let refrain = home.command(&[]);
        let program = refrain.get_program().to_str().unwrap();
        let line = format!("{program} forget call-1 --api-key-file api-key");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.current_dir(home.path()).env("REFRAIN_STORE", "store");
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().ok()?;
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        Some(Run::from(child.wait_with_output().unwrap()))
    };
    let Some(declined) = on_terminal("n\n") else {
        eprintln!("skipped: there is no `script`, which makes terminals");
        return;
    };
    assert_eq!(declined.code, 1, "{declined:?}");
    let question = "call-1 is completed. From now on, call-1 is forgotten, and the next request \
                    with it runs. Do it? [y/N]";
    assert!(declined.out.contains(question), "{declined:?}");
    assert!(declined.out.contains("nothing was done, because the answer was not yes"));
    assert!(matches!(outcome(&home, "call-1"), Outcome::Replay(_)));
    assert_eq!(on_terminal("y\n").unwrap().code, 0);
    assert!(matches!(outcome(&home, "call-1"), Outcome::Execute(_)));
}

#[test]
fn only_an_interrupted_key_is_resolved() {
    let home = Home::filled();
    let resolve = |key: &str| {
        home.run(&["resolve", key, "--api-key-file", "api-key", "--release", "--yes"]).refusal(3)
    };
    assert_eq!(resolve("call-1"), "call-1 is completed already; see it with `refrain get`");
    assert!(resolve("call-8").starts_with("call-8 is unknown in scope "));
    assert!(matches!(outcome(&home, "call-1"), Outcome::Replay(_)));
}

#[test]
fn half_a_response_is_not_recorded() {
    let home = Home::filled();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nplaced";
    fs::write(home.path().join("half"), half).unwrap();
    let said = resolve(&home, &["--complete", "half", "--yes"]).refusal(2);
    let reason = "half is no response: its body has 6 bytes, and not the content-length; ";
    assert!(said.starts_with(reason), "{said}");
    let said = resolve(&home, &["--complete", "nowhere", "--yes"]).refusal(1);
    assert!(said.starts_with("cannot read nowhere: "), "{said}");
    assert!(matches!(outcome(&home, "payment-9"), Outcome::Interrupted(_)));
}

#[test]
fn standard_input_is_one_thing_at_a_time() {
    let home = Home::filled();
    let arguments = ["resolve", "payment-9", "--api-key-file", "-", "--complete", "-", "--yes"];
    let said = home.run_with(API_KEY, &arguments).refusal(2);
    assert!(said.starts_with("standard input cannot be both"), "{said}");
}

#[test]
fn a_forgotten_key_runs_again_and_its_bytes_are_gone_once_it_is_erased() {
    let home = Home::filled();
    let marker = b"the account is empty";
    let is_in_files = || {
        let files = fs::read_dir(home.store()).unwrap().map(|file| file.unwrap().path());
        let mut contents = files.map(|file| fs::read(file).unwrap());
        contents.any(|bytes| bytes.windows(marker.len()).any(|window| window == marker))
    };
    assert!(is_in_files());
    let forget = ["forget", "call-2", "--api-key-file", "api-key", "--yes"];
    home.run(&forget).done();
    let said = home.run(&[&forget[..], &["--erase"]].concat()).refusal(3);
    assert!(
        said.ends_with("erase what was forgotten before with `refrain reap --erase`"),
        "{said}"
    );
    assert!(is_in_files());
    let json = home.run(&["reap", "--erase", "--yes", "--json"]).json();
    assert_eq!((&json["act"], &json["done"]), (&"erase".into(), &true.into()));
    assert!(!is_in_files());
    assert!(matches!(outcome(&home, "call-2"), Outcome::Execute(_)));
    assert!(matches!(outcome(&home, "call-1"), Outcome::Replay(_)));
}
