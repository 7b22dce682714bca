//! Header values: whatever parses keeps the grammar, and its quoted form is the same key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain::{Key, RequestId};

fuzz_target!(|value: &[u8]| {
    if let Ok(key) = Key::from_header(value) {
        let text = key.as_str();
        assert!((1..=Key::MAX_LEN).contains(&text.len()));
        assert!(text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        assert_eq!(Key::from_header(quote(text).as_bytes()), Ok(key));
    }
    let Ok(text) = str::from_utf8(value) else { return };
    if let Ok(id) = text.parse::<RequestId>() {
        assert_eq!(id.as_str(), text);
        assert!((1..=RequestId::MAX_LEN).contains(&text.len()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
        assert_eq!(Key::from_header(value).as_ref().map(Key::as_str), Ok(text));
    }
});

/// The structured-field string (RFC 9651) of a key.
fn quote(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}
