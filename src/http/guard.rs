//! Refuses the requests that a browser sends for foreign pages: pages of another origin, and pages
//! whose name was made to lead here (DNS rebinding).
//!
//! Without a password, any program that reaches the log may use it, and a browser beside the log
//! reaches it for every page that it shows. The guard recognises such requests by the headers that
//! browsers set and that no script can change. Other programs do not send these headers. The guard
//! also sets the headers by which a browser keeps answers away from foreign pages.

use std::net::Ipv6Addr;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CROSS_ORIGIN_RESOURCE_POLICY, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::{Method, Uri};
use actix_web::{HttpRequest, HttpResponseBuilder};

use super::failure::Failure;
use crate::api::Code;

/// The relation between the page that asks and this server, as the browser sees it
/// (<https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>). No script can set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How the browser asks: `navigate` when it wants to show the answer.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Where the browser shows the answer: `document` is a tab of its own, while `object`, `embed` and
/// `iframe` are parts of the page that asks.
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The pages that links of other pages may open: they hold no data. `/docs` redirects to `/docs/`.
const PAGES: [&str; 3] = ["/", "/docs", "/docs/"];

/// The characters of a name that an error repeats.
const SHOWN: usize = 100;

/// Refuses the requests that a browser must not send. `allowed` is `server.allowed_hosts`.
pub(super) fn check(request: &HttpRequest, allowed: &[String]) -> Result<(), Failure> {
    let headers = request.headers();
    let named = headers.get_all(HOST).map(HeaderValue::as_bytes);
    // A target with a host (`GET http://name/`) takes precedence over `Host` (RFC 9112, 3.2.2).
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    if let Some(host) = named.chain(target).find(|host| !is_known(host, allowed)) {
        let name = String::from_utf8_lossy(host);
        return Err(Failure::new(
            Code::HostNotAllowed,
            format!(
                "the Host \"{name:.SHOWN$}\" is not a name of this log; use an IP address or localhost, \
                 or add the name to server.allowed_hosts (SEKALI_ALLOWED_HOSTS)"
            ),
        ));
    }
    if is_own(headers) || opens_a_page(request) {
        return Ok(());
    }
    Err(Failure::new(
        Code::CrossOrigin,
        "a browser sent this request for a page of another origin; see docs/API.md, \"From a browser\"",
    ))
}

/// Sets the headers that every answer has: the browser takes its type as it is, keeps it away from
/// pages of other origins, shows it in no frame, and does not store it unless the handler allows
/// that.
///
/// A page of another origin that reaches the log without TLS at another address than localhost sends
/// no `Sec-Fetch-*`, so that the guard cannot recognise it: there these headers alone protect.
pub(super) fn seal(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Sets the headers of a page: `policy` is what the page may load and who may show it.
pub(super) fn protect(response: &mut HttpResponseBuilder, policy: &'static str) {
    response.insert_header((CONTENT_SECURITY_POLICY, policy)).insert_header((REFERRER_POLICY, "no-referrer"));
}

/// Whether a request names the log by an IP address, by `localhost`, by a name below it, or by a
/// name of the operator's list. The port does not matter.
///
/// A page of `http://evil.example:8080` may have its name lead to this machine after it was loaded
/// (DNS rebinding). The log is of the same origin for that page then, and only the name reveals it.
/// An address cannot be made to lead elsewhere, and browsers ask no DNS server for `localhost`. The
/// address that the log is bound to says nothing: a container binds 0.0.0.0 behind a port that is
/// forwarded from 127.0.0.1.
fn is_known(host: &[u8], allowed: &[String]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    // No browser sends an empty one.
    if host.is_empty() {
        return true;
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        None => host.split_once(':').unwrap_or((host, "")),
    };
    if !is_port(port) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    is_ipv4(&name) || is_localhost(&name) || allowed.contains(&name)
}

/// The digits of a port; none is the usual port.
fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An address of IPv4 in any of the decimal forms that programs accept: `127.0.0.1`, `127.1`.
/// A browser takes no name whose last part is a number.
fn is_ipv4(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').count() <= 4 && name.split('.').all(is_number)
}

/// `localhost`, and names below it (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (name == "localhost" || name.ends_with(".localhost")) && name.bytes().all(is_letter)
}

/// Whether no page, or a page of this server, sent the request.
fn is_own(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).peekable();
    if sites.peek().is_some() {
        // `none`: an act of the user. `same-site` is another origin: another port of this machine.
        return sites.all(|site| site == "same-origin" || site == "none");
    }
    // Browsers send it to servers with TLS or on this machine only, and old ones never: there the
    // origin of the page decides.
    headers.get_all(ORIGIN).all(|origin| is_at(origin, headers.get(HOST)).unwrap_or(false))
}

/// Whether the browser opens a page of ours in a tab, as it does for a link of another page.
fn opens_a_page(request: &HttpRequest) -> bool {
    let is = |name: HeaderName, value: &str| {
        let mut lines = request.headers().get_all(name);
        lines.next().is_some_and(|line| line == value) && lines.next().is_none()
    };
    matches!(*request.method(), Method::GET | Method::HEAD)
        && PAGES.contains(&request.path())
        && is(SEC_FETCH_MODE, "navigate")
        && is(SEC_FETCH_DEST, "document")
}

/// Whether an origin is this host; `None` where one of them is no address at all, such as the origin `null`.
fn is_at(origin: &HeaderValue, host: Option<&HeaderValue>) -> Option<bool> {
    let [origin, host] = [origin, host?].map(|value| value.to_str().ok()?.parse::<Uri>().ok());
    let (origin, host) = (origin?, host?);
    let usual = match origin.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return Some(false),
    };
    let port = |of: &Uri| of.port_u16().unwrap_or(usual);
    Some(origin.host()?.eq_ignore_ascii_case(host.host()?) && port(&origin) == port(&host))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const POST: Method = Method::POST;

    /// The code of the refusal of a request with these headers.
    fn refused(method: Method, headers: &[(&'static str, &str)], allowed: &[&str]) -> Option<Code> {
        refused_at("/stats", method, headers, allowed)
    }

    fn refused_at(
        path: &str,
        method: Method,
        headers: &[(&'static str, &str)],
        allowed: &[&str],
    ) -> Option<Code> {
        let mut request = TestRequest::with_uri(path).method(method);
        for header in headers {
            request = request.append_header(*header);
        }
        let allowed: Vec<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
        check(&request.to_http_request(), &allowed).err().map(|failure| failure.code())
    }

    #[test]
    fn a_change_for_another_origin_is_refused_by_what_the_browser_says_of_it() {
        let own = |site: &str, origin: &str| {
            let headers = [("host", "127.0.0.1:8080"), ("sec-fetch-site", site), ("origin", origin)];
            refused(POST, &headers, &[]).is_none()
        };
        // Behind a proxy on TLS that gives the log another Host, the browser still knows.
        assert!(own("same-origin", "https://log.example") && own("none", "null"));
        for site in ["cross-site", "same-site", "", "Same-Origin", "something-new"] {
            assert!(!own(site, "http://127.0.0.1:8080"), "{site}");
        }
        let twice = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(refused(POST, &twice, &[]), Some(Code::CrossOrigin));
    }

    #[test]
    fn where_the_browser_does_not_say_the_origin_must_be_the_host() {
        let own = |host: &str, origin: &str| {
            refused(POST, &[("host", host), ("origin", origin)], &["log.example", "null"]).is_none()
        };
        for (host, origin) in [
            ("192.168.1.5:8080", "http://192.168.1.5:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("log.example", "https://log.example"),
            ("Log.example:443", "https://log.example"),
            ("log.example", "http://log.example:80"),
        ] {
            assert!(own(host, origin), "{origin} at {host}");
        }
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:18090"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("127.0.0.1:8080", "http://evil.example"),
            ("log.example:8443", "https://log.example"),
            ("log.example", "http://log.example.evil.example"),
            ("log.example", "http://log.example@evil.example"),
            ("log.example", "chrome-extension://log.example"),
            ("log.example", "null"),
            ("null", "null"),
            ("log.example", ""),
            ("", "http://log.example"),
        ] {
            assert!(!own(host, origin), "{origin} at {host}");
        }
        assert_eq!(refused(POST, &[("origin", "http://log.example")], &[]), Some(Code::CrossOrigin));
        let two = [("host", "a"), ("origin", "http://a"), ("origin", "http://b")];
        assert_eq!(refused(POST, &two, &["a"]), Some(Code::CrossOrigin));
    }

    #[test]
    fn a_foreign_page_is_refused_whatever_its_method_and_programs_are_not() {
        assert_eq!(refused(POST, &[("host", "127.0.0.1:8080")], &[]), None);
        assert_eq!(refused(POST, &[], &[]), None);
        for foreign in [
            &[("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "http://evil.example")],
            &[("origin", "null")],
        ] {
            for method in [
                Method::GET,
                Method::HEAD,
                Method::OPTIONS,
                POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
                Method::CONNECT,
            ] {
                assert_eq!(refused(method.clone(), foreign, &[]), Some(Code::CrossOrigin), "{method}");
            }
        }
    }

    #[test]
    fn only_a_navigation_opens_a_page_for_another_page() {
        let opens = |path: &str, method: Method, mode: &str, dest: &str| {
            let headers =
                [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            refused_at(path, method, &headers, &[]).is_none()
        };
        for path in ["/", "/?topic=t", "/docs", "/docs/"] {
            assert!(opens(path, Method::GET, "navigate", "document"), "{path}");
            assert!(opens(path, Method::HEAD, "navigate", "document"), "{path}");
            assert!(!opens(path, POST, "navigate", "document"), "{path}");
            for dest in ["object", "embed", "iframe", "frame", "empty", ""] {
                assert!(!opens(path, Method::GET, "navigate", dest), "{path} in {dest}");
            }
            for mode in ["no-cors", "cors", "websocket", ""] {
                assert!(!opens(path, Method::GET, mode, "document"), "{path} by {mode}");
            }
        }
        for path in [
            "/stats",
            "/events/t/1",
            "/metrics",
            "/openapi.json",
            "/console/main.mjs",
            "/docs/index.html",
            "//",
            "/publish",
        ] {
            assert!(!opens(path, Method::GET, "navigate", "document"), "{path}");
        }
        let twice = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("sec-fetch-dest", "object"),
        ];
        assert_eq!(refused_at("/", Method::GET, &twice, &[]), Some(Code::CrossOrigin));
    }

    #[test]
    fn only_addresses_and_localhost_name_the_log() {
        let known = |host: &str| refused(Method::GET, &[("host", host)], &[]).is_none();
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1:8090",
            "127.1:8080",
            "0.0.0.0:8080",
            "[::1]:8080",
            "[::1]",
            "[::ffff:127.0.0.1]:80",
            "192.168.1.5",
            "localhost:8080",
            "localhost",
            "LOCALHOST.:8080",
            "sekali.localhost:8080",
            "",
        ] {
            assert!(known(host), "{host}");
        }
        for host in [
            // With the port of the log, with that of a proxy or a forwarded one, with none.
            "evil.example:8080",
            "evil.example:8443",
            "evil.example",
            "evil.example.:8080",
            "localhost.evil.example:8080",
            "notlocalhost:8080",
            "127.0.0.1.evil.example:8080",
            "evil.example.1",
            "1.2.3.4.5",
            "evil.example:",
            "localhost:x",
            "localhost:8080@evil.example",
            "evil.example/.localhost",
            "evil.example,localhost",
            "[::1].evil.example",
            "[evil.example]",
            "[::1",
            "::1",
            "\u{e9}:8080",
            ".",
        ] {
            assert!(!known(host), "{host}");
        }
        let two = [("host", "localhost:8080"), ("host", "evil.example:8080")];
        assert_eq!(refused(Method::GET, &two, &[]), Some(Code::HostNotAllowed));
        assert_eq!(refused(POST, &[], &[]), None);
    }

    #[test]
    fn the_host_of_the_target_counts_too() {
        let refused = |target: &str| refused_at(target, Method::GET, &[("host", "localhost")], &[]);
        assert_eq!(refused("http://evil.example/stats"), Some(Code::HostNotAllowed));
        assert_eq!(refused("http://127.0.0.1:8080/stats"), None);
    }

    #[test]
    fn names_of_the_operators_list_are_added_to_addresses_and_localhost() {
        let allowed = ["log.example"];
        let known = |host: &str| refused(Method::GET, &[("host", host)], &allowed).is_none();
        for host in ["log.example", "LOG.example.:8080", "log.example:8443", "localhost:8080", "10.0.0.1"] {
            assert!(known(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8443", "sub.log.example", "log.example.evil.example"] {
            assert!(!known(host), "{host}");
        }
    }

    #[test]
    fn a_sealed_answer_keeps_the_caching_that_its_handler_chose() {
        let mut headers = HeaderMap::new();
        seal(&mut headers);
        assert_eq!(headers.get(CACHE_CONTROL).unwrap(), "no-store");
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        seal(&mut headers);
        assert_eq!(headers.get(CACHE_CONTROL).unwrap(), "no-cache");
    }
}
