//! Payloads as JSON texts: the rules that a scan checks after a JSON parser has let them pass.

use super::bytes;
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

/// The string literal that begins at `start`, quotes included.
pub(super) fn string_at(json: &str, start: usize) -> &str {
    let bytes = json.as_bytes();
    let mut end = start + 1;
    while bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    &json[start..=end]
}

/// Whether a string literal has no lone surrogate.
pub(super) fn check_surrogates(literal: &str) -> Result<(), FaultCode> {
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
pub(super) fn code_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
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
}
