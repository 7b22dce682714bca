//! The wall clock, beside the times of the store's files.

use std::fs;
use std::io;
use std::path::Path;

use jiff::{Timestamp, ToSpan};

use super::Check;
use crate::time::{between, moment, timestamp};

const NAME: &str = "clock";
/// The disagreement that a store reports too.
const SECONDS: i64 = 60;

pub(super) fn check(directory: &Path) -> io::Result<Check> {
    let mut latest = Timestamp::MIN;
    for file in fs::read_dir(directory)? {
        let modified = file?.metadata().and_then(|metadata| metadata.modified());
        // One that the store has removed meanwhile has no time.
        latest = latest.max(modified.map_or(Timestamp::MIN, timestamp));
    }
    Ok(judged(Timestamp::now(), latest))
}

fn judged(now: Timestamp, latest: Timestamp) -> Check {
    let found = moment(now);
    if latest > now.checked_add(SECONDS.seconds()).unwrap_or(Timestamp::MAX) {
        let found =
            format!("{found}, which is {} before the store's last write", between(now, latest));
        let advice = "set the clock, before a store that counts by it keeps records for longer";
        return Check::fail(NAME, found, advice);
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_before_the_last_write_is_wrong() {
        let at = |second| Timestamp::new(second, 0).unwrap();
        assert_eq!(judged(at(1000), at(1060)).verdict, Verdict::Ok);
        let wrong = judged(at(1000), at(1000 + 7200));
        assert_eq!(wrong.verdict, Verdict::Fail);
        assert!(wrong.found.ends_with("which is 2h before the store's last write"));
    }
}
