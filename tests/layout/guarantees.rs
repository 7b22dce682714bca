//! The tests that `docs/guarantees.md` cites for each promise.

use std::fs;
use std::path::{Path, PathBuf};

/// A promise, and a test module that is cited for it.
pub(crate) struct Citation {
    pub(crate) promise: String,
    pub(crate) module: String,
}

/// The citations of the table of promises. `conformance` with areas in brackets is cited once for
/// each area. Lanes of `proof` and fuzz targets are no modules, and are left out.
pub(crate) fn citations() -> Vec<Citation> {
    let guarantees = fs::read_to_string(root().join("docs/guarantees.md")).expect("it is text");
    let rows = guarantees.lines().filter_map(|line| line.strip_prefix("| P"));
    rows.flat_map(|row| {
        let (number, rest) = row.split_once(" | ").expect("a row begins with its promise");
        let (_, cited) = rest.rsplit_once(" | ").expect("a row ends with its tests");
        let promise = format!("p{number}");
        modules(cited).map(move |module| Citation { promise: promise.clone(), module })
    })
    .collect()
}

fn modules(cited: &str) -> impl Iterator<Item = String> {
    // A stretch outside brackets, and then one inside, and so on.
    let mut stretches = cited.split(['(', ')']);
    let mut modules = Vec::new();
    while let Some(outside) = stretches.next() {
        let inside = stretches.next().unwrap_or_default();
        for name in quoted(outside) {
            if name == "conformance" {
                modules.extend(quoted(inside).map(|area| format!("conformance::facts::{area}")));
            } else if name.contains("::") {
                modules.push(name.to_owned());
            }
        }
    }
    modules.into_iter()
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

impl Citation {
    /// Returns true if the module has a test that is named after the promise, or is a lane of
    /// `proof`, whose tests try many promises at once.
    pub(crate) fn is_kept(&self) -> bool {
        let files = self.files();
        let is_lane = self.module.starts_with("proof::") && !files.is_empty();
        is_lane
            || files.iter().any(|file| self.is_named_in(&fs::read_to_string(file).expect("text")))
    }

    fn is_named_in(&self, code: &str) -> bool {
        let names = code.lines().filter_map(|line| line.split_once("fn "));
        let mut promises = names.flat_map(|(_, name)| name.split('_').take_while(is_promise));
        promises.any(|promise| promise == self.promise)
    }

    /// The files of the module.
    fn files(&self) -> Vec<PathBuf> {
        let path = self.module.replace("::", "/");
        // Unit tests stand in their module's file, or in one of their own.
        let beside = path.strip_suffix("/tests").unwrap_or(&path);
        let fleet = "crates/refrain-postgres/tests";
        let rooms = ["src", "src/engine", "tests", "tests/proof", fleet];
        let files = rooms.into_iter().flat_map(|room| {
            let in_room = |path: &str| root().join(room).join(path);
            let in_proof = path.replace("proof/", "tests/");
            [beside, &path, &in_proof].map(in_room)
        });
        files.flat_map(|path| sources(&path)).collect()
    }
}

/// The file of a module, and those in its directory.
fn sources(module: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(module).into_iter().flatten();
    let inside = entries.map(|entry| entry.expect("it can be listed").path());
    let files = inside.chain([module.with_extension("rs")]);
    files.filter(|path| path.is_file()).collect()
}

fn is_promise(part: &&str) -> bool {
    part.strip_prefix('p').is_some_and(|number| number.parse::<u8>().is_ok())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
