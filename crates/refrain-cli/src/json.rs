//! The JSON of keys and their records. `README.md` describes it; fields are added, and never change
//! their meaning.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use refrain::record::Trailers;
use refrain::{Key, Record};
use serde::Serialize;

use crate::entry::{Entry, State};
use crate::failure;
use crate::time::timestamp;

/// An entry. What is not known of a key in its state is left out.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    state: State,
    scope: Option<String>,
    key: Option<&'a str>,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Facts {
    Completed {
        request_id: String,
        fingerprint: String,
        status: Option<u16>,
        completed_at: String,
        expires_at: String,
        /// `null` if the response was not kept; left out if it was not asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<Option<Response>>,
    },
    Interrupted {
        request_id: String,
        fingerprint: String,
        attempt: u32,
        checkpoints: Vec<Blob>,
        /// The bytes from which the keys that the run sent downstream were derived.
        seed: Option<Blob>,
    },
    Damaged {
        error: String,
    },
}

/// A stored response.
#[derive(Debug, Serialize)]
pub(crate) struct Response {
    status: u16,
    headers: Vec<(String, Blob)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trailers: Vec<(String, Blob)>,
    body: Blob,
}

/// Bytes: a string if they are UTF-8, and an object with their Base64 otherwise.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Blob {
    Text(String),
    Binary { base64: String },
}

impl<'a> Line<'a> {
    /// Describes an entry without its response.
    pub(crate) fn summary(entry: &'a Entry) -> Self {
        Self::new(entry, |_| None)
    }

    /// Describes an entry with its response.
    pub(crate) fn whole(entry: &'a Entry) -> Self {
        Self::new(entry, |record| Some(record.response().map(Response::of)))
    }

    fn new(entry: &'a Entry, response: impl FnOnce(&Record) -> Option<Option<Response>>) -> Self {
        let facts = match entry {
            Entry::Completed { record, status, .. } => Facts::Completed {
                request_id: record.request_id().to_string(),
                fingerprint: record.fingerprint().to_string(),
                status: status.map(|status| status.as_u16()),
                completed_at: timestamp(record.completed_at()).to_string(),
                expires_at: timestamp(record.expires_at()).to_string(),
                response: response(record),
            },
            Entry::Interrupted(past) => Facts::Interrupted {
                request_id: past.request_id.to_string(),
                fingerprint: past.fingerprint.to_string(),
                attempt: past.attempt,
                checkpoints: past.checkpoints.iter().map(|bytes| Blob::of(bytes)).collect(),
                seed: past.seed.map(|seed| Blob::Binary { base64: STANDARD.encode(seed) }),
            },
            Entry::Damaged { error, .. } => Facts::Damaged { error: failure::chain(error) },
        };
        let scope = entry.scope().map(|scope| scope.to_string());
        Self { state: entry.state(), scope, key: entry.key().map(Key::as_str), facts }
    }
}

impl Response {
    fn of(response: &http::Response<Bytes>) -> Self {
        let trailers = response.extensions().get::<Trailers>();
        Self {
            status: response.status().as_u16(),
            headers: pairs(response.headers()),
            trailers: trailers.map_or_else(Vec::new, |Trailers(map)| pairs(map)),
            body: Blob::of(response.body()),
        }
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, Blob)> {
    headers.iter().map(|(name, value)| (name.to_string(), Blob::of(value.as_bytes()))).collect()
}

impl Blob {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Binary { base64: STANDARD.encode(bytes) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let json = |bytes| serde_json::to_string(&Blob::of(bytes)).unwrap();
        assert_eq!(json("é".as_bytes()), "\"é\"");
        assert_eq!(json(&[0xff, 0]), r#"{"base64":"/wA="}"#);
    }
}
