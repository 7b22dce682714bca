//! The binaries of the examples: the reference server, and others.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The reference server.
pub(crate) fn path() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| example("calls"))
}

/// Returns the path of an example, built from the current sources.
///
/// `cargo test --test calls` builds no examples, so the tests ask cargo for it, with their own
/// profile and target directory, and with the features of `cargo test --all-features`: after that
/// command cargo has nothing left to build.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    if let Some(cargo) = std::env::var_os("CARGO") {
        build(Command::new(cargo), name, profile);
    }
    profile.join("examples").join(name)
}

fn build(mut cargo: Command, example: &str, profile: &Path) {
    // Those of the package under test, for which a dependency would be built anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            cargo.env_remove(name);
        }
    }
    let name = match profile.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let built = cargo
        .args(["build", "--quiet", "--all-features", "--example", example])
        .args(["--profile", name, "--target-dir"])
        .arg(profile.parent().unwrap())
        .current_dir(workspace())
        .status()
        .unwrap();
    assert!(built.success(), "cargo cannot build the example {example}");
}

/// The directory of the workspace, whichever of its packages the test is in.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|directory| directory.join("Cargo.lock").is_file());
    root.expect("the lock file is the workspace's")
}
