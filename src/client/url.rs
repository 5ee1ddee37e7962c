//! The address of a server.

use actix_web::http::Uri;

use super::error::ClientError;

/// Checks the address of a server, and gives it without a slash at its end.
///
/// # Errors
/// [`ClientError::Url`], saying what an address must be.
pub(super) fn check(text: &str) -> Result<String, ClientError> {
    // What stands before an @ may be a password that was meant for a proxy.
    let shown = text.rfind('@').map_or_else(|| text.to_owned(), |at| format!("***{}", &text[at..]));
    let fault = |why: &str| ClientError::Url(format!("{shown} is no address of a server: {why}"));
    let uri: Uri = text.parse().map_err(|_| fault("it must be like http://127.0.0.1:8080"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(fault("https is not supported yet; use http, or a local proxy that adds TLS"));
        }
        _ => return Err(fault("it must begin with http://")),
    }
    if uri.host().is_none_or(str::is_empty) || uri.query().is_some() || text.contains('@') {
        return Err(fault("it must be like http://HOST:PORT, with no query and no password"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_with_a_host() {
        assert_eq!(check("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(check("http://[::1]:8080/behind/proxy").unwrap(), "http://[::1]:8080/behind/proxy");
        for bad in [
            "",
            "localhost",
            "localhost:8080",
            "ftp://h",
            "http://",
            "http://h?x=1",
            "http://u:p@h",
            "http://a b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for secret in ["http://u:topsecret@h", "https://u:top@secret@h", "u:topsecret@h"] {
            let text = check(secret).unwrap_err().to_string();
            assert!(text.starts_with("***@h is no address") && !text.contains("secret"), "{text}");
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
