//! JSON by its values: the form that two spellings of the same value share.

use std::borrow::Cow;
use std::io::Write;

use hifijson::SliceLexer;
use hifijson::token::Lex;
use hifijson::value::{Value, parse_bounded};

/// The deepest nesting of a body that has a form, so that no body overflows the stack. It is
/// serde_json's limit, too.
const MAX_DEPTH: usize = 127;

type Json<'a> = Value<&'a str, Cow<'a, str>>;

/// Returns the form of a JSON body, if it has one.
///
/// Bodies with different values never share a form. Numbers are decimals of any length, and are
/// never rounded. What a reader might take for either of two values has no form: an object with a
/// repeated name, a lone surrogate, a number whose exponent is out of `i64`.
pub(super) fn canonical(body: &[u8]) -> Option<Vec<u8>> {
    let mut lexer = SliceLexer::new(body);
    let parse = |next, lexer: &mut _| parse_bounded(MAX_DEPTH, next, lexer);
    let mut json = lexer.exactly_one(Lex::ws_peek, parse).ok()?;
    let mut form = Vec::new();
    write_value(&mut json, &mut form)?;
    Some(form)
}

fn write_value(json: &mut Json<'_>, form: &mut Vec<u8>) -> Option<()> {
    match json {
        Value::Null => form.extend(b"null"),
        Value::Bool(false) => form.extend(b"false"),
        Value::Bool(true) => form.extend(b"true"),
        Value::Number((text, _)) => write_number(text, form)?,
        Value::String(text) => write_string(text, form),
        Value::Array(items) => {
            form.push(b'[');
            for (n, item) in items.iter_mut().enumerate() {
                separate(n, form);
                write_value(item, form)?;
            }
            form.push(b']');
        }
        Value::Object(members) => {
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return None;
            }
            form.push(b'{');
            for (n, (name, value)) in members.iter_mut().enumerate() {
                separate(n, form);
                write_string(name, form);
                form.push(b':');
                write_value(value, form)?;
            }
            form.push(b'}');
        }
    }
    Some(())
}

/// Writes the comma in front of every entry but the first.
fn separate(n: usize, form: &mut Vec<u8>) {
    if n > 0 {
        form.push(b',');
    }
}

fn write_string(text: &str, form: &mut Vec<u8>) {
    serde_json::to_writer(form, text).expect("a vector takes all bytes");
}

/// Writes a number as its sign, its digits without zeros at either end, and the power of ten.
///
/// Zero keeps its sign: as a double, -0 is another number than 0.
fn write_number(text: &str, form: &mut Vec<u8>) -> Option<()> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (significand, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_end_matches('0');
    if unsigned.len() < text.len() {
        form.push(b'-');
    }
    if significant.is_empty() {
        form.push(b'0');
        return Some(());
    }
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.parse::<i64>().ok()?.checked_add(dropped)?;
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let significant = significant.trim_start_matches('0');
    write!(form, "{significant}e{exponent}").expect("a vector takes all bytes");
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(body: &str) -> Option<String> {
        canonical(body.as_bytes()).map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn order_space_and_spelling_do_not_matter() {
        let expected = Some(r#"{"a":[1e0,"é"],"b":null}"#.to_owned());
        for body in [
            r#"{"a":[1,"é"],"b":null}"#,
            r#" { "b" : null, "a" : [ 1.0, "\u00e9" ] } "#,
            r#"{"a":[10e-1,"é"],"b":null}"#,
        ] {
            assert_eq!(form(body), expected, "{body}");
        }
        for (one, other) in [
            ("100", "1e2"),
            ("100", "0.001E+5"),
            ("-1.50", "-15e-1"),
            ("0", "0.00e99"),
            ("-0", "-0.0"),
            ("1e999999999", "10e999999998"),
            (r#""\/\ud83d\ude00""#, r#""/😀""#),
            ("[true,false]", " [ true , false ]\r\n"),
        ] {
            assert!(form(one).is_some(), "{one}");
            assert_eq!(form(one), form(other), "{one} {other}");
        }
    }

    /// Numbers were compared as doubles, so that another amount got the answer to the first.
    #[test]
    fn different_values_never_share_a_form() {
        for (one, other) in [
            ("100.000000000000001", "100.000000000000002"),
            ("0.1000000000000000055511151231257827", "0.1"),
            ("1e-400", "0"),
            ("1e400", "1e401"),
            ("-0", "0"),
            ("4503599627370495.51", "4503599627370495.49"),
            ("90071992.547409915", "90071992.547409914"),
            ("9007199254740993", "9007199254740992"),
            ("123456789012345678901234567890", "123456789012345678901234567891"),
            ("10", "1"),
            ("0.1", "1"),
            ("1", "-1"),
            ("1", r#""1""#),
            ("1", r#"{"$serde_json::private::Number":"1"}"#),
            ("[]", "{}"),
            ("[1,2]", "[12]"),
            (r#"["a","b"]"#, r#"["a,b"]"#),
            (r#"["a\",\"b"]"#, r#"["a","b"]"#),
            (r#"{"a":"b"}"#, r#"["a","b"]"#),
            (r#""a\u0000""#, r#""a""#),
        ] {
            assert!(form(one).is_some() && form(other).is_some(), "{one} {other}");
            assert_ne!(form(one), form(other), "{one} {other}");
        }
    }

    #[test]
    fn what_may_be_either_of_two_values_has_no_form() {
        for body in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":[{"b":1,"\u0062":2}]}"#,
            r#""\ud83d""#,
            "1e99999999999999999999",
            "0.1e-9223372036854775808",
            "10e9223372036854775807",
            "{",
            "",
            "1 2",
            "01",
            "1.",
            "-",
            ".5",
            "\u{feff}1",
            "NaN",
            "[1,]",
            "\"\n\"",
        ] {
            assert_eq!(form(body), None, "{body}");
        }
        assert_eq!(canonical(b"\"\xff\""), None);
    }

    #[test]
    fn deep_nesting_has_no_form_and_does_not_overflow_the_stack() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        for (depth, is_read) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (1_000_000, false)] {
            assert_eq!(form(&nested(depth)).is_some(), is_read, "{depth}");
            let read = serde_json::from_str::<serde_json::Value>(&nested(depth));
            assert_eq!(read.is_ok(), is_read, "{depth}");
        }
        assert_eq!(form(&"[{\"a\":".repeat(1_000_000)), None);
    }

    /// A number's exact value: the text of its digits, shifted to the same power of ten.
    fn shifted(digits: u64, exponent: i8) -> String {
        let zeros = usize::try_from(i16::from(exponent) + 128).unwrap();
        format!("{digits}{}", "0".repeat(zeros)).trim_start_matches('0').to_owned()
    }

    proptest! {
        #[test]
        fn numbers_share_a_form_if_and_only_if_they_are_equal(
            one in (0_u64..200, any::<i8>()),
            other in (0_u64..200, -2_i8..3),
        ) {
            let near = (other.0, one.1.saturating_add(other.1));
            let [a, b] = [one, near].map(|(digits, exponent)| {
                (form(&format!("{digits}e{exponent}")).unwrap(), shifted(digits, exponent))
            });
            prop_assert_eq!(a.0 == b.0, a.1 == b.1);
        }
    }
}
