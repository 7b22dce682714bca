//! A response that an operator hands in, as `curl -i` prints one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use httparse::Status;
use refrain::Record;
use refrain::codec::MAX_BODY_BYTES;

use crate::failure::{Failure, Result};
use crate::owner::is_input;

/// Headers that belong to one connection or one moment: the server layer does not store them either.
/// The length is that of the body.
const NOT_STORED: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
    header::SERVER,
    HeaderName::from_static("x-request-id"),
    header::CONTENT_LENGTH,
];
/// Headers that are read, those that are not stored among them.
const MAX_HEADERS: usize = Record::MAX_HEADERS + 16;
/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = (MAX_BODY_BYTES + 4 * Record::MAX_HEADER_BYTES) as u64;

/// Reads a response from a file, or from standard input for `-`.
pub(crate) fn read(file: &Path) -> Result<Response<Bytes>> {
    let mut bytes = Vec::new();
    let read = if is_input(file) {
        io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
    };
    read.map_err(|source| Failure::File { action: "read", path: file.into(), source })?;
    parsed(&bytes).map_err(|reason| {
        let form = "write it as `curl -i` prints one: a line as `HTTP/1.1 201`, headers, an empty \
                    line and the body";
        Failure::Usage(format!("{} is no response: {reason}; {form}", file.display()))
    })
}

fn parsed(bytes: &[u8]) -> std::result::Result<Response<Bytes>, String> {
    let mut rest = bytes.to_vec();
    loop {
        let (response, body) = message(&rest)?;
        // Such as `100 Continue`, before the answer.
        if response.status().is_informational() {
            rest = body;
            continue;
        }
        // As behind a proxy, whose answer to CONNECT comes first.
        if body.starts_with(b"HTTP/") {
            return Err(
                "its body begins with another response; remove what is not the server's".into()
            );
        }
        return bounded(response.map(|()| body.into()));
    }
}

/// Reads one message: its head, and what is behind it.
fn message(bytes: &[u8]) -> std::result::Result<(Response<()>, Vec<u8>), String> {
    let bytes = in_version_1(bytes);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let end = match head.parse(&bytes).map_err(|error| error.to_string())? {
        Status::Complete(end) => end,
        Status::Partial => return Err("it ends before its body".into()),
    };
    let code = StatusCode::from_u16(head.code.unwrap_or_default());
    let mut response = Response::new(());
    *response.status_mut() = code.map_err(|error| error.to_string())?;
    let body = bytes[end..].to_vec();
    for header in head.headers {
        let name: HeaderName = header.name.parse().map_err(|_| "a header has a bad name")?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| format!("bad {name}"))?;
        if name == header::CONTENT_LENGTH && value != HeaderValue::from(body.len()) {
            return Err(unlike(&value, &body));
        }
        if name == header::CONTENT_ENCODING {
            return Err(
                "its body is encoded, or was; ask the server for it without an encoding, or \
                        remove the content-encoding of a body that was decoded"
                    .into(),
            );
        }
        if !NOT_STORED.contains(&name) {
            response.headers_mut().append(name, value);
        }
    }
    Ok((response, body))
}

/// Says that a body is not as long as its `content-length`.
fn unlike(length: &HeaderValue, body: &[u8]) -> String {
    let bytes = body.len();
    if body.ends_with(b"\n") && *length == HeaderValue::from(bytes - 1) {
        return format!(
            "its body has {bytes} bytes, one more than the content-length: remove the end of its last \
             line, as an editor adds one, or the content-length"
        );
    }
    format!("its body has {bytes} bytes, and not the content-length")
}

/// Writes `HTTP/2 201` as the version that is parsed; it is the same response.
fn in_version_1(bytes: &[u8]) -> Vec<u8> {
    let later = ["HTTP/2 ", "HTTP/3 ", "HTTP/2.0 ", "HTTP/3.0 "];
    let rest = later.iter().find_map(|version| bytes.strip_prefix(version.as_bytes()));
    rest.map_or_else(|| bytes.to_vec(), |rest| [b"HTTP/1.1 ", rest].concat())
}

/// Checks that a response would be kept whole.
fn bounded(response: Response<Bytes>) -> std::result::Result<Response<Bytes>, String> {
    let bytes = |headers: &HeaderMap| -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    };
    if response.body().len() > MAX_BODY_BYTES {
        return Err(format!("its body is longer than {MAX_BODY_BYTES} bytes"));
    }
    let headers = response.headers();
    if headers.len() > Record::MAX_HEADERS || bytes(headers) > Record::MAX_HEADER_BYTES {
        return Err("it has too many headers".into());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_prints_is_a_response() {
        let head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/2 201 \r\ndate: now\r\nx-request-id: 7\r\n";
        let whole = format!("{head}content-type: text/plain\r\ncontent-length: 6\r\n\r\nplaced");
        let response = parsed(whole.as_bytes()).unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(&response.body()[..], b"placed");
        let headers: Vec<_> = response.headers().iter().collect();
        assert_eq!(headers.len(), 1);
        assert_eq!(response.headers()["content-type"], "text/plain");
    }

    #[test]
    fn the_ends_of_lines_may_be_an_editors() {
        let response = parsed(b"HTTP/1.1 200\na: b\n\nplaced\n").unwrap();
        assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"placed\n"[..]));
    }

    #[test]
    fn what_every_retry_would_get_wrongly_is_refused() {
        let proxied = b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 201 Created\r\n\r\n";
        assert!(parsed(proxied).unwrap_err().contains("another response"));
        let decoded = b"HTTP/2 200\r\ncontent-encoding: gzip\r\n\r\nplain";
        assert!(parsed(decoded).unwrap_err().contains("content-encoding"));
    }

    #[test]
    fn half_a_response_is_refused() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nplaced";
        assert!(parsed(whole).is_ok());
        for end in 0..whole.len() {
            assert!(parsed(&whole[..end]).is_err(), "{end}");
        }
        assert!(parsed(b"{\"id\":1}").is_err());
        assert!(parsed(b"HTTP/1.1 100 Continue\r\n\r\n").is_err());
    }
}
