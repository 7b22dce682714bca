//! JSON with its structure shown.

use serde::de::IgnoredAny;

/// The deepest structure that is shown: the indentation of a deeper one would be most of it.
const MAX_DEPTH: usize = 64;
const STEP: &str = "  ";

/// Indents JSON, and changes nothing else: names stay in their order, and numbers as they are
/// written. `None` for other text, or a structure that is too deep.
pub(crate) fn indented(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut shown = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut characters = text.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                shown.push('"');
                string(&mut characters, &mut shown);
            }
            '{' | '[' => {
                shown.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    shown.push(end);
                    continue;
                }
                depth = Some(depth + 1).filter(|depth| *depth <= MAX_DEPTH)?;
                line(&mut shown, depth);
            }
            '}' | ']' => {
                depth = depth.checked_sub(1)?;
                line(&mut shown, depth);
                shown.push(character);
            }
            ',' => {
                shown.push(',');
                line(&mut shown, depth);
            }
            ':' => shown.push_str(": "),
            blank if blank.is_ascii_whitespace() => {}
            other => shown.push(other),
        }
    }
    Some(shown)
}

/// Copies the rest of a string.
fn string(characters: &mut impl Iterator<Item = char>, shown: &mut String) {
    while let Some(character) = characters.next() {
        shown.push(character);
        match character {
            '"' => return,
            '\\' => shown.extend(characters.next()),
            _ => {}
        }
    }
}

fn line(shown: &mut String, depth: usize) {
    shown.push('\n');
    shown.extend(std::iter::repeat_n(STEP, depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_stay_as_they_were_written() {
        let json = r#" {"z":1.50,"a":[ ],"s":"{\"[,:","l":[1e400,{}],"u":"é"} "#;
        let expected = "{\n  \"z\": 1.50,\n  \"a\": [],\n  \"s\": \"{\\\"[,:\",\n  \"l\": [\n    1e400,\n    {}\n  ],\n  \"u\": \"é\"\n}";
        assert_eq!(indented(json).as_deref(), Some(expected));
        assert_eq!(indented("7").as_deref(), Some("7"));
    }

    #[test]
    fn other_text_and_bottomless_structures_are_left_alone() {
        assert_eq!(indented("{\"a\":"), None);
        assert_eq!(indented("placed"), None);
        let deep = |depth: usize| "[".repeat(depth) + "1" + &"]".repeat(depth);
        assert!(indented(&deep(MAX_DEPTH)).is_some());
        assert_eq!(indented(&deep(MAX_DEPTH + 1)), None);
        assert_eq!(indented(&deep(1_000_000)), None);
    }
}
