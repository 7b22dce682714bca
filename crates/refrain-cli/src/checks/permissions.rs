//! The owner and the modes of a store's directory and files.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::geteuid;

use super::Check;

const NAME: &str = "permissions";
/// The bits of the group and of others.
const OF_OTHERS: u32 = 0o077;

pub(super) fn check(directory: &Path) -> io::Result<Check> {
    let user = geteuid().as_raw();
    let owner = fs::metadata(directory)?.uid();
    if user != 0 && user != owner {
        let found = format!("the directory belongs to user {owner}, and this is user {user}");
        return Ok(Check::fail(NAME, found, "run this as the user that the server runs as"));
    }
    let mut open = Vec::new();
    let mut foreign = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // One that the store has removed meanwhile needs no check.
        let Ok(metadata) = entry.metadata() else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_open(&metadata) {
            open.push(name.clone());
        }
        if metadata.uid() != owner {
            foreign.push(name);
        }
    }
    Ok(judged(is_open(&fs::metadata(directory)?), &open, &foreign))
}

fn is_open(metadata: &Metadata) -> bool {
    metadata.mode() & OF_OTHERS != 0
}

fn judged(is_directory_open: bool, open: &[String], foreign: &[String]) -> Check {
    if let Some(name) = foreign.first() {
        let found = format!("{name} belongs to another user than the directory");
        return Check::fail(NAME, found, "give all of it to the user that the server runs as");
    }
    // Behind a closed directory the modes of the files do not matter.
    if is_directory_open {
        let found = match open.first() {
            Some(name) => format!("others may read {name}"),
            None => "others may list the directory".to_owned(),
        };
        return Check::warn(NAME, found, "take their rights with `chmod -R go= DIR`");
    }
    Check::ok(NAME, "the directory is its owner's alone")
}
