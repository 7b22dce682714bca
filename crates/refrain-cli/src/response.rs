//! A stored response, decoded for people.

use std::fmt::Write;

use bytes::Bytes;
use http::StatusCode;
use refrain::admin::{Blob, Response};

use crate::indent::indented;
use crate::text::{count, printable};

/// Shows the status, the headers and the body; JSON is indented.
pub(crate) fn decoded(response: &Response) -> String {
    let status = StatusCode::from_u16(response.status);
    let mut shown = format!("HTTP {}", response.status);
    if let Some(reason) = status.ok().and_then(|status| status.canonical_reason()) {
        shown = shown + " " + reason;
    }
    shown.push('\n');
    headers(&mut shown, &response.headers);
    shown.push('\n');
    shown.push_str(&body(&response.body.0));
    if !response.trailers.is_empty() {
        shown.push_str("\ntrailers\n");
        headers(&mut shown, &response.trailers);
    }
    shown
}

fn headers(shown: &mut String, headers: &[(String, Blob)]) {
    for (name, value) in headers {
        let value = printable(&String::from_utf8_lossy(&value.0));
        writeln!(shown, "{}: {value}", printable(name)).expect("a string takes all");
    }
}

fn body(body: &Bytes) -> String {
    match std::str::from_utf8(body) {
        Ok("") => "(no body)\n".to_owned(),
        Ok(text) => {
            let json = indented(text);
            let text = json.as_deref().unwrap_or(text);
            printable(text.strip_suffix('\n').unwrap_or(text)) + "\n"
        }
        Err(_) => {
            let bytes = count(body.len() as u64, "byte");
            format!("({bytes} that are not text; `--body` prints them as they are)\n")
        }
    }
}
