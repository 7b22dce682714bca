//! HTML forms by their fields: what two orders and two boundaries of the same fields share.
//!
//! Only bodies of strict syntax are read here, so that no other reader, such as the handler's,
//! reads more from them than this one. Other bodies count as their bytes.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::Fingerprint;

/// The longest boundary that a body may have (RFC 2046, 5.1.1), so that the search for it stays
/// cheap.
const MAX_BOUNDARY_BYTES: usize = 70;

/// Returns the digest of the fields of an `application/x-www-form-urlencoded` body, decoded, or
/// `None` if a field is no `name=value`, an escape is broken, or the text is not UTF-8.
pub(super) fn urlencoded(body: &[u8]) -> Option<Fingerprint> {
    let is_hex = |escape: &[u8]| escape.iter().all(u8::is_ascii_hexdigit);
    let mut behind_percents = body.split(|byte| *byte == b'%').skip(1);
    let are_escapes_whole = behind_percents.all(|rest| rest.get(..2).is_some_and(is_hex));
    let are_fields_whole = body.split(|byte| *byte == b'&').all(|field| field.contains(&b'='));
    let is_text = percent_encoding::percent_decode(body).decode_utf8().is_ok();
    if !(are_escapes_whole && are_fields_whole && is_text) {
        return None;
    }
    let mut fields: Vec<_> = form_urlencoded::parse(body).collect();
    let order = Order::of(fields.iter().map(|(name, _)| &**name));
    fields.sort_by(|(one, _), (other, _)| order.group(one).cmp(order.group(other)));
    let parts = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    Some(Fingerprint::of(parts))
}

/// Returns the digest of the fields of a `multipart/form-data` body, each with its headers as they
/// were sent and its content, or `None` if the body is none, has a field without a name, or has
/// text before the first field or after the last one.
pub(super) fn multipart(headers: &HeaderMap, body: &Bytes) -> Option<Fingerprint> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(content_type).ok()?;
    if boundary.len() > MAX_BOUNDARY_BYTES {
        return None;
    }
    let closing = format!("--{boundary}--");
    let end = body.strip_suffix(b"\r\n").unwrap_or(body).len().checked_sub(closing.len())?;
    let closes_at = body.windows(closing.len()).position(|window| window == closing.as_bytes());
    if !(body.starts_with(format!("--{boundary}").as_bytes()) && closes_at == Some(end)) {
        return None;
    }
    let whole = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body.clone())]);
    // It is all in memory, so that nothing is waited for.
    let mut fields = fields(multer::Multipart::new(whole, boundary)).now_or_never()??;
    let order = Order::of(fields.iter().map(|field| &*field.name));
    fields.sort_by(|one, other| order.group(&one.name).cmp(order.group(&other.name)));
    let parts = fields.iter().flat_map(|field| [field.head.as_bytes(), field.content.as_bytes()]);
    Some(Fingerprint::of(parts))
}

struct Field {
    name: String,
    head: Fingerprint,
    content: Fingerprint,
}

async fn fields(mut multipart: multer::Multipart<'_>) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while let Some(field) = multipart.next_field().await.ok()? {
        let name = field.name()?.to_owned();
        let mut headers: Vec<(&HeaderName, &HeaderValue)> = field.headers().iter().collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        let parts = headers.iter().flat_map(|(name, value)| [name.as_ref(), value.as_bytes()]);
        let head = Fingerprint::of(parts);
        fields.push(Field { name, head, content: Fingerprint::of([field.bytes().await.ok()?]) });
    }
    Some(fields)
}

/// The fields whose order counts.
struct Order {
    /// The names before the first bracket whose fields are one group. Fields of a list, such as
    /// `calls[][to]` and `calls[][from]`, belong together by their order; and of `to=1` and `to[a]=2`
    /// some readers keep the last one.
    mixed: HashSet<String>,
}

impl Order {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: BTreeSet<&str> = names.collect();
        let is_continued = |name: &str| {
            let prefix = format!("{name}[");
            let mut behind = names.range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded));
            behind.next().is_some_and(|next| next.starts_with(&prefix))
        };
        let is_mixed = |name: &&&str| name.contains("[]") || is_continued(name);
        Self { mixed: names.iter().filter(is_mixed).map(|name| base(name).to_owned()).collect() }
    }

    /// Returns the name that fields share whose order counts.
    fn group<'a>(&self, name: &'a str) -> &'a str {
        if self.mixed.contains(base(name)) { base(name) } else { name }
    }
}

fn base(name: &str) -> &str {
    name.split_once('[').map_or(name, |(base, _)| base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(body: &str) -> Option<Fingerprint> {
        urlencoded(body.as_bytes())
    }

    #[test]
    fn the_order_of_names_and_the_spelling_of_text_do_not_matter() {
        let body = "to=%2B1&note=a+b&tag=x&tag=y";
        for other in [
            "note=a+b&tag=x&to=%2B1&tag=y",
            "tag=x&tag=y&note=a%20b&to=%2b1",
            "t%6f=%2B1&note=a+b&tag=x&tag=y",
        ] {
            assert!(encoded(body).is_some());
            assert_eq!(encoded(other), encoded(body), "{other}");
        }
        assert_eq!(encoded("card[n]=1&card[y]=2"), encoded("card[y]=2&card[n]=1"));
        assert_eq!(encoded("a[]=1&b[]=2&a[]=3"), encoded("a[]=1&a[]=3&b[]=2"));
    }

    #[test]
    fn fields_that_say_something_else_are_others() {
        let all = [
            "tag=x&tag=y",
            "tag=y&tag=x",
            "tag=x",
            "tag=x%26tag%3Dy",
            "a=bc",
            "ab=c",
            "a=+",
            "a=%2B",
            // The order says which caller belongs to which callee.
            "calls[][to]=1&calls[][from]=2&calls[][to]=3&calls[][from]=4",
            "calls[][to]=1&calls[][to]=3&calls[][from]=2&calls[][from]=4",
            // Some readers keep the last one, and some number those without one.
            "amount=1&amount[value]=100",
            "amount[value]=100&amount=1",
            "a[b]=1&a[b][c]=2",
            "a[b][c]=2&a[b]=1",
            "a[]=y&a[0]=x",
            "a[0]=x&a[]=y",
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(encoded(one).is_some(), "{one}");
            for other in &all[i + 1..] {
                assert_ne!(encoded(one), encoded(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn what_readers_of_forms_disagree_on_is_not_read() {
        for body in ["", "a", "a&b=1", "a=1&", "a=1&&b=2", "a=%", "a=%2", "a=%zz", "a=%%20"] {
            assert_eq!(encoded(body), None, "{body}");
        }
        // Both would be decoded to a replacement character.
        assert_eq!((encoded("a=%FF"), encoded("a=%FE")), (None, None));
        assert_eq!(urlencoded(b"a=\xff"), None);
    }

    fn part(name: &str, content: &str) -> String {
        format!("content-disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    }

    fn joined(boundary: &str, parts: &[String]) -> String {
        let parts = parts.iter().map(|part| format!("--{boundary}\r\n{part}"));
        format!("{}--{boundary}--\r\n", parts.collect::<String>())
    }

    fn read(boundary: &str, body: String) -> Option<Fingerprint> {
        let content_type = format!("multipart/form-data; boundary={boundary}").parse().unwrap();
        multipart(&HeaderMap::from_iter([(CONTENT_TYPE, content_type)]), &body.into())
    }

    fn sent(boundary: &str, parts: &[String]) -> Option<Fingerprint> {
        read(boundary, joined(boundary, parts))
    }

    #[test]
    fn the_boundary_and_the_order_of_names_do_not_matter() {
        let [to, note] = [part("to", "+1"), part("note", "a\r\nb")];
        let form = sent("AAAA", &[to.clone(), note.clone()]);
        assert!(form.is_some());
        assert_eq!(form, sent("BBBB", &[to.clone(), note.clone()]));
        assert_eq!(form, sent("AAAA", &[note, to]));
        let bare = joined("A", &[part("a", "1")]);
        assert_eq!(read("A", bare.trim_end().to_owned()), read("A", bare));
    }

    #[test]
    fn parts_that_say_something_else_are_others() {
        let file =
            |head: &str| format!("content-disposition: form-data; name=\"a\"{head}\r\n\r\nx\r\n");
        let all = [
            vec![part("a", "x"), part("a", "y")],
            vec![part("a", "y"), part("a", "x")],
            vec![part("a", "x")],
            vec![part("b", "x")],
            vec![part("a", "x\r\n")],
            vec![file("; filename=\"1\"")],
            vec![file("; filename=\"2\"")],
            vec![file("\r\ncontent-type: text/plain")],
            vec![],
        ];
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                assert_ne!(sent("A", one), sent("A", other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_boundary_has_at_most_70_bytes() {
        let parts = [part("a", "x")];
        let [longest, longer] = [70, 71].map(|length| sent(&"b".repeat(length), &parts));
        assert!(longest.is_some());
        assert_eq!(longer, None);
    }

    #[test]
    fn a_multipart_body_that_is_not_whole_is_not_read() {
        let whole = joined("A", &[part("a", "x"), part("b", "y")]);
        assert!(read("A", whole.clone()).is_some());
        for end in 0..whole.len() - "\r\n".len() {
            assert_eq!(read("A", whole[..end].to_owned()), None, "{end}");
        }
        for body in [
            format!("preamble\r\n{whole}"),
            format!("{whole}epilogue"),
            format!("--A--\r\n{whole}"),
            joined("A", &["content-disposition: form-data\r\n\r\nx\r\n".into()]),
            joined("A", &["\r\nx\r\n".into()]),
            whole.replace("--A\r\n", "--Ax\r\n"),
        ] {
            assert_eq!(read("A", body.clone()), None, "{body}");
        }
        assert_eq!(read("B", whole), None);
    }
}
