//! The grammar that header fields share (RFC 9110, section 5.6): lists over several lines,
//! parameters, quoted strings.

use actix_web::http::header::{AsHeaderName, HeaderMap, HeaderValue};

/// The members of a comma-separated field. Its lines are one list, and empty members are none.
pub(super) fn members(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<String> {
    let lines: Vec<_> = headers.get_all(name).map(text).collect();
    let joined = lines.join(", ");
    outside_quotes(&joined, ',').map(str::to_owned).collect()
}

/// The text of a line. Bytes that are not UTF-8 become characters that no token has.
pub(super) fn text(line: &HeaderValue) -> String {
    String::from_utf8_lossy(line.as_bytes()).into_owned()
}

/// The part of a member before its parameters, in lower case.
pub(super) fn essence(member: &str) -> String {
    member.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The parameters of a member: names in lower case, values without quotes.
pub(super) fn parameters(member: &str) -> Vec<(String, String)> {
    let parts = outside_quotes(member, ';').skip(usize::from(!member.trim_start().starts_with(';')));
    parts.map(pair).collect()
}

/// A name in lower case and its value without quotes. The value is empty where the text has none.
pub(super) fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.trim().to_ascii_lowercase(), unquoted(value.trim()))
}

/// The parts of a text between separators that are outside of quoted strings; empty parts are left
/// out.
pub(super) fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut within_quotes, mut is_escaped) = (false, false);
    let parts = text.split(move |character| {
        let separates = character == separator && !within_quotes;
        if character == '"' && !is_escaped {
            within_quotes = !within_quotes;
        }
        is_escaped = within_quotes && !is_escaped && character == '\\';
        separates
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// The text of a quoted string; any other text as it is.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let (mut plain, mut characters) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::ACCEPT;

    use super::*;

    #[test]
    fn a_list_is_split_at_commas_outside_of_quotes_over_all_its_lines() {
        let mut headers = HeaderMap::new();
        for line in ["a, ,b;x=\"1,\\\",2\",", "", "\"c,d\" , e"] {
            headers.append(ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        assert_eq!(members(&headers, ACCEPT), ["a", "b;x=\"1,\\\",2\"", "\"c,d\"", "e"]);
        assert!(members(&HeaderMap::new(), ACCEPT).is_empty());
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff, f").unwrap());
        assert_eq!(members(&headers, ACCEPT)[4..], ["\u{fffd}", "f"], "a bad member spoils no other");
    }

    #[test]
    fn parameters_have_names_in_lower_case_and_values_without_quotes() {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parameters("a/b ; Charset=UTF-8;;x = \"a;\\\"b\" ; flag"),
            [named("charset", "UTF-8"), named("x", "a;\"b"), named("flag", "")]
        );
        assert_eq!(parameters(";q=1"), [named("q", "1")], "without a value before them");
        assert!(parameters("a/b").is_empty());
        assert_eq!(essence(" A/b ; q=1"), "a/b");
    }
}
