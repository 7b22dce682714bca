//! Bad input: each has its exit code, and one sentence that says what to do.

use std::fs::{self, OpenOptions};
use std::process::Stdio;

use refrain::Scope;

use crate::kit::{Holder, Home, Run, scope};

#[test]
fn an_unknown_key_and_a_wrong_scope_are_not_found() {
    let home = Home::filled();
    let said = home.run(&["get", "call-8", "--api-key-file", "api-key"]).refusal(3);
    let advice = "check the key and the scope, or list what is there with `refrain ls`";
    assert_eq!(said, format!("call-8 is unknown in scope {}; {advice}", scope()));
    let other = Scope::from_api_key("sk_live_52");
    let said = home.run(&["get", "call-1", "--scope", &other.to_string()]).refusal(3);
    assert_eq!(said, format!("call-1 is unknown in scope {other}; {advice}"));
}

#[test]
fn no_store_is_made_where_there_is_none() {
    let home = Home::empty();
    let said = home.run(&["status"]).refusal(1);
    let advice = "check the path, and that its volume is mounted";
    assert_eq!(said, format!("there is no store in store; {advice}"));
    assert!(!home.store().exists());

    fs::create_dir(home.store()).unwrap();
    fs::write(home.store().join("notes.txt"), "mine").unwrap();
    assert_eq!(home.run(&["ls", "--api-key-file", "api-key"]).refusal(1), said);
    assert_eq!(fs::read_dir(home.store()).unwrap().count(), 1);
}

#[test]
fn a_store_has_to_be_named() {
    let mut command = Home::empty().command(&["status"]);
    command.env_remove("REFRAIN_STORE");
    let said = Run::of(command.current_dir("/")).refusal(2);
    assert_eq!(said, "no store is named; give its directory with --store, or in REFRAIN_STORE");
}

#[test]
fn a_store_of_a_newer_format_is_left_to_a_newer_command() {
    let home = Home::filled();
    let manifest = home.store().join("MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    // In both copies of it: one alone would be damage.
    let copies = (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(b"rfrn man"));
    for at in copies.collect::<Vec<_>>() {
        bytes[at + 8] = 3;
    }
    fs::write(&manifest, bytes).unwrap();
    let said = home.run(&["status"]).refusal(1);
    assert!(said.contains("MANIFEST has format 3, and this version reads up to 2; "), "{said}");
    assert!(said.ends_with("; use the `refrain` of the version that wrote it, or a later one"));
}

#[test]
fn a_store_that_is_open_elsewhere_is_told_with_the_process() {
    let home = Home::filled();
    let holder = Holder::of(&home.store());
    let said = home.run(&["get", "call-1", "--api-key-file", "api-key"]).refusal(4);
    let process = format!("store is open in process {} (", holder.process.id());
    assert!(said.starts_with(&process), "{said}");
    let advice = "let it serve its admin socket, or run this again once it has ended";
    assert!(
        said.ends_with(&format!(", which does not answer operators there; {advice}")),
        "{said}"
    );
    drop(holder);
    home.run(&["get", "call-1", "--api-key-file", "api-key"]).done();
}

#[test]
fn a_half_written_backup_is_no_store() {
    let home = Home::empty();
    fs::create_dir(home.store()).unwrap();
    fs::write(home.store().join("BACKUP"), "").unwrap();
    let said = home.run(&["status"]).refusal(5);
    let advice = "remove it, and make or use another";
    assert_eq!(said, format!("store holds a backup that was cut short; {advice}"));
}

#[test]
fn a_full_disk_at_the_destination_of_the_output_is_told() {
    let home = Home::filled();
    let mut command = home.command(&["ls", "--api-key-file", "api-key"]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = Run::from(command.stdout(full).stderr(Stdio::piped()).output().unwrap());
    assert_eq!(run.code, 1);
    let said = run.sentence();
    assert!(said.starts_with("cannot write the output: No space left"), "{said}");
    assert!(said.ends_with("; free some space there, or use another disk"), "{said}");
}

#[test]
fn a_reader_that_has_read_enough_is_no_trouble() {
    let home = Home::filled();
    let mut command = home.command(&["ls", "--api-key-file", "api-key"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = Run::from(command.stdout(writer).stderr(Stdio::piped()).output().unwrap());
    assert_eq!((run.code, run.error.as_str()), (1, ""));
}

#[test]
fn an_api_key_that_is_not_there_is_told() {
    let home = Home::filled();
    let said = home.run(&["ls", "--api-key-file", "nowhere"]).refusal(1);
    assert!(said.starts_with("cannot read the API key in nowhere: "), "{said}");
    let said = home.run(&["ls", "--api-key-file", "-"]).refusal(2);
    assert_eq!(said, "there is no API key in -");
    let said = home.run(&["get", "call-1"]).refusal(2);
    assert_eq!(said, "no scope is named; give --api-key-file FILE, or --scope HEX");
}
