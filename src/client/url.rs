//! The address of a server.
//!
//! Every part of an address is used as it was written or the address is refused: a part that a library drops
//! or changes silently would send events to another log.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::ClientError;

const EXAMPLE: &str = "it must be like http://127.0.0.1:8080";

/// Checks the address of a server, and gives it without a slash at its end.
///
/// # Errors
/// [`ClientError::Url`], saying what an address must be.
pub(super) fn check(text: &str) -> Result<String, ClientError> {
    rules(text).map_err(|why| {
        // What stands before an @ may be a password that was meant for a proxy.
        let shown = text.rfind('@').map_or_else(|| text.to_owned(), |at| format!("***{}", &text[at..]));
        ClientError::Url(format!("{} is no address of a server: {why}", escaped(&shown)))
    })?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// A text with every character visible that would not be seen on a terminal.
fn escaped(text: &str) -> String {
    let visible = |character: char| character.is_ascii_graphic() || character.is_alphanumeric();
    let show = |character: char| match character {
        seen if visible(seen) || seen == ' ' => seen.to_string(),
        control if control.is_control() => control.escape_default().to_string(),
        other => other.escape_unicode().to_string(),
    };
    text.chars().map(show).collect()
}

/// The rule that an address breaks.
fn rules(text: &str) -> Result<(), String> {
    if let Some(found) = text.chars().find(|character| !character.is_ascii_graphic()) {
        let what = match found {
            ' ' => "a space".to_owned(),
            '\n' | '\r' => format!("a line end ({})", found.escape_default()),
            control if control.is_control() => format!("a control character ({})", control.escape_default()),
            other => format!("a character outside of ASCII ({})", other.escape_unicode()),
        };
        return Err(format!("it holds {what}; remove it"));
    }
    let scheme_is = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    if scheme_is("https://") {
        return Err("https is not supported yet; use http, or a local proxy that adds TLS".to_owned());
    }
    if !scheme_is("http://") {
        return Err("it must begin with http://".to_owned());
    }
    let rest = &text["http://".len()..];
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    if text.contains('@') {
        return Err(format!("{EXAMPLE}, with no user and no password"));
    }
    let (host, port) = split_host(authority)?;
    check_host(host)?;
    port.map_or(Ok(()), check_port)?;
    check_path(path)
}

/// The host, and the port where there is a colon before one.
fn split_host(authority: &str) -> Result<(&str, Option<&str>), String> {
    let end = if authority.starts_with('[') {
        authority.find(']').ok_or("the address of the host lacks its closing bracket")? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(format!("after the host stands {rest:?}, where a port such as :8080 may stand")),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.trim_end_matches(']').parse::<Ipv6Addr>();
        return address.map(drop).map_err(|_| format!("{host} is no IPv6 address"));
    }
    if host.is_empty() {
        return Err(format!("it names no host; {EXAMPLE}"));
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !host.bytes().all(valid) {
        return Err(format!("{host} is no name of a host"));
    }
    // The system would take 127.1 or 2130706433 for an address too, and each program for another one.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{host} is no IPv4 address"));
    }
    Ok(())
}

fn check_port(text: &str) -> Result<(), String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(1..) if is_number => Ok(()),
        _ => Err(format!("the port must be from 1 to 65535, found {text:?}")),
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let mut rest = path;
    while let Some(at) =
        rest.find(|byte: char| !byte.is_ascii_alphanumeric() && !"/-._~!$&'()*+,;=:".contains(byte))
    {
        let found = &rest[at..];
        let is_hex = |digit: usize| found.as_bytes().get(digit).is_some_and(u8::is_ascii_hexdigit);
        match found.chars().next() {
            Some('%') if is_hex(1) && is_hex(2) => rest = &found[3..],
            Some('%') => return Err("a % is no beginning of two hexadecimal digits".to_owned()),
            Some('?') => return Err(format!("{EXAMPLE}, with no query")),
            Some('#') => return Err(format!("{EXAMPLE}, with no fragment (#)")),
            Some(other) => return Err(format!("its path holds {other:?}, which must be percent-encoded")),
            None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_with_a_host() {
        for (text, kept) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/behind/proxy", "http://[::1]:8080/behind/proxy"),
            ("http://h", "http://h"),
            ("HTTP://h:65535//", "HTTP://h:65535"),
            ("http://log_1.example-2.internal.:1/a%20b/~c", "http://log_1.example-2.internal.:1/a%20b/~c"),
        ] {
            assert_eq!(check(text).unwrap(), kept);
            assert!(kept.parse::<hyper::Uri>().is_ok(), "{kept}");
        }
        for bad in [
            "",
            "localhost",
            "localhost:8080",
            "ftp://h",
            "http:/h",
            "http://",
            "http:///path",
            "http://:8080",
            "http://h?x=1",
            "http://h/#top",
            "http://h#top",
            "http://u:p@h",
            "http://h/a@b",
            "http://a b",
            " http://h",
            "http://h ",
            "http://h\n",
            "http://h\0",
            "http://h\u{200b}:8080",
            "http://h\\path",
            "http://h/a\\b",
            "http://127.0.0.1:80808",
            "http://h:65536",
            "http://h:0",
            "http://h:",
            "http://h:/",
            "http://h:8080garbage",
            "http://h:80:80",
            "http://h:+80",
            "http://h:-1",
            "http://h:8080?x",
            "http://[::1",
            "http://[::1]8080",
            "http://[::1]:",
            "http://[::1]:99999",
            "http://[]:80",
            "http://[nope]",
            "http://::1",
            "http://::1:8080",
            "http://127.0.0.256:80",
            "http://127.1",
            "http://2130706433",
            "http://h/a%2",
            "http://h/a%zz",
            "http://h/{topic}",
            "http://h/\"x\"",
            "http://h%41",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for secret in ["http://u:topsecret@h", "https://u:top@secret@h", "u:topsecret@h"] {
            let text = check(secret).unwrap_err().to_string();
            assert!(text.starts_with("***@h is no address") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_seen() {
        for (text, words) in [
            ("http://h:8080\n", "http://h:8080\\n is no address of a server: it holds a line end (\\n)"),
            ("http://h\u{200b}", "http://h\\u{200b} is no address of a server: it holds a character outside"),
            ("http://h\u{1b}[0m", "http://h\\u{1b}[0m is no address"),
            ("http://h:80808", "the port must be from 1 to 65535, found \"80808\""),
            ("http://h/x#y", "with no fragment (#)"),
            ("http://[::1", "lacks its closing bracket"),
        ] {
            let told = check(text).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn https_is_refused_with_its_reason() {
        let text = check("https://h").unwrap_err().to_string();
        assert!(
            text.starts_with("https://h is no address of a server: https is not supported yet"),
            "{text}"
        );
    }
}
