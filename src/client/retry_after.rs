//! The header `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::{Duration, SystemTime};

use hyper::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest wait that a server can ask for. A longer one is a mistake of the server, or a maintenance
/// whose end may come earlier than it says.
const LONGEST: Duration = Duration::from_hours(1);

/// How long the server asks to be left alone; `None` where it does not say so in a form that is known.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let now = date(headers, DATE).unwrap_or_else(SystemTime::now);
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    } else {
        // More digits than fit into a number are a long time as well.
        text.parse().map_or(LONGEST, Duration::from_secs)
    };
    Some(wait.min(LONGEST))
}

/// The date of a header. The server's own clock is the one that its other dates are meant by.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(date: Option<&'static str>, retry_after: &'static str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        of(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_waits_and_a_long_one_is_bounded() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (text, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("3600", Some(3600)),
            ("86400", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(waits(now, text), seconds, "{text}");
        }
    }

    #[test]
    fn without_the_date_of_the_server_its_dates_are_of_this_clock() {
        assert_eq!(waits(None, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(waits(None, "Fri, 31 Dec 9999 23:59:59 GMT"), Some(3600));
    }
}
