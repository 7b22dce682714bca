//! Redirects of mutations: those that are followed, and those that fail the call.
//!
//! Invariants:
//! - A request that is sent on keeps its method, its key, its headers and its body.
//! - A key is never sent to another origin.

use http::header::{HeaderMap, HeaderValue, LOCATION};
use http::{StatusCode, Uri};
use url::{Position, Url};

use crate::http::only;

/// Redirects that one attempt follows.
pub(super) const MAX_REDIRECTS: usize = 10;

/// The origin of a request whose URI names none. Every absolute location is outside it.
const UNNAMED: &str = "http://unnamed.invalid";

/// Returns where a redirect leads, or `None` for any other answer.
///
/// 300 offers a choice, 304 is about a copy, and a redirect without a location leads nowhere: they
/// answer the call.
pub(super) fn location(status: StatusCode, headers: &HeaderMap) -> Option<&HeaderValue> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    headers.get(LOCATION).filter(|_| redirects)
}

/// Returns the URI to send the same request to, if the redirect keeps its method and its origin.
pub(super) fn target(from: &Uri, status: StatusCode, headers: &HeaderMap) -> Option<Uri> {
    if !matches!(status.as_u16(), 307 | 308) {
        return None;
    }
    let location = only(headers, &LOCATION).ok()??.to_str().ok()?;
    let base = match from.scheme() {
        Some(_) => Url::parse(&from.to_string()).ok()?,
        None => Url::parse(UNNAMED).ok()?.join(from.path_and_query()?.as_str()).ok()?,
    };
    let to = base.join(location).ok()?;
    if to.origin() != base.origin() {
        return None;
    }
    // Scheme and authority stay as they were sent, so the key cannot get elsewhere.
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(to[Position::BeforePath..Position::AfterQuery].parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(from: &str, status: u16, location: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static(location));
        let status = StatusCode::from_u16(status).unwrap();
        target(&from.parse().unwrap(), status, &headers).map(|uri| uri.to_string())
    }

    #[test]
    fn a_location_is_resolved_within_the_origin_of_the_request() {
        let from = "http://Calls.test/v1/calls?a=b";
        for (location, to) in [
            ("/v2/calls?c=d#part", "http://Calls.test/v2/calls?c=d"),
            ("calls/", "http://Calls.test/v1/calls/"),
            ("?x", "http://Calls.test/v1/calls?x"),
            ("http://calls.test:80/v1/calls/", "http://Calls.test/v1/calls/"),
            ("HTTP://user:word@CALLS.test", "http://Calls.test/"),
            ("//calls.test/a b", "http://Calls.test/a%20b"),
        ] {
            assert_eq!(led(from, 307, location).as_deref(), Some(to), "{location}");
            assert_eq!(led(from, 308, location).as_deref(), Some(to), "{location}");
        }
        assert_eq!(led("/v1/calls", 308, "/v1/calls/").as_deref(), Some("/v1/calls/"));
    }

    #[test]
    fn another_origin_or_another_method_is_no_target() {
        let from = "http://calls.test/v1/calls";
        for location in [
            "https://calls.test/v1/calls",
            "http://calls.test:8080/v1/calls",
            "http://other.test/v1/calls",
            "http://calls.test@other.test/",
            "//other.test/",
            "\\\\other.test/",
            "/\\other.test/",
            "mailto:calls@calls.test",
            "http://[",
        ] {
            assert_eq!(led(from, 307, location), None, "{location}");
            assert_eq!(led("/v1/calls", 307, location), None, "{location}");
        }
        for status in [200, 300, 301, 302, 303, 304] {
            assert_eq!(led(from, status, "/v1/calls/"), None, "{status}");
        }
    }

    #[test]
    fn two_locations_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(LOCATION, HeaderValue::from_static("/a"));
        headers.append(LOCATION, HeaderValue::from_static("/b"));
        let from = Uri::from_static("http://calls.test/");
        assert_eq!(target(&from, StatusCode::TEMPORARY_REDIRECT, &headers), None);
        assert!(location(StatusCode::TEMPORARY_REDIRECT, &headers).is_some());
    }
}
