//! The machine of the measurements.

use std::path::Path;
use std::process::Command;

use crate::results::Machine;

pub fn describe(directory: &Path) -> Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        date: jiff::Timestamp::now().strftime("%F").to_string(),
        processor: model.unwrap_or("unknown").trim_start_matches([' ', '\t', ':']).to_owned(),
        cores: std::thread::available_parallelism().map_or(0, Into::into),
        kernel: kernel.trim().to_owned(),
        file_system: said("findmnt", &["-no", "FSTYPE", "-T", &directory.to_string_lossy()]),
        versions: versions(),
    }
}

/// Those of the libraries are in the lock file that this was built with.
fn versions() -> Vec<(String, String)> {
    let lock: Vec<_> = include_str!("../Cargo.lock").split("[[package]]").collect();
    let library = |name: &str| {
        let package = lock.iter().find(|package| package.contains(&format!("name = \"{name}\"\n")));
        let version = package.and_then(|package| package.split("version = \"").nth(1));
        version.and_then(|version| version.split('"').next()).unwrap_or("unknown").to_owned()
    };
    let mut versions: Vec<_> = ["refrain", "redb", "fjall", "heed", "rusqlite"]
        .map(|name| (name.to_owned(), library(name)))
        .into();
    versions.push(("SQLite".into(), rusqlite::version().into()));
    versions.push(("RocksDB".into(), said("pkg-config", &["--modversion", "rocksdb"])));
    versions.push(("Redis".into(), number(&said("redis-server", &["--version"]))));
    versions.push(("PostgreSQL".into(), number(&said("psql", &["--version"]))));
    versions
}

/// The version in what a server says about itself.
fn number(said: &str) -> String {
    let words = said.split_whitespace().map(|word| word.trim_start_matches("v="));
    let mut numbers = words.filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    numbers.next().unwrap_or("none").to_owned()
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| "none".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
