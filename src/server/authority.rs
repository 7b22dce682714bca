//! The authority that a request is for: its host and port.

use http::Uri;
use http::header::{HOST, HeaderMap};
use http::uri::Authority;

/// Returns the authority of a request: that of the URI, which HTTP/2 and absolute targets have
/// (RFC 9112, 3.2.2), or else what the header `Host` says; empty without both.
///
/// Letters are in lower case. Port 80 and port 443 count as none: clients leave out the default
/// port of the scheme, and a server is not told the scheme of an HTTP/1.1 request.
pub(super) fn authority(uri: &Uri, headers: &HeaderMap) -> Vec<u8> {
    if let Some(authority) = uri.authority() {
        return normal(authority);
    }
    let hosts = headers.get_all(HOST).iter().map(|host| {
        let parsed = Authority::try_from(host.as_bytes());
        parsed.map_or_else(|_| host.as_bytes().to_vec(), |authority| normal(&authority))
    });
    // No value has a line end.
    hosts.collect::<Vec<_>>().join(&b'\n')
}

fn normal(authority: &Authority) -> Vec<u8> {
    let (_, place) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
    let port = place.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    let place = match port {
        Some("" | "80" | "443") => authority.host(),
        _ => place,
    };
    place.to_ascii_lowercase().into_bytes()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(target: &str, hosts: &[&str]) -> String {
        let request = hosts.iter().fold(Request::post(target), |request, host| {
            request.header(HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap())
        });
        let request = request.body(()).unwrap();
        String::from_utf8(authority(request.uri(), request.headers())).unwrap()
    }

    #[test]
    fn the_uri_goes_before_the_header() {
        assert_eq!(of("/calls", &["a.example"]), "a.example");
        assert_eq!(of("http://b.example/calls", &["a.example"]), "b.example");
        assert_eq!(of("http://b.example/calls", &[]), "b.example");
        assert_eq!(of("/calls", &[]), "");
    }

    #[test]
    fn case_userinfo_and_default_ports_do_not_count_and_other_ports_do() {
        for host in ["a.example", "A.Example", "a.example:80", "a.example:443", "a.example:"] {
            assert_eq!(of("/", &[host]), "a.example", "{host}");
            assert_eq!(of(&format!("https://{host}/"), &[]), "a.example", "{host}");
        }
        assert_eq!(of("http://me@a.example/", &[]), "a.example");
        assert_eq!(of("/", &["a.example:8080"]), "a.example:8080");
        assert_eq!(of("/", &["[::1]:443"]), "[::1]");
        assert_eq!(of("/", &["[::1]:8443"]), "[::1]:8443");
    }

    #[test]
    fn a_host_that_is_repeated_or_malformed_counts_as_it_was_sent() {
        assert_eq!(of("/", &["a.example", "b.example"]), "a.example\nb.example");
        assert_ne!(of("/", &["a.example", "b.example"]), of("/", &["b.example", "a.example"]));
        assert_eq!(of("/", &["A example"]), "A example");
        assert_eq!(of("/", &[""]), "");
    }
}
