//! Processor time, as the kernel counts it for each process.

use std::fs;

/// Clock ticks in a second, as Linux has them.
const TICKS: f64 = 100.0;

/// Seconds of this process.
pub fn own() -> f64 {
    stat("self").map_or(0.0, |stat| stat.own)
}

/// Seconds of a process and its children, those that have ended included.
pub fn tree(root: u32) -> f64 {
    let mut sum = stat(&root.to_string()).map_or(0.0, |stat| stat.own + stat.ended);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(stat) = name.to_str().and_then(stat) else { continue };
        if stat.parent == root {
            sum += stat.own;
        }
    }
    sum
}

struct Stat {
    parent: u32,
    own: f64,
    ended: f64,
}

fn stat(pid: &str) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS,
        ended: (ticks(13)? + ticks(14)?) / TICKS,
    })
}
