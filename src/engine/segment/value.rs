//! The value of a row: a record or a forget, or the place of a larger record.

use crate::clock::Moment;
use crate::engine::log::Location;

/// The longest payload that is kept in its row. A longer one stays in a log.
pub(crate) const MAX_INLINE_BYTES: usize = 512;

/// The value of an address.
///
/// | bytes | content |
/// | --- | --- |
/// | 8 | the time of the batch that made it durable |
/// | 8 | the moment from which it may be dropped |
/// | 1 | 0 if the payload follows, 1 if it is in a log of the segment |
/// | 2 | in a log: number of the log among the segment's |
/// | 8 | in a log: offset of the entry |
/// | 4 | in a log: length of the entry |
/// | 8 | in a log: the first half of the entry's digest |
/// | 2 | in a log: status of the response |
/// | rest | the payload; in a log: that of the record without its response |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) at: Moment,
    pub(crate) expires: Moment,
    pub(crate) content: Content<'a>,
}

/// The content of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Inline(&'a [u8]),
    InLog { log: u16, location: Location, status: u16, bare: &'a [u8] },
}

const INLINE: u8 = 0;
const IN_LOG: u8 = 1;

impl<'a> Value<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(MAX_INLINE_BYTES + 32);
        value.extend_from_slice(&self.at.0.to_le_bytes());
        value.extend_from_slice(&self.expires.0.to_le_bytes());
        match &self.content {
            Content::Inline(payload) => {
                value.push(INLINE);
                value.extend_from_slice(payload);
            }
            Content::InLog { log, location, status, bare } => {
                value.push(IN_LOG);
                value.extend_from_slice(&log.to_le_bytes());
                value.extend_from_slice(&location.offset.to_le_bytes());
                value.extend_from_slice(&location.length.to_le_bytes());
                value.extend_from_slice(&location.check.to_le_bytes());
                value.extend_from_slice(&status.to_le_bytes());
                value.extend_from_slice(bare);
            }
        }
        value
    }

    pub(super) fn decode(value: &'a [u8]) -> Option<Self> {
        let (at, value) = take(value).map(|(at, rest)| (Moment(u64::from_le_bytes(at)), rest))?;
        let (expires, value) = take(value)?;
        let (kind, value) = value.split_first()?;
        let content = match *kind {
            INLINE => Content::Inline(value),
            IN_LOG => {
                let (log, value) = take(value)?;
                let (offset, value) = take(value)?;
                let (length, value) = take(value)?;
                let (check, value) = take(value)?;
                let (status, bare) = take(value)?;
                let location = Location {
                    offset: u64::from_le_bytes(offset),
                    length: u32::from_le_bytes(length),
                    check: u64::from_le_bytes(check),
                    at,
                };
                let (log, status) = (u16::from_le_bytes(log), u16::from_le_bytes(status));
                Content::InLog { log, location, status, bare }
            }
            _ => return None,
        };
        Some(Self { at, expires: Moment(u64::from_le_bytes(expires)), content })
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk().map(|(taken, rest)| (*taken, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Format 2 is on users' disks: these bytes never change.
    #[test]
    fn golden_values_of_format_2() {
        let (at, expires) = (Moment(5), Moment(9));
        let location = Location { offset: 0x1000, length: 0x20, check: 7, at };
        let in_log = Content::InLog { log: 3, location, status: 201, bare: b"bare" };
        let times = "05000000000000000900000000000000";
        for (content, golden) in [
            (Content::Inline(b"payload"), "007061796c6f6164"),
            (in_log, "0103000010000000000000200000000700000000000000c90062617265"),
        ] {
            let value = Value { at, expires, content };
            let bytes = value.encode();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, format!("{times}{golden}"));
            assert_eq!(Value::decode(&bytes), Some(value));
        }
    }

    #[test]
    fn p14_values_that_are_cut_short_are_none() {
        let location = Location { offset: 1, length: 2, check: 3, at: Moment(5) };
        let content = Content::InLog { log: 0, location, status: 201, bare: b"" };
        let bytes = Value { at: Moment(5), expires: Moment(9), content }.encode();
        for length in 0..bytes.len() {
            assert_eq!(Value::decode(&bytes[..length]), None, "{length} bytes");
        }
    }
}
