//! Fingerprints: two requests share one if, and only if, they are the same request.

#![no_main]

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use refrain::Fingerprint;
use refrain::oracles::{canonical_fingerprint, request_fingerprint};
use serde_json::{Number, Value};

/// The headers that belong to the fingerprint, and one that does not.
static CHOSEN: [HeaderName; 2] = [CONTENT_TYPE, HeaderName::from_static("a")];
static OTHER: HeaderName = HeaderName::from_static("z");

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// The body, which is cut in two ways.
    bytes: &'a [u8],
    cuts: [&'a [u8]; 2],
    one: Fields<'a>,
    other: Fields<'a>,
    /// Flags of the fields that the other request takes from the first.
    shared: [bool; 4],
}

#[derive(Arbitrary, Debug)]
struct Fields<'a> {
    method: &'a [u8],
    target: &'a [u8],
    headers: Vec<(u8, &'a [u8])>,
    body: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let [one, other] = input.cuts.map(|cuts| parts(input.bytes, cuts));
    assert_eq!(Fingerprint::of(&one) == Fingerprint::of(&other), one == other);

    let (one, mut other) = (input.one, input.other);
    let [method, target, headers, body] = input.shared;
    if method {
        other.method = one.method;
    }
    if target {
        other.target = one.target;
    }
    if headers {
        other.headers.clone_from(&one.headers);
    }
    if body {
        other.body = one.body;
    }
    let (Some(a), Some(b)) = (head(&one), head(&other)) else { return };
    let fingerprints = [(&a, one.body), (&b, other.body)]
        .map(|(head, body)| request_fingerprint(&CHOSEN, head, body));
    let (same_line, same_headers) = (line(&a) == line(&b), chosen(&a).eq(chosen(&b)));
    let is_same = same_line && same_headers && one.body == other.body;
    assert_eq!(fingerprints[0] == fingerprints[1], is_same);
    let same_endpoint = endpoint(&a) == endpoint(&b);
    assert_eq!(fingerprints[0].has_endpoint_of(&fingerprints[1]), same_endpoint);

    if canonical_fingerprint(&a, one.body) == canonical_fingerprint(&b, other.body) {
        assert!(same_line && means_the_same(one.body, other.body));
    }
});

/// Each cut says how much the next part has; the last one has the rest.
fn parts<'a>(mut bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for cut in cuts {
        let (part, rest) = bytes.split_at(bytes.len().min(usize::from(*cut)));
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

fn head(fields: &Fields<'_>) -> Option<Parts> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(fields.method).ok()?;
    head.uri = Uri::try_from(fields.target).ok()?;
    for (name, value) in &fields.headers {
        let name = CHOSEN.get(usize::from(*name)).unwrap_or(&OTHER);
        head.headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(head)
}

fn line(head: &Parts) -> (&str, Option<&str>) {
    (head.method.as_str(), head.uri.path_and_query().map(|target| target.as_str()))
}

fn endpoint(head: &Parts) -> (&str, &str) {
    let (method, target) = line(head);
    (method, target.unwrap_or("").split('?').next().unwrap_or(""))
}

fn chosen(head: &Parts) -> impl Iterator<Item = Vec<&HeaderValue>> {
    CHOSEN.iter().map(|name| head.headers.get_all(name).iter().collect())
}

/// The same bytes, or the same JSON.
fn means_the_same(a: &[u8], b: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<Value>(bytes);
    a == b || matches!((json(a), json(b)), (Ok(a), Ok(b)) if is_equal(&a, &b))
}

fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // serde_json keeps their text here. Equal decimals are equal doubles; that doubles are not
        // enough, and -0 is not 0, is tried beside the form.
        (Value::Number(a), Value::Number(b)) => {
            let double = |number: &Number| number.as_str().parse::<f64>().expect("it is a number");
            double(a) == double(b)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        (a, b) => a == b,
    }
}
