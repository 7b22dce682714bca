//! P13: what a later version or somebody else wrote is refused, and the directory stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use refrain::Error;
use sha2::{Digest, Sha256};

use super::{Victim, name_of};

const NEWER: u32 = 3;

/// Every file, byte for byte.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (name_of(&path), fs::read(&path).unwrap())).collect()
}

/// Opens a copy in which a file has this content: it must be refused and left alone.
fn refusal(victim: &Victim, name: &Path, content: &[u8]) -> Error {
    let copy = victim.copy();
    fs::write(copy.path().join(name), content).unwrap();
    let before = contents(copy.path());
    let refused = victim.home.builder().open(copy.path()).map(drop);
    assert!(contents(copy.path()) == before, "{} was touched: {refused:?}", name.display());
    refused.expect_err("a foreign file is opened")
}

/// Raises the format behind each of these magics, and makes the checksums right again.
fn newer(bytes: &[u8]) -> Vec<u8> {
    let mut newer = bytes.to_vec();
    // How many bytes are summed up, and then comes their checksum.
    let summed = |magic: &[u8]| match magic {
        b"rfrn lck" => Some(bytes.len() - 32),
        // It is there twice.
        b"rfrn man" => Some(bytes.len() / 2 - 32),
        b"rfrn log" => Some(108),
        // With one log of larger records.
        b"rfrn seg" => Some(8 + 4 + 16 + 4 + 8 * 8 + 8 + 3 * 8),
        _ => None,
    };
    for at in 0..bytes.len().saturating_sub(8) {
        let Some(summed) = summed(&bytes[at..at + 8]) else { continue };
        newer[at + 8..at + 12].copy_from_slice(&NEWER.to_le_bytes());
        let checksum = Sha256::digest(&newer[at..at + summed]);
        newer[at + summed..at + summed + 32].copy_from_slice(&checksum);
    }
    newer
}

#[test]
fn p13_a_newer_format_of_any_file_is_named_and_nothing_is_touched() {
    let victim = Victim::new();
    for file in victim.home.files("") {
        let (name, bytes) = (name_of(&file), fs::read(&file).unwrap());
        match refusal(&victim, &name, &newer(&bytes)) {
            Error::Newer { file, found: NEWER, supported: 1 | 2, .. } => {
                assert_eq!(name_of(&file), name);
            }
            error => panic!("{}: {error:?}", name.display()),
        }
    }
}

#[test]
fn p13_a_foreign_file_under_any_name_is_an_error_and_stays() {
    let victim = Victim::new();
    let text = b"Dear diary, ".repeat(1000);
    let strangers = [&b""[..], &text, &[0; 64 * 1024], &[0xff; 8192], b"SQLite format 3\0"];
    for file in victim.home.files("") {
        let name = name_of(&file);
        for stranger in strangers {
            let error = refusal(&victim, &name, stranger);
            assert!(is_refusal(&error), "{}: {error:?}", name.display());
        }
    }
}

/// They were called foreign, with the advice to choose another directory, which forgets every key.
#[test]
fn p5_a_list_that_is_lost_is_damage_where_the_other_is_there() {
    let victim = Victim::new();
    for name in ["LOCK", "MANIFEST"] {
        let length = fs::read(victim.home.file(name)).unwrap().len();
        let error = refusal(&victim, Path::new(name), &vec![0; length]);
        let Error::Corrupt { file, reason, .. } = &error else { panic!("{name}: {error:?}") };
        assert_eq!(name_of(file), Path::new(name));
        assert!(reason.contains("Store::salvage"), "{reason}");
    }
}

#[test]
fn p13_another_stores_file_is_an_error_and_stays() {
    let (victim, other) = (Victim::new(), Victim::new());
    for file in victim.home.files("") {
        let name = name_of(&file);
        let foreign = fs::read(other.home.file(&name.to_string_lossy())).unwrap();
        let error = refusal(&victim, &name, &foreign);
        assert!(is_refusal(&error), "{}: {error:?}", name.display());
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Foreign { .. } | Error::Corrupt { .. })
}
