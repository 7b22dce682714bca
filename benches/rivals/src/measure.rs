//! The resources that a store takes: memory, bytes written, and space on the disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::rivals::Rival;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The resident memory of its processes, without pages of files; shared memory counts once.
    pub memory: u64,
    /// Bytes written to the disk, by everybody, including what the file system adds.
    pub written: u64,
    /// Blocks of the store's files, in bytes.
    pub on_disk: u64,
    /// The blocks of segments alone, for refrain.
    pub in_segments: u64,
    /// Processes, which a kill must reach.
    pub processes: Vec<u32>,
    pub facts: Vec<(String, f64)>,
}

impl Measured {
    pub fn fact(&self, name: &str) -> Option<f64> {
        self.facts.iter().find(|(fact, _)| fact == name).map(|(_, figure)| *figure)
    }
}

pub fn measure(rival: &dyn Rival, directory: &Path) -> Result<Measured> {
    let processes = rival.processes();
    let mut measured = Measured { facts: rival.facts(), ..Measured::default() };
    for process in &processes {
        // One that has ended meanwhile takes nothing.
        for name in ["Pss_Anon:", "Pss_Shmem:"] {
            measured.memory += field(*process, "smaps_rollup", name).unwrap_or(0) * 1024;
        }
    }
    measured.written = written(directory)?;
    measured.processes = processes;
    measured.on_disk = blocks(directory, &|_| true)?;
    measured.in_segments = blocks(directory, &|path| path.extension() == Some("redb".as_ref()))?;
    Ok(measured)
}

/// The bytes that were written to the disk of a directory, once nothing of it is in memory alone.
///
/// Bytes written by processes are not what is meant: where a page is part of a larger folio, Linux
/// counts all of the folio.
fn written(directory: &Path) -> Result<u64> {
    const SECTOR: u64 = 512;
    /// The field behind reads, merged reads, sectors read, read time, writes and merged writes.
    const SECTORS_WRITTEN: usize = 6;
    rustix::fs::sync();
    let device = directory.metadata()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("{path}: no such disk"))?;
    let sectors = stat.split_whitespace().nth(SECTORS_WRITTEN).context("no such field")?;
    Ok(sectors.parse::<u64>()? * SECTOR)
}

/// The processor time of the store's processes, and of this one.
pub fn cpu_time(rival: &dyn Rival) -> Result<Duration> {
    let mut processes = rival.processes();
    processes.push(std::process::id());
    processes.sort_unstable();
    processes.dedup();
    let tick = Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second())?;
    let mut ticks = 0;
    for process in processes {
        // With that of children that have ended: PostgreSQL has one for each connection.
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        ticks += fields.split(' ').skip(12).take(4).flat_map(str::parse::<u32>).sum::<u32>();
    }
    Ok(tick * ticks)
}

fn field(process: u32, file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn blocks(path: &Path, counts: &impl Fn(&Path) -> bool) -> Result<u64> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(0) };
    if !metadata.is_dir() {
        return Ok(if counts(path) { metadata.blocks() * 512 } else { 0 });
    }
    std::fs::read_dir(path)?.map(|entry| blocks(&entry?.path(), counts)).sum()
}
