//! What a browser may not bring here: changes for a page of another origin, and anything for a page whose name was made
//! to lead here.
//!
//! Where nobody is asked for a password, whoever reaches the log may use it, and a browser beside the log reaches it for
//! every page that it shows. So the log tells such requests from others by what browsers say about them. Other programs
//! say nothing of the kind, and notice nothing of this.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{Method, Uri};
use actix_web::{HttpRequest, HttpResponseBuilder};

use super::connections::Connection;
use super::failure::Failure;
use crate::api::Code;

/// How the page that asks and the server that is asked belong together, in the browser's own words
/// (<https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header>). No script can set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The characters of a name that an error repeats.
const SHOWN: usize = 100;

/// Refuses what a browser must not bring. `allowed` is `server.allowed_hosts`.
pub(super) fn check(request: &HttpRequest, allowed: &[String]) -> Result<(), Failure> {
    let headers = request.headers();
    let connection = request.conn_data::<Arc<Connection>>();
    let listens =
        connection.map_or_else(|| request.app_config().local_addr(), |connection| connection.listens);
    if let Some(host) = headers.get_all(HOST).find(|host| !is_known(host, listens, allowed)) {
        let name = String::from_utf8_lossy(host.as_bytes());
        return Err(Failure::new(
            Code::HostNotAllowed,
            format!(
                "\"{name:.SHOWN$}\" is no name of this log; use localhost or an address, or list in server.allowed_hosts all names that are used"
            ),
        ));
    }
    // What is read a browser keeps from pages of another origin by itself, since no answer here allows it.
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if only_reads || is_own(headers) {
        return Ok(());
    }
    Err(Failure::new(
        Code::CrossOrigin,
        "a browser sends this for a page of another origin than the log; see docs/API.md, \"From a browser\"",
    ))
}

/// What a page of ours says about itself: `policy` is what it may load and who may show it.
pub(super) fn protect(response: &mut HttpResponseBuilder, policy: &'static str) {
    response
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
}

/// Whether a request names the log by a name that is its own.
///
/// A page of `http://evil.example:8080` may have its name lead to this machine after it was loaded (DNS rebinding). It is
/// of the same origin as the log then, and reads everything; only the name gives it away. An address cannot be made to lead
/// elsewhere, and no browser asks anybody where localhost is. Without names of the operator's own, the others are refused
/// where they must be foreign: the log listens on this machine alone, and the name has the very port of the log, as a browser's has
/// that comes straight here. Who comes through a proxy has the port of the proxy.
fn is_known(host: &HeaderValue, listens: SocketAddr, allowed: &[String]) -> bool {
    let is_local = listens.ip().to_canonical().is_loopback();
    if allowed.is_empty() && !is_local {
        return true;
    }
    let Ok(host) = host.to_str() else { return false };
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // An IPv6 address; one of IPv4, in whatever way it is written; nothing, which no browser says.
    if name.starts_with('[') || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    let is_through_proxy = || port.parse().is_ok_and(|port: u16| port != listens.port());
    last == "localhost" || allowed.contains(&name) || (allowed.is_empty() && is_through_proxy())
}

/// Whether no page, or one of this server, sent the request.
fn is_own(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).peekable();
    if sites.peek().is_some() {
        // `none`: the user's own doing. `same-site` is another origin: any other port of this machine.
        return sites.all(|site| site == "same-origin" || site == "none");
    }
    // Browsers say it to servers on TLS or this machine only, and old ones not at all: there, where the page is from.
    headers.get_all(ORIGIN).all(|origin| is_at(origin, headers.get(HOST)).unwrap_or(false))
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

    /// The code of the refusal of a request with these headers, at 127.0.0.1:8080, where `TestRequest` listens.
    fn refused(method: Method, headers: &[(&'static str, &str)], allowed: &[&str]) -> Option<Code> {
        let mut request = TestRequest::with_uri("/").method(method);
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
        let own =
            |host: &str, origin: &str| refused(POST, &[("host", host), ("origin", origin)], &[]).is_none();
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
        assert_eq!(refused(POST, &two, &[]), Some(Code::CrossOrigin));
    }

    #[test]
    fn who_says_nothing_or_only_reads_is_no_page_of_another_origin() {
        assert_eq!(refused(POST, &[("host", "127.0.0.1:8080")], &[]), None);
        assert_eq!(refused(POST, &[], &[]), None);
        let foreign = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")];
        for reads in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(refused(reads, &foreign, &[]), None);
        }
        for changes in [POST, Method::PUT, Method::PATCH, Method::DELETE, Method::CONNECT] {
            assert_eq!(refused(changes, &foreign, &[]), Some(Code::CrossOrigin));
        }
    }

    #[test]
    fn a_name_that_leads_straight_to_this_machine_is_refused() {
        let known = |host: &str| refused(Method::GET, &[("host", host)], &[]).is_none();
        for host in [
            "127.0.0.1:8080",
            "127.1:8080",
            "0.0.0.0:8080",
            "[::1]:8080",
            "192.168.1.5:8080",
            "localhost:8080",
            "LOCALHOST.:8080",
            "sekali.localhost:8080",
            // Through a proxy on this machine, which passes its own name on.
            "log.example",
            "log.example:8443",
            "",
        ] {
            assert!(known(host), "{host}");
        }
        for host in [
            "evil.example:8080",
            "evil.example.:8080",
            "localhost.evil.example:8080",
            "notlocalhost:8080",
            "127.0.0.1.evil.example:8080",
            "evil.example:",
            "evil.example:x",
            "\u{e9}:8080",
        ] {
            assert!(!known(host), "{host}");
        }
        let two = [("host", "localhost:8080"), ("host", "evil.example:8080")];
        assert_eq!(refused(Method::GET, &two, &[]), Some(Code::HostNotAllowed));
        assert_eq!(refused(POST, &[], &[]), None);
    }

    #[test]
    fn names_without_a_port_are_those_of_port_80_and_other_machines_have_names() {
        let known = |host: &str, listens: &str| {
            is_known(&HeaderValue::from_str(host).unwrap(), listens.parse().unwrap(), &[])
        };
        assert!(!known("evil.example", "127.0.0.1:80") && !known("evil.example:80", "[::1]:80"));
        assert!(!known("evil.example:8080", "[::ffff:127.0.0.1]:8080"));
        for listens in ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080"] {
            assert!(known("log.internal:8080", listens), "{listens}");
        }
    }

    #[test]
    fn names_of_the_operators_own_are_all_that_there_are() {
        let allowed = ["log.example"];
        let known = |host: &str| refused(Method::GET, &[("host", host)], &allowed).is_none();
        for host in ["log.example", "LOG.example.:8080", "log.example:8443", "localhost:8080", "10.0.0.1"] {
            assert!(known(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8443", "sub.log.example", "log.example.evil.example"] {
            assert!(!known(host), "{host}");
        }
        let everywhere = "0.0.0.0:8080".parse().unwrap();
        assert!(!is_known(
            &HeaderValue::from_static("evil.example"),
            everywhere,
            &["log.example".to_owned()]
        ));
    }
}
