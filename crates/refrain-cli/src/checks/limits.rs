//! The limits of the process that has a store open, or of this one.

use std::fs;

use super::Check;
use crate::text::size;

/// The files that a store asks for, where its hard limit allows it.
const FILES: u64 = 1024;
/// The largest log by default.
const FILE_BYTES: u64 = 128 * 1024 * 1024;

/// Checks the limits of a process, as far as the system shows them.
pub(super) fn checks(process: Option<u32>) -> Vec<Check> {
    let process = process.map_or("self".to_owned(), |process| process.to_string());
    fs::read_to_string(format!("/proc/{process}/limits"))
        .map_or_else(|_| Vec::new(), |limits| vec![open_files(&limits), file_size(&limits)])
}

fn open_files(limits: &str) -> Check {
    const NAME: &str = "open files";
    match hard_limit(limits, "Max open files") {
        Some(max) if max < FILES => Check::warn(
            NAME,
            format!("up to {max}"),
            "raise the limit to 1024 or more: `ulimit -n`, or LimitNOFILE= in a systemd unit",
        ),
        Some(max) => Check::ok(NAME, format!("up to {max}")),
        None => Check::ok(NAME, "without limit"),
    }
}

fn file_size(limits: &str) -> Check {
    const NAME: &str = "file size";
    match hard_limit(limits, "Max file size") {
        Some(max) if max < FILE_BYTES => Check::warn(
            NAME,
            format!("up to {}", size(max)),
            "raise the limit to 128 MiB or more: `ulimit -f`, or LimitFSIZE= in a systemd unit",
        ),
        Some(max) => Check::ok(NAME, format!("up to {}", size(max))),
        None => Check::ok(NAME, "without limit"),
    }
}

/// Reads the second figure behind a name, or none for `unlimited`.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn hard_limits_are_read_as_the_system_shows_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max file size             unlimited            unlimited            bytes\n\
                      Max open files            256                  512                  files\n";
        assert_eq!(file_size(limits).found, "without limit");
        assert_eq!(open_files(limits).verdict, Verdict::Warn);
        assert_eq!(open_files(limits).found, "up to 512");
        let limits = limits.replace("unlimited            bytes", "1048576   bytes");
        assert_eq!(file_size(&limits).found, "up to 1.0 MiB");
        assert_eq!(file_size(&limits).verdict, Verdict::Warn);
    }
}
