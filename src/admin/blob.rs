//! Bytes in a document.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that a client or a server sent. In JSON they are a string if they are UTF-8, and
/// `{"base64": "…"}` otherwise.
///
/// `Debug` shows their number only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Bytes);

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Binary(Binary),
}

#[derive(Serialize, Deserialize)]
struct Binary {
    base64: String,
}

impl Binary {
    fn of(blob: &Blob) -> Self {
        Self { base64: STANDARD.encode(&blob.0) }
    }
}

/// Writes bytes that are no text, whatever they look like.
pub(super) fn as_binary<S: Serializer>(
    blob: &Option<Blob>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    blob.as_ref().map(Binary::of).serialize(serializer)
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Binary::of(self).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Binary(Binary { base64 }) => STANDARD.decode(base64).map_err(D::Error::custom)?,
        };
        Ok(Self(bytes.into()))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_json() {
        for (bytes, json) in
            [("é".as_bytes(), "\"é\""), (&[0xff, 0][..], r#"{"base64":"/wA="}"#), (b"", "\"\"")]
        {
            let blob = Blob(Bytes::copy_from_slice(bytes));
            assert_eq!(serde_json::to_string(&blob).unwrap(), json);
            assert_eq!(serde_json::from_str::<Blob>(json).unwrap(), blob);
        }
        assert!(serde_json::from_str::<Blob>(r#"{"base64":"!"}"#).is_err());
    }
}
