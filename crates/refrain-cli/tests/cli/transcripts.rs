//! Checks the transcripts in `docs/operate.md` against what the command prints. `REFRAIN_WRITE_DOCS=1`
//! rewrites them instead.

use std::fmt::Write;

use regex::Regex;

use crate::kit::{Home, Run};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md");

/// What differs from run to run, and what stands for it: of the same width, so that columns stay.
const VARYING: [(&str, &str); 6] = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-01-31T03:00:00Z"),
    (r"\b\d+h( \d+m)?\b", "23h 59m"),
    (r"(?m)^free space(\s+).*$", "free space${1}40.0 GiB"),
    (r"(?m)^size(\s+)\S+ \S+ in \d+ files", "size${1}2.1 MiB in 5 files"),
    (r"(?m)^(logs\s+)\d+ with", "${1}2 with"),
    (r"process \d+ \([^)]*\)", "process 4242 (api)"),
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
    let home = Home::filled();
    vec![
        ("status", transcript(&home, &["status"])),
        (
            "placed",
            transcript(
                &home,
                &[
                    "get call-1 --api-key-file api-key",
                    "get payment-9 --api-key-file api-key",
                    "get call-8 --api-key-file api-key",
                ],
            ),
        ),
        (
            "list",
            transcript(
                &home,
                &["ls --api-key-file api-key", "ls --api-key-file api-key --status 402 --jsonl"],
            ),
        ),
    ]
}
