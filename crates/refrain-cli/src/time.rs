//! Points in time and lengths of time, as people and programs read them.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// A moment that was named on the command line, or one so long ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(pub(crate) Timestamp);

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "give a time as 2026-01-31T03:00:00Z, or one so long ago as 2h 30m";
        if let Ok(ago) = humantime::parse_duration(text) {
            let since = Timestamp::now().checked_sub(ago).map_err(|_| FORMS)?;
            return Ok(Self(since));
        }
        text.parse().map(Self).map_err(|_| FORMS)
    }
}

/// Returns a time of the store, which is within what can be shown.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

/// Shows a time to the second, in UTC.
pub(crate) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Shows the time between two moments in its two largest units, as `23h 59m`.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    let elapsed = Duration::try_from(to.duration_since(from)).unwrap_or_default();
    let shown = humantime::format_duration(Duration::from_secs(elapsed.as_secs())).to_string();
    shown.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_named_by_its_date_or_by_its_age() {
        let since = |text: &str| text.parse::<Since>().map(|since| since.0);
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(Timestamp::new(60, 0).unwrap()));
        let two_hours_ago = since("2h").unwrap();
        let ago = Timestamp::now().duration_since(two_hours_ago);
        assert_eq!(ago.as_hours(), 2);
        assert!(since("yesterday").is_err());
        assert!(since("99999999y").is_err());
    }

    #[test]
    fn an_age_has_two_units() {
        let at = |second| Timestamp::new(second, 0).unwrap();
        assert_eq!(between(at(0), at(86_399)), "23h 59m");
        assert_eq!(between(at(9), at(9)), "0s");
        assert_eq!(between(at(9), at(0)), "0s");
    }
}
