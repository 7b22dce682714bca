//! Checks the transcripts in `docs/operate.md` against what the command prints. `REFRAIN_WRITE_DOCS=1`
//! rewrites them instead.

use std::fmt::Write;

use regex::Regex;

use crate::keep;
use crate::kit::{Holder, Home, Run};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md");

/// What differs from run to run and from machine to machine, and what stands for it: of the same
/// width where it is in a column.
const VARYING: [(&str, &str); 24] = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-01-31T03:00:00Z"),
    (r"\b\d+h( \d+m)?\b", "23h 59m"),
    (r"00Z \([\dms ]+\)", "00Z (2h 5m)"),
    (r"/\S*/store/", "/var/lib/api/store/"),
    (r"\b[0-9a-f]{16}\.log", "0000000000000007.log"),
    (r"at byte \d+", "at byte 20608"),
    (r"between \d+ and \d+", "between 1769828400 and 1769828400"),
    (r"(?m)^free space(\s+).*$", "free space${1}40.0 GiB"),
    (r"(?m)^size(\s+)\S+ \S+ in \d+ files", "size${1}2.1 MiB in 5 files"),
    (r"\S+ \S+ before, \S+ \S+ now", "4.2 MiB before, 2.1 MiB now"),
    (r"(?m)^(logs\s+)\d+ with", "${1}2 with"),
    (r"process \d+ \([^)]*\)", "process 4242 (api)"),
    (r"\b\d+\.\d s\b", "0.3 s"),
    (r"\(uid \d+\) *", "(uid 1000)          "),
    (r"process \d+, version", "process 4242, version"),
    (r"version \d+\.\d+\.\d+", "version 0.1.0"),
    (r#""seed":\{"base64":"[^"]*"\}"#, r#""seed":{"base64":"q83vASNFZ4mrze8BI0VniavN7wEjRWeJ"}"#),
    (r"(?m)^\S+( +)file system  .*$", "ok${1}file system  ext4"),
    (r"(?m)^\S+( +)free space   .*$", "ok${1}free space   40.0 GiB"),
    (r"(?m)^\S+( +)free files   .*$", "ok${1}free files   2621440"),
    (r"(?m)^\S+( +)syncs        .*$", "ok${1}syncs        1.42 ms for a page"),
    (r"(?m)^\S+( +)open files   .*$", "ok${1}open files   up to 524288"),
    (r"(?m)^\S+( +)file size    .*$", "ok${1}file size    without limit"),
    // Where the tests run, not where a store is.
    (r"refrain: \d+ checks? ha.*\n\(exit code 1\)\n", ""),
];

/// The commands of a scene, and what they print.
fn transcript(home: &Home, commands: &[&str]) -> String {
    let mut shown = String::new();
    for command in commands {
        let arguments: Vec<_> = command.split(' ').collect();
        let Run { code, out, error, .. } = home.run(&arguments);
        write!(shown, "$ refrain {command}\n{out}{error}").unwrap();
        if code != 0 {
            writeln!(shown, "(exit code {code})").unwrap();
        }
        shown.push('\n');
    }
    let shown = VARYING.iter().fold(shown, |shown, (varying, stands)| {
        Regex::new(varying).unwrap().replace_all(&shown, *stands).into_owned()
    });
    format!("\n```console\n{}\n```\n\n", shown.trim_end())
}

#[test]
fn the_transcripts_in_the_runbook_are_what_the_command_prints() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let mut written = document.clone();
    for (name, transcript) in scenes() {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let from = written.find(&begin).expect("it has a place for the scene") + begin.len();
        let to = written.find(&end).expect("it has an end for the scene");
        written.replace_range(from..to, &transcript);
    }
    if std::env::var_os("REFRAIN_WRITE_DOCS").is_some() {
        std::fs::write(DOCUMENT, written).unwrap();
    } else {
        assert_eq!(document, written, "run it with REFRAIN_WRITE_DOCS=1");
    }
}

/// The scenes of the runbook, by name.
fn scenes() -> Vec<(&'static str, String)> {
    [looking(), judging(), opening(), damage(), room(), copies()].concat()
}

fn looking() -> Vec<(&'static str, String)> {
    let home = Home::filled();
    let served = {
        let _holder = Holder::serving(&home.store());
        transcript(&home, &["status", "in-flight", "watch --count 2"])
    };
    let home = Home::filled();
    let placed = [
        "get call-1 --api-key-file api-key",
        "get payment-9 --api-key-file api-key",
        "get call-8 --api-key-file api-key",
    ];
    let list = ["ls --api-key-file api-key", "ls --api-key-file api-key --status 402 --jsonl"];
    vec![
        ("served", served),
        ("status", transcript(&home, &["status"])),
        ("placed", transcript(&home, &placed)),
        ("list", transcript(&home, &list)),
        ("top", transcript(&home, &["top --api-key-file api-key --count 2"])),
    ]
}

fn judging() -> Vec<(&'static str, String)> {
    let home = Home::filled();
    let answer = "HTTP/1.1 201 Created\ncontent-type: application/json\n\n{\"id\":\"payment_9\"}";
    std::fs::write(home.path().join("response"), answer).unwrap();
    let resolve = [
        "resolve payment-9 --api-key-file api-key --complete response --dry-run",
        "resolve payment-9 --api-key-file api-key --complete response --yes --why TICKET-81",
        "get payment-9 --api-key-file api-key",
        "audit --key payment-9",
    ];
    let stuck = ("stuck", transcript(&home, &["interrupted"]));
    vec![stuck, ("resolve", transcript(&home, &resolve))]
}

fn opening() -> Vec<(&'static str, String)> {
    let home = Home::filled();
    let holder = Holder::of(&home.store());
    let held = ("held", transcript(&home, &["status"]));
    drop(holder);
    let doctor = ("doctor", transcript(&home, &["doctor"]));
    std::fs::remove_file(home.store().join("MANIFEST")).unwrap();
    vec![held, doctor, ("salvage", transcript(&home, &["status", "salvage store saved --ttl 1d"]))]
}

fn damage() -> Vec<(&'static str, String)> {
    let home = Home::filled();
    keep::damage(&home);
    let commands = [
        "verify --api-key-file api-key",
        "get call-2 --api-key-file api-key",
        "forget call-2 --api-key-file api-key --erase --yes",
        "verify --api-key-file api-key",
    ];
    vec![("damaged", transcript(&home, &commands))]
}

fn room() -> Vec<(&'static str, String)> {
    let home = Home::filled();
    let full = ("full", transcript(&home, &["reap --dry-run", "reap --yes"]));
    let erasure = ["forget call-2 --api-key-file api-key --yes", "reap --erase --yes"];
    vec![full, ("erasure", transcript(&home, &erasure))]
}

fn copies() -> Vec<(&'static str, String)> {
    let commands = [
        "backup copy",
        "restore copy --into again",
        "restore copy --into again --i-know-that-keys-since-are-forgotten",
    ];
    vec![("backup", transcript(&Home::filled(), &commands))]
}
