//! JSON in its canonical form (RFC 8785), where the form is exact.

use std::collections::HashSet;
use std::fmt;

use http::request::Parts;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::http::media_type;

/// The largest integer of the range that is exact in the canonical form, whose numbers are IEEE
/// doubles: 2^53 - 1.
const MAX_EXACT: u64 = (1 << 53) - 1;

/// Returns the body in canonical form, if it is JSON with an exact one.
///
/// Bodies with different meanings never share a form: an object with a repeated name, or an integer
/// that a double cannot hold, has no form, and is compared byte for byte.
pub(super) fn canonical(request: &Parts, body: &[u8]) -> Option<Vec<u8>> {
    if !is_json(request) || serde_json::from_slice::<Faithful>(body).is_err() {
        return None;
    }
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    serde_json_canonicalizer::to_vec(&value).ok()
}

/// Returns whether the media type is `application/json`, or has the suffix `+json`.
fn is_json(request: &Parts) -> bool {
    let media_type = media_type(&request.headers).to_ascii_lowercase();
    media_type == b"application/json" || media_type.ends_with(b"+json")
}

/// JSON whose names are unique and whose integers are exact.
struct Faithful;

impl<'de> Deserialize<'de> for Faithful {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Faithful {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON that has a canonical form")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self, E> {
        if number <= MAX_EXACT { Ok(self) } else { Err(E::custom("inexact")) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self, E> {
        self.visit_u64(number.unsigned_abs())
    }

    /// Integers over 64 bits arrive as doubles, perhaps rounded, so large values are refused.
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self, E> {
        #[expect(clippy::cast_precision_loss, reason = "it is exact up to here")]
        let max = MAX_EXACT as f64;
        if number.abs() <= max { Ok(self) } else { Err(E::custom("inexact")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Self)) = members.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name is repeated"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::CONTENT_TYPE;

    use super::*;

    fn form(content_type: &str, body: &str) -> Option<String> {
        let request = Request::post("/").header(CONTENT_TYPE, content_type).body(()).unwrap();
        canonical(&request.into_parts().0, body.as_bytes())
            .map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn order_space_and_spelling_do_not_matter() {
        let expected = Some(r#"{"a":[1,"é"],"b":null}"#.to_owned());
        for body in [
            r#"{"a":[1,"é"],"b":null}"#,
            r#" { "b" : null, "a" : [ 1.0, "\u00e9" ] } "#,
            r#"{"a":[10e-1,"é"],"b":null}"#,
        ] {
            assert_eq!(form("application/json; charset=utf-8", body), expected, "{body}");
            assert_eq!(form("application/vnd.calls+JSON", body), expected, "{body}");
        }
    }

    #[test]
    fn what_the_form_would_confound_has_none() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":[{"b":1,"\u0062":2}]}"#,
            "9007199254740993",
            "-9007199254740993",
            "1e400",
            "123456789012345678901234567890",
            "{",
            "",
        ] {
            assert_eq!(form("application/json", body), None, "{body}");
        }
        assert_eq!(form("text/plain", "{}"), None);
    }
}
