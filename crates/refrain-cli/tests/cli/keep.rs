//! Commands that keep a store whole: `verify`, `salvage`, `backup`, `restore`, `export`, `doctor`;
//! and `top`, `interrupted`, `completions` and `man`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use refrain::Scope;
use serde_json::{Value, json};

use crate::kit::{Holder, Home, Run, scope};

/// The files of a directory, by name.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    let named = |file: fs::DirEntry| {
        (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
    };
    files.map(named).collect()
}

/// Writes over the body of `call-2`, wherever it is.
pub(crate) fn damage(home: &Home) {
    let body = b"the account is empty";
    for (name, mut bytes) in files(&home.store()) {
        let places = bytes.windows(body.len()).enumerate().filter(|(_, window)| window == body);
        let places: Vec<_> = places.map(|(at, _)| at).collect();
        for at in &places {
            bytes[*at] ^= 1;
        }
        if !places.is_empty() {
            fs::write(home.store().join(name), bytes).unwrap();
        }
    }
}

#[test]
fn a_whole_store_is_verified_without_a_bar_off_a_terminal() {
    let home = Home::filled();
    let said = home.run(&["verify"]).done();
    assert_eq!(said, "everything that the store keeps is whole\n");
    assert_eq!(home.run(&["verify", "--json"]).json()["is_whole"], true);
}

#[test]
fn a_damaged_key_is_named_and_gone_once_it_is_forgotten() {
    let home = Home::filled();
    damage(&home);
    let run = home.run(&["verify", "--api-key-file", "api-key", "--json"]);
    assert_eq!(run.code, 5, "{run:?}");
    let json: Value = serde_json::from_str(&run.out).unwrap();
    let place = json!({ "scope": scope(), "key": "call-2" });
    assert_eq!((&json["is_whole"], &json["damaged_keys"]), (&false.into(), &json!([place])));
    assert!(run.sentence().starts_with("the store is damaged, with 1 key; "));

    let run = home.run(&["get", "call-2", "--api-key-file", "api-key"]);
    assert_eq!(run.code, 5);
    let advice = "find out what its operation did, and then `refrain forget call-2 --erase`";
    assert_eq!(run.sentence(), format!("the record of call-2 is damaged; {advice}"));
    let listed = home.run(&["ls", "--api-key-file", "api-key", "--state", "damaged"]).done();
    assert!(listed.lines().nth(1).unwrap().ends_with("damaged      call-2"), "{listed}");
    home.run(&["get", "call-1", "--api-key-file", "api-key"]).done();

    home.run(&["forget", "call-2", "--api-key-file", "api-key", "--erase", "--yes"]).done();
    home.run(&["verify", "--api-key-file", "api-key"]).done();
}

#[test]
fn a_store_that_does_not_open_is_salvaged_and_told_what_may_be_missing() {
    let home = Home::filled();
    fs::remove_file(home.store().join("MANIFEST")).unwrap();
    let said = home.run(&["status"]).refusal(5);
    assert!(
        said.starts_with("store has files of a store, and no MANIFEST; restore it, or "),
        "{said}"
    );
    let before = files(&home.store());

    let run = home.run(&["salvage", "store", "saved", "--ttl", "24h", "--json"]);
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &json["is_absence_proven"]), (5, &false.into()));
    assert_eq!((&json["records"], &json["open_claims"]), (&4.into(), &1.into()));
    assert!(run.sentence().starts_with("keys may be missing; find out"));
    assert_eq!(files(&home.store()), before);
    let got = home.run(&["get", "call-1", "--api-key-file", "api-key", "--store", "saved"]).done();
    assert!(got.contains("HTTP 201 Created"), "{got}");

    let said = home.run(&["salvage", "store", "saved", "--ttl", "24h"]).refusal(1);
    assert!(said.ends_with("; name another directory, or move those files away"), "{said}");
}

#[test]
fn a_backup_is_restored_beside_it_and_says_which_keys_are_forgotten() {
    let home = Home::filled();
    let made = home.run(&["backup", "copy", "--json"]).json();
    assert_eq!(made["backup"], "copy");

    let restore = ["restore", "copy", "--into", "again"];
    let said = home.run(&restore).refusal(2);
    assert!(said.starts_with("keys that were recorded from 20"), "{said}");
    assert!(said.ends_with("give --i-know-that-keys-since-are-forgotten"), "{said}");
    assert!(!home.path().join("again").exists());

    // One that was opened since has later files, and lacks the same keys.
    home.run(&["status", "--store", "copy"]).done();
    let window = |said: &str| said.split(" to ").next().unwrap().to_owned();
    assert_eq!(window(&home.run(&restore).refusal(2)), window(&said));
    let before = files(&home.path().join("copy"));

    let known = [&restore[..], &["--i-know-that-keys-since-are-forgotten"]].concat();
    let restored = home.run(&[&known[..], &["--json"]].concat()).json();
    let time = |field: &str| restored[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("forgotten_from") <= time("forgotten_until"));
    assert_eq!(files(&home.path().join("copy")), before);
    let list = ["ls", "--api-key-file", "api-key", "--json"];
    let listed = home.run(&list).json();
    let again = home.run(&[&list[..], &["--store", "again"]].concat()).json();
    assert_eq!((listed.as_array().unwrap().len(), listed), (5, again));

    let said = home.run(&known).refusal(2);
    assert!(said.starts_with("again is not empty; "), "{said}");
}

#[test]
fn a_backup_that_is_cut_short_or_in_use_is_not_restored() {
    let home = Home::filled();
    home.run(&["backup", "copy"]).done();
    let copy = home.path().join("copy");
    let known = "--i-know-that-keys-since-are-forgotten";
    let restore = ["restore", "copy", "--into", "again", known];
    let holder = Holder::of(&copy);
    let said = home.run(&restore).refusal(4);
    assert!(said.contains(&format!("is open in process {}", holder.process.id())), "{said}");
    drop(holder);

    fs::write(copy.join("BACKUP"), "").unwrap();
    fs::remove_file(copy.join("MANIFEST")).unwrap();
    let said = home.run(&restore).refusal(5);
    assert_eq!(said, "copy holds a backup that was cut short; remove it, and make or use another");
    let said = home.run(&["restore", "nowhere", "--into", "again", known]).refusal(1);
    assert!(said.starts_with("there is no store in nowhere; "), "{said}");
    assert!(!home.path().join("again").exists());
}

#[test]
#[allow(clippy::print_stderr, reason = "what is skipped is said")]
fn a_full_disk_at_the_destination_leaves_nothing_behind() {
    let home = Home::filled();
    home.run(&["backup", "copy"]).done();
    fs::create_dir(home.path().join("small")).unwrap();
    let on_small_disk = |then: &str| {
        let mut unshared = Command::new("unshare");
        let line = format!(
            "mount -t tmpfs -o size=40k none small && {then}; code=$?; ls small >&2; exit $code"
        );
        unshared.args(["--map-root-user", "--mount", "sh", "-c", &line]);
        let refrain = home.command(&[]);
        unshared.current_dir(home.path()).env("REFRAIN_STORE", "store");
        unshared.env("REFRAIN", refrain.get_program());
        Run::of(&mut unshared)
    };
    if on_small_disk("true").code != 0 {
        eprintln!("skipped: no file system can be mounted");
        return;
    }
    let known = "--i-know-that-keys-since-are-forgotten";
    for command in
        ["backup small/copy".to_owned(), format!("restore copy --into small/again {known}")]
    {
        let run = on_small_disk(&format!("\"$REFRAIN\" {command}"));
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.error.contains("free some space there, or use another disk"), "{run:?}");
        assert!(!run.error.contains("\ncopy\n") && !run.error.contains("\nagain\n"), "{run:?}");
    }
}

#[test]
fn an_export_has_each_key_with_all_that_is_known() {
    let home = Home::filled();
    let lines = home.run(&["export", "--jsonl", "--api-key-file", "api-key"]).done();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: BTreeMap<_, _> =
        lines.map(|line| (line["key"].as_str().unwrap().to_owned(), line)).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines["call-1"]["response"]["status"], 201);
    assert_eq!(lines["upload-7"]["response"]["body"], json!({ "base64": "/9gbWzMxbf8=" }));
    assert_eq!(lines["stream-3"]["response"], Value::Null);
    assert_eq!(lines["payment-9"]["state"], "interrupted");
    assert_eq!(lines["payment-9"]["scope"], scope().to_string());
    assert!(lines["payment-9"]["seed"]["base64"].is_string());

    damage(&home);
    let run = home.run(&["export", "--jsonl", "--api-key-file", "api-key"]);
    assert_eq!((run.code, run.out.lines().count()), (5, 5));
}

#[test]
fn the_largest_bodies_come_first() {
    let home = Home::filled();
    let top = home.run(&["top", "--api-key-file", "api-key", "--count", "2", "--json"]).json();
    assert_eq!((&top["records"], &top["body_bytes"]), (&4.into(), &78.into()));
    let body = |key: &str, bytes: u64| json!({ "scope": scope(), "key": key, "bytes": bytes });
    assert_eq!(top["largest_bodies"], json!([body("call-1", 49), body("call-2", 21)]));
    let whole = json!({ "scope": scope(), "records": 4, "damaged": 0, "body_bytes": 78 });
    assert_eq!(top["largest_scopes"], json!([whole]));
}

#[test]
fn interrupted_keys_of_all_scopes_are_listed() {
    let home = Home::filled();
    let listed = home.run(&["interrupted", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!((&listed[0]["key"], &listed[0]["attempt"]), (&"payment-9".into(), &1.into()));
    let other = Scope::from_api_key("sk_live_52").to_string();
    assert_eq!(home.run(&["interrupted", "--scope", &other, "--jsonl"]).done(), "");
}

#[test]
fn the_doctor_looks_without_opening() {
    let home = Home::filled();
    let before = files(&home.store());
    let checks = |run: Run| {
        let checks: Value = serde_json::from_str(&run.out).unwrap();
        let checks = checks.as_array().unwrap().clone().into_iter();
        checks.map(|check| (check["name"].as_str().unwrap().to_owned(), check)).collect()
    };
    let found: BTreeMap<String, Value> = checks(home.run(&["doctor", "--json"]));
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    let expected = ["clock", "file size", "file system", "files", "free files", "free space"];
    assert_eq!(names[..6], expected);
    assert_eq!(found["permissions"]["verdict"], "ok");
    assert_eq!(files(&home.store()), before);

    let holder = Holder::of(&home.store());
    let found: BTreeMap<String, Value> = checks(home.run(&["doctor", "--json"]));
    let process = format!("it is open in process {}", holder.process.id());
    assert!(found["use"]["found"].as_str().unwrap().starts_with(&process), "{found:?}");
    assert!(Home::empty().run(&["doctor"]).refusal(1).starts_with("there is no store in store; "));
}

#[test]
fn a_directory_that_others_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::filled();
    fs::set_permissions(home.store(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = home.run(&["doctor"]);
    let advice = "others may list the directory; take their rights with `chmod -R go= DIR`";
    assert!(run.out.contains(advice), "{run:?}");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completions", shell]).done();
        assert!(script.contains("salvage"), "{shell}");
    }
    let page = home.run(&["man"]).done();
    assert!(page.contains(".TH refrain") && page.contains("Exit codes"), "{page}");
    fs::create_dir(home.path().join("man1")).unwrap();
    home.run(&["man", "--into", "man1"]).done();
    let pages: Vec<_> = files(&home.path().join("man1")).into_keys().collect();
    assert!(pages.contains(&"refrain-resolve.1".to_owned()), "{pages:?}");
    let said = home.run(&["man", "--into", "nowhere"]).refusal(1);
    assert!(said.starts_with("cannot write the manual pages into nowhere: "), "{said}");
}
