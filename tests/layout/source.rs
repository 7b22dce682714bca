//! The source of the crate as modules and their imports.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a module within the crate; the root's is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Module(Vec<String>);

impl Module {
    fn of_file(relative: &Path) -> Self {
        let path = relative.with_extension("");
        Self(path.iter().map(|part| part.to_string_lossy().into_owned()).collect())
    }

    pub(crate) fn room(&self) -> &str {
        self.part(0).unwrap_or_default()
    }

    pub(crate) fn part(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(String::as_str)
    }

    fn child(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }

    fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("::"))
    }
}

/// An import: the item, and the module that defines it.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) module: Module,
    pub(crate) item: String,
}

pub(crate) struct Tree {
    /// Code without comments and tests, by module.
    pub(crate) files: BTreeMap<Module, String>,
    root: String,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        for path in sources(&src) {
            let relative = path.strip_prefix(&src).expect("it is below");
            if relative.ends_with("tests.rs") || relative.ends_with("schedules.rs") {
                continue;
            }
            files.insert(
                Module::of_file(relative),
                code_of(&fs::read_to_string(&path).expect("it is text")),
            );
        }
        let root = files.remove(&Module(vec!["lib".into()])).expect("there is a root");
        Self { files, root }
    }

    /// Adds a line to a module.
    pub(crate) fn plant(&mut self, module: &str, line: &str) {
        let module = Module(module.split("::").map(str::to_owned).collect());
        let code = self.files.get_mut(&module).expect("the module exists");
        code.insert_str(0, &format!("{line}\n"));
    }

    /// Every import of every module. A parent's re-exports are its table of contents and do not
    /// count; their users import from the child.
    pub(crate) fn imports(&self) -> impl Iterator<Item = (Module, Import)> {
        self.files.iter().flat_map(|(from, code)| {
            let paths = paths_in(code, false);
            paths.into_iter().filter_map(|path| Some((from.clone(), self.resolve(from, &path)?)))
        })
    }

    /// Finds the module that defines the end of a path, or none if the path leaves the crate.
    fn resolve(&self, from: &Module, path: &[String]) -> Option<Import> {
        let mut parts = path.iter().map(String::as_str).peekable();
        let mut module = match *parts.peek()? {
            "crate" => {
                parts.next();
                Module::default()
            }
            "self" => {
                parts.next();
                from.clone()
            }
            "super" => from.clone(),
            first if self.files.contains_key(&from.child(first)) => from.clone(),
            _ => return None,
        };
        while parts.next_if_eq(&"super").is_some() {
            module = module.parent();
        }
        while let Some(child) = parts.next_if(|part| self.files.contains_key(&module.child(part))) {
            module = module.child(child);
        }
        let item = parts.next().unwrap_or_default().to_owned();
        match self.exported_from(&module, &item) {
            Some(import) => Some(import),
            None => Some(Import { module, item }).filter(|import| !import.module.0.is_empty()),
        }
    }

    /// Follows a re-export to the module that defines the item.
    fn exported_from(&self, module: &Module, item: &str) -> Option<Import> {
        let code = if module.0.is_empty() { &self.root } else { self.files.get(module)? };
        let exported = paths_in(code, true);
        let path = exported.iter().find(|path| path.last().is_some_and(|last| last == item))?;
        let import = self.resolve(module, path)?;
        (import.module != *module).then_some(import)
    }

    /// Returns true if users of the crate can name the item too.
    pub(crate) fn is_public(&self, import: &Import) -> bool {
        let name = &import.item;
        let at_root = paths_in(&self.root, true).iter().any(|path| path.last() == Some(name));
        let in_module = || {
            let is_open = self.root.contains(&format!("pub mod {};", import.module.room()));
            let code = &self.files[&import.module];
            let kinds = ["struct", "enum", "trait", "type", "fn", "const"];
            let declared = |kind: &&str| code.contains(&format!("pub {kind} {name}"));
            let exported = || paths_in(code, true).iter().any(|path| path.last() == Some(name));
            is_open && (name.is_empty() || kinds.iter().any(declared) || exported())
        };
        // As `backend::Listed`, which a private module defines.
        let in_another = || {
            let open = |module: &&Module| {
                module.0.len() == 1 && self.root.contains(&format!("pub mod {module};"))
            };
            let mut codes = self.files.iter().filter(|(module, _)| open(module));
            codes.any(|(_, code)| code.lines().any(|line| is_reexport(line, name)))
        };
        at_root || in_module() || in_another()
    }

    /// Calls, in the modules that `is_layer` selects, of functions in the public rooms that are
    /// private to the crate.
    pub(crate) fn private_calls(&self, is_layer: impl Fn(&Module) -> bool) -> Vec<String> {
        let faces = self.files.iter().filter(|(module, _)| PUBLIC.contains(&module.room()));
        let private = faces.flat_map(|(_, code)| code.split("pub(crate) fn ").skip(1));
        let private = private.filter_map(|after| after.split(['(', '<']).next());
        let has = |name: &str, head: &str| {
            self.files.values().any(|code| {
                code.contains(&format!("{head}{name}(")) || code.contains(&format!("{head}{name}<"))
            })
        };
        let is_also_public = |name: &str| {
            ["pub fn ", "\n    fn ", "pub(super) fn ", "async fn "]
                .iter()
                .any(|head| has(name, head))
        };
        let private: Vec<&str> =
            private.filter(|name| !COMMON.contains(name) && !is_also_public(name)).collect();
        let mut calls = Vec::new();
        for (module, code) in self.files.iter().filter(|(module, _)| is_layer(module)) {
            for name in &private {
                if code.contains(&format!(".{name}(")) || code.contains(&format!("::{name}(")) {
                    calls.push(format!("{module} calls {name}, which is private to the crate"));
                }
            }
        }
        calls
    }
}

/// The rooms whose types users see.
const PUBLIC: [&str; 12] = [
    "attempt",
    "backend",
    "begin",
    "clock",
    "error",
    "key",
    "operation",
    "permit",
    "record",
    "stats",
    "store",
    "ticket",
];

/// Names of theirs that methods of other types have too.
const COMMON: [&str; 6] = ["new", "as_bytes", "map", "poll", "now", "block_on"];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .expect("it is a directory")
        .map(|entry| entry.expect("it is read").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// A file's code, without its comments and its unit tests.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .map(|line| line.split(" // ").next().unwrap_or_default())
        .fold(String::new(), |code, line| code + line + "\n")
}

/// Returns true if a line exports the item for users of the crate.
fn is_reexport(line: &str, item: &str) -> bool {
    let exported = line.strip_prefix("pub use ").unwrap_or_default();
    exported.split(|c: char| !c.is_alphanumeric()).any(|name| name == item && !item.is_empty())
}

/// The paths that code names: its re-exports, or all else.
fn paths_in(code: &str, exported: bool) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = ["pub use ", "pub(crate) use ", "pub(super) use ", "use "]
            .iter()
            .filter_map(|word| find_word(statement, word))
            .min_by_key(|(at, _)| *at);
        let Some((at, word)) = start else {
            rest.push_str(statement);
            continue;
        };
        rest.push_str(&statement[..at]);
        if word.starts_with("pub") == exported {
            let tree: String = statement[at + word.len()..].split_whitespace().collect();
            expand(tree.trim_end_matches(';'), &[], &mut paths);
        }
    }
    if !exported {
        paths.extend(inline_paths(&rest));
    }
    paths
}

fn find_word<'a>(statement: &str, word: &'a str) -> Option<(usize, &'a str)> {
    let at = statement
        .match_indices(word)
        .map(|(at, _)| at)
        .find(|at| statement[..*at].chars().next_back().is_none_or(|before| before == '\n'));
    at.map(|at| (at, word))
}

/// Takes the braces out of a use tree.
fn expand(tree: &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let mut path = before.to_vec();
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split(&[' '][..]).next().unwrap_or_default();
        path.extend(
            name.split("::").filter(|part| !part.is_empty() && *part != "self").map(str::to_owned),
        );
        if name == "self" || !name.starts_with("self") {
            paths.push(path);
        } else {
            path.insert(before.len(), "self".to_owned());
            paths.push(path);
        }
        return;
    };
    path.extend(head.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut from) = (0_usize, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[from..at].is_empty() {
                    expand(&group[from..at], &path, paths);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths outside use statements: two parts or more, joined by `::`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !is_part(c)).filter(|word| word.contains("::"));
    let paths = words.map(|word| {
        word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    });
    paths.filter(|path| path.len() > 1).collect()
}
