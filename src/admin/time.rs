//! Times in documents: RFC 3339 in UTC.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // A store's times are within what can be shown.
    serializer.collect_str(&Timestamp::try_from(*time).unwrap_or(Timestamp::MAX))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    let time: Timestamp = String::deserialize(deserializer)?.parse().map_err(D::Error::custom)?;
    time.try_into().map_err(D::Error::custom)
}
