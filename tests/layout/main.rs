//! The layout of `src/`: rooms on floors, no import circle, and layers that use public names only.

mod guarantees;
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Module, Tree};

/// The rooms from the ground up. A module may import only what stands on a lower floor.
const ROOMS: [&[&str]; 15] = [
    &["sync", "key"],
    &["error", "clock", "address_map", "cursor", "stats"],
    &["observe", "operation", "salvage"],
    &["record", "ticket", "health"],
    &["codec", "table", "listed"],
    &["backend"],
    &["face"],
    &["permit", "records"],
    &["attempt"],
    &["begin"],
    &["store"],
    &["engine"],
    &["http"],
    &["server", "client"],
    &["admin"],
];

/// The floors inside `engine/`; the head is `engine.rs` itself.
const ENGINE: [&[&str]; 12] = [
    &["disk", "digest"],
    &["trouble", "settings"],
    &["entry"],
    &["log"],
    &["segment"],
    &["ledger"],
    &["core"],
    &["commit"],
    &["settler", "claim"],
    &["writer", "reaper"],
    &["head"],
    &["builder"],
];

/// Rooms for users of the crate's public face, who have no other.
const LAYERS: [&str; 4] = ["http", "server", "client", "admin"];

/// Modules outside the floors: they reach into everything, and nothing reaches into them.
const OUTSIDE: [&str; 2] = ["internals", "oracles"];

#[test]
fn every_module_imports_only_lower_floors() {
    let tree = Tree::read();
    assert!(tree.imports().count() > 200, "is the source read at all?");
    let upward = upward(&tree);
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn no_imports_make_a_circle() {
    assert_eq!(circle(&Tree::read()), None);
}

#[test]
fn the_layers_use_public_names_only() {
    let tree = Tree::read();
    let mut private = Vec::new();
    for (from, import) in tree.imports().filter(|(from, _)| LAYERS.contains(&from.room())) {
        let beside = LAYERS.contains(&import.module.room());
        if !beside && !tree.is_public(&import) {
            private.push(format!("{from} imports {}::{}", import.module, import.item));
        }
    }
    for call in tree.private_calls(|module| LAYERS.contains(&module.room())) {
        private.push(call);
    }
    assert!(private.is_empty(), "{private:#?}");
}

#[test]
fn only_the_segment_module_names_redb() {
    for (module, code) in &Tree::read().files {
        let is_segment = module.to_string().starts_with("engine::segment");
        assert!(is_segment || !code.contains("redb::"), "{module}");
    }
}

/// Each of these passed an earlier form of this test.
#[test]
fn planted_upward_imports_are_noticed() {
    for line in [
        "use crate::{Builder, Error};",
        "use crate::Builder;",
        "use super::builder::Builder;",
        "use super::{\n    disk::Disk,\n    builder::Builder,\n};",
        "fn planted() -> crate::engine::builder::Builder { loop {} }",
    ] {
        let mut tree = Tree::read();
        tree.plant("engine::ledger", line);
        let upward = upward(&tree);
        assert_eq!(upward.len(), 1, "{line}: {upward:?}");
        assert!(upward[0].contains("engine::builder"), "{upward:?}");
    }
}

#[test]
fn a_planted_circle_is_noticed() {
    let mut tree = Tree::read();
    tree.plant("permit", "use crate::begin::Begin;");
    assert!(circle(&tree).is_some_and(|circle| circle.contains("permit")));
}

#[test]
fn planted_private_names_are_noticed() {
    let mut tree = Tree::read();
    tree.plant("server::service", "fn planted(r: Record) { r.expiry(); }");
    let calls = tree.private_calls(|module| LAYERS.contains(&module.room()));
    assert!(calls.iter().any(|call| call.contains("expiry")), "{calls:?}");
}

/// The row of P14 cited a module whose tests had moved elsewhere.
#[test]
fn each_promise_cites_modules_with_a_test_that_is_named_after_it() {
    let citations = guarantees::citations();
    assert!(citations.len() > 50, "is the table read at all?");
    let broken = citations.iter().filter(|citation| !citation.is_kept());
    let broken: Vec<_> =
        broken.map(|citation| format!("{}: {}", citation.promise, citation.module)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The imports that name a module on the same floor or a higher one.
fn upward(tree: &Tree) -> Vec<String> {
    let imports = tree.imports().filter(|(from, _)| !OUTSIDE.contains(&from.room()));
    let upward = imports.filter(|(from, import)| !is_lower(&import.module, from));
    upward.map(|(from, import)| format!("{from} imports {}", import.module)).collect()
}

fn is_lower(target: &Module, from: &Module) -> bool {
    let floors = |module: &Module| match module.room() {
        "engine" => (floor(&ROOMS, "engine"), floor(&ENGINE, module.part(1).unwrap_or("head"))),
        room => (floor(&ROOMS, room), 0),
    };
    let is_same_room = target.room() == from.room()
        && (target.room() != "engine" || target.part(1) == from.part(1));
    is_same_room || floors(target) < floors(from)
}

fn floor(floors: &[&[&str]], name: &str) -> usize {
    let floor = floors.iter().position(|floor| floor.contains(&name));
    floor.unwrap_or_else(|| panic!("module {name} stands on no floor"))
}

/// A chain of imports that leads back to its beginning, if there is one.
fn circle(tree: &Tree) -> Option<String> {
    let mut graph: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, import) in tree.imports() {
        if !OUTSIDE.contains(&from.room()) && from != import.module {
            graph.entry(from).or_default().insert(import.module);
        }
    }
    let mut finished = BTreeSet::new();
    graph.keys().find_map(|module| search(&graph, module, &mut Vec::new(), &mut finished))
}

fn search(
    graph: &BTreeMap<Module, BTreeSet<Module>>,
    module: &Module,
    path: &mut Vec<Module>,
    finished: &mut BTreeSet<Module>,
) -> Option<String> {
    if let Some(at) = path.iter().position(|earlier| earlier == module) {
        let names = path[at..].iter().chain([module]).map(Module::to_string);
        return Some(names.collect::<Vec<_>>().join(" -> "));
    }
    if finished.contains(module) {
        return None;
    }
    path.push(module.clone());
    let found = graph
        .get(module)
        .into_iter()
        .flatten()
        .find_map(|next| search(graph, next, path, finished));
    path.pop();
    finished.insert(module.clone());
    found
}
