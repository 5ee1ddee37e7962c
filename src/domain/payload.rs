//! Payloads as JSON values: the rules that a scan checks, and when two texts mean the same value.
//!
//! `serde_json::Value` cannot compare them: it rounds numbers, or (with its exact numbers) takes an object
//! with a certain key for a number. The texts here have passed a JSON parser, so reading them is short.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::bytes;
use super::decimal::Decimal;
use super::verdict::FaultCode;

/// Checks what a JSON parser lets pass: nesting of more than `depth` levels, and strings with a lone
/// surrogate. `json` is one valid JSON value.
///
/// # Errors
/// [`FaultCode::TooDeep`] or [`FaultCode::LoneSurrogate`].
pub fn check_payload(json: &str, depth: usize) -> Result<(), FaultCode> {
    // Most payloads cannot be at fault, whatever is text and what is structure in them: they have few brackets and no
    // escape.
    let brackets = bytes::count(json, |byte| matches!(byte, b'{' | b'['));
    if brackets <= depth && !has_escape(json) {
        return Ok(());
    }
    let bytes = json.as_bytes();
    let (mut at, mut level) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                level += 1;
                if level > depth {
                    return Err(FaultCode::TooDeep);
                }
            }
            b'}' | b']' => level -= 1,
            b'"' => {
                let text = string_at(json, at - 1);
                check_surrogates(text)?;
                at += text.len() - 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a JSON text has a backslash, and so perhaps an escape.
#[must_use]
pub fn has_escape(json: &str) -> bool {
    bytes::count(json, |byte| byte == b'\\') > 0
}

/// Whether two valid JSON texts mean the same value: key order and white space do not matter, numbers are
/// equal when their exact decimal values are, strings are compared after unescaping, and of equal names in
/// one object the last counts.
///
/// Both texts were within a depth limit when they were stored, which bounds the recursion here.
#[must_use]
pub fn same_value(left: &str, right: &str) -> bool {
    left == right || Parser::parse(left) == Parser::parse(right)
}

/// The string literal that begins at `start`, quotes included.
fn string_at(json: &str, start: usize) -> &str {
    let bytes = json.as_bytes();
    let mut end = start + 1;
    while bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    &json[start..=end]
}

fn check_surrogates(literal: &str) -> Result<(), FaultCode> {
    let mut rest = literal;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        let length = match code_unit(rest) {
            None => 2,
            Some(0xD800..=0xDBFF) if matches!(code_unit(&rest[6..]), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => return Err(FaultCode::LoneSurrogate),
            Some(_) => 6,
        };
        rest = &rest[length..];
    }
    Ok(())
}

/// The UTF-16 code unit of an escape `\uXXXX` at the start of `text`.
fn code_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    Literal(&'a str),
    Number(Decimal<'a>),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(BTreeMap<Cow<'a, str>, Value<'a>>),
}

/// Reads a text that is known to be one valid JSON value.
struct Parser<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn parse(json: &'a str) -> Value<'a> {
        Self { json, at: 0 }.value()
    }

    fn value(&mut self) -> Value<'a> {
        match self.peek() {
            b'{' => Value::Object(self.object()),
            b'[' => Value::Array(self.array()),
            b'"' => Value::String(self.string()),
            _ => self.scalar(),
        }
    }

    fn object(&mut self) -> BTreeMap<Cow<'a, str>, Value<'a>> {
        let mut members = BTreeMap::new();
        self.at += 1;
        while self.peek() != b'}' {
            let name = self.string();
            self.skip(b':');
            members.insert(name, self.value());
            self.skip(b',');
        }
        self.at += 1;
        members
    }

    fn array(&mut self) -> Vec<Value<'a>> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != b']' {
            items.push(self.value());
            self.skip(b',');
        }
        self.at += 1;
        items
    }

    fn string(&mut self) -> Cow<'a, str> {
        self.peek();
        let literal = string_at(self.json, self.at);
        self.at += literal.len();
        if has_escape(literal)
            && let Ok(unescaped) = serde_json::from_str::<String>(literal)
        {
            return Cow::Owned(unescaped);
        }
        Cow::Borrowed(&literal[1..literal.len() - 1])
    }

    fn scalar(&mut self) -> Value<'a> {
        let rest = &self.json[self.at..];
        let end = rest
            .find(|character: char| matches!(character, ',' | ']' | '}') || character.is_ascii_whitespace())
            .unwrap_or(rest.len());
        self.at += end;
        match &rest[..end] {
            literal @ ("true" | "false" | "null") => Value::Literal(literal),
            number => Value::Number(Decimal::parse(number)),
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> u8 {
        let bytes = self.json.as_bytes();
        while bytes[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        bytes[self.at]
    }

    /// Skips one punctuation mark if it is next.
    fn skip(&mut self, mark: u8) {
        if self.peek() == mark {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depth_counts_arrays_and_objects_but_not_brackets_in_strings() {
        assert_eq!(check_payload(r#"{"a":[1]}"#, 2), Ok(()));
        assert_eq!(check_payload(r#"{"a":[[1]]}"#, 2), Err(FaultCode::TooDeep));
        assert_eq!(check_payload(r#"{"a":"[[[[\"[[["}"#, 1), Ok(()));
        assert_eq!(check_payload(r#"{"a":{},"b":{},"c":[]}"#, 2), Ok(()));
    }

    #[test]
    fn lone_surrogates_are_found_in_values_and_names() {
        for bad in
            [r#"{"a":"\ud800"}"#, r#"{"\udc00":1}"#, r#"{"a":"\ud800\ud800"}"#, r#"{"a":"\uD83Dx\uDE00"}"#]
        {
            assert_eq!(check_payload(bad, 9), Err(FaultCode::LoneSurrogate), "{bad}");
        }
        for good in [r#"{"a":"\ud83d\ude00"}"#, r#"{"a":"\\ud800"}"#, r#"{"a":"\u00e9\n\"\\"}"#] {
            assert_eq!(check_payload(good, 9), Ok(()), "{good}");
        }
    }

    #[test]
    fn values_are_compared_and_not_texts() {
        for (left, right) in [
            (r#"{"a":1,"b":2}"#, r#" { "b" : 2.0 , "a" : 1e0 } "#),
            (r#"{"a":"\u0041\/"}"#, r#"{"a":"A/"}"#),
            (r#"{"\u0061":[]}"#, r#"{"a":[ ]}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":{ }}"#, r#"{"a":{}}"#),
            (r#"{"a":-0}"#, r#"{"a":0.0e5}"#),
        ] {
            assert!(same_value(left, right), "{left} {right}");
        }
    }

    #[test]
    fn other_values_are_not_the_same() {
        for (left, right) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":true}"#, r#"{"a":false}"#),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#),
            (r#"{"a":1e400}"#, r#"{"a":1e401}"#),
            (r#"{"a":{"$serde_json::private::Number":"1"}}"#, r#"{"a":1}"#),
        ] {
            assert!(!same_value(left, right), "{left} {right}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[a-c\"\\\\\n☃😀]{0,4}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"☃]{0,2}", inner, 0..4)
                    .prop_map(|members| { serde_json::Value::Object(members.into_iter().collect()) }),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_parser_where_that_is_exact(left in json(), right in json()) {
            let pretty = serde_json::to_string_pretty(&left).unwrap();
            prop_assert!(same_value(&left.to_string(), &pretty));
            prop_assert_eq!(same_value(&left.to_string(), &right.to_string()), left == right);
            prop_assert_eq!(check_payload(&pretty, 64), Ok(()));
        }
    }
}
