//! The modules of `src/` stand on floors, and name only what is below them.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. The public face may name its own floor; no other may.
const FLOORS: [&[&str]; 15] = [
    &["sync", "key", "disk"],
    &["error", "clock"],
    &["observe"],
    &["record", "ticket"],
    &["entry", "table"],
    &["log", "segment"],
    &["ledger"],
    &["core"],
    &["commit"],
    &["settler"],
    &["writer", "reaper"],
    &FACE,
    &["http"],
    &["server", "client"],
    &["internals", "schedules"],
];
const FACE: [&str; 6] = ["operation", "permit", "begin", "builder", "stats", "store"];

fn floor(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&module))
        .unwrap_or_else(|| panic!("module {module} stands on no floor"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The first part of a file's path is its module, or the part behind `engine/`.
fn module_of(path: &Path) -> String {
    let mut parts = path.iter().skip_while(|part| *part == "engine");
    parts.next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn every_module_names_only_lower_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let module = module_of(relative);
        if module == "lib" || module == "engine" || relative.ends_with("tests.rs") {
            continue;
        }
        let code = fs::read_to_string(&path).unwrap();
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for part in line.split("crate::").skip(1) {
                let part = part.strip_prefix("engine::").unwrap_or(part);
                let name: String = part.chars().take_while(|c| c.is_alphanumeric()).collect();
                if name == module || name.is_empty() || name.starts_with(char::is_uppercase) {
                    continue;
                }
                let (here, there) = (floor(&module), floor(&name));
                let beside = FACE.contains(&module.as_str()) && here == there;
                assert!(there < here || beside, "{} names {name}: {line}", relative.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "only {checked} names: is the source read at all?");
}

#[test]
fn only_the_segment_module_names_redb() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let names_it = fs::read_to_string(&path).unwrap().contains("redb::");
        assert!(!names_it || module_of(relative) == "segment", "{}", relative.display());
    }
}
