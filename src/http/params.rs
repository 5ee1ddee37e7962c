//! Parameters in the query and in the path, decoded strictly: what is unknown, there twice or not UTF-8 is an
//! error that names it.

use std::ops::RangeInclusive;

use actix_web::HttpRequest;
use percent_encoding::percent_decode_str;

use super::failure::Failure;
use crate::api::Code;
use crate::domain::{FaultCode, NAME_MAX_BYTES, Topic, check_name};

/// The most parameters of a query. No route knows more than six.
const PARAMETERS_MAX: usize = 16;

/// The parameters of a query that were not taken yet.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// 422 for more than [`PARAMETERS_MAX`] parameters, which are counted before any is decoded; for a
    /// parameter that is there twice, and for one that is not UTF-8.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Failure> {
        let mut query = Self { pairs: Vec::new() };
        let pairs = || request.query_string().split('&').filter(|pair| !pair.is_empty());
        if pairs().nth(PARAMETERS_MAX).is_some() {
            let rule = format!("the query has more than {PARAMETERS_MAX} parameters");
            return Err(Failure::new(Code::InvalidParameter, rule));
        }
        for pair in pairs() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name, &name.replace('+', " "))?;
            let value = decoded(&name, &value.replace('+', " "))?;
            if query.pairs.iter().any(|(other, _)| *other == name) {
                return Err(Failure::parameter(&name, "is there more than once"));
            }
            query.pairs.push((name, value));
        }
        Ok(query)
    }

    /// Refuses every parameter.
    pub(super) fn none(request: &HttpRequest) -> Result<(), Failure> {
        Self::of(request)?.finish()
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(other, _)| other == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// A parameter that must be there and names something: a topic or an event.
    pub(super) fn name(&mut self, name: &str) -> Result<String, Failure> {
        let text = self.take(name).ok_or_else(|| Failure::parameter(name, "is missing"))?;
        check_name(&text).map_err(|code| broken_name(name, code))?;
        Ok(text)
    }

    /// A parameter that is a whole number within bounds.
    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Failure> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && range.contains(&number) => Ok(Some(number)),
            _ => {
                let rule = format!("must be a whole number from {} to {}", range.start(), range.end());
                Err(Failure::parameter(name, &rule))
            }
        }
    }

    /// A parameter that is one of a few words.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
        let Some(text) = self.take(name) else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        Err(Failure::parameter(name, &format!("must be {}", names.join(" or "))))
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Failure::parameter(name, "is not known here")),
        }
    }
}

/// The topic with this name, which came as a parameter.
pub(super) fn topic(text: &str) -> Result<Topic, Failure> {
    Topic::parse(text).map_err(|code| broken_name("topic", code))
}

/// The part of the path at this place, counted from 0 and decoded. The router's own decoding would make other
/// characters of broken UTF-8.
pub(super) fn segment(request: &HttpRequest, place: usize, name: &str) -> Result<String, Failure> {
    let raw = request.uri().path().split('/').nth(place + 1).unwrap_or_default();
    let text = decoded(name, raw)?;
    check_name(&text).map_err(|code| broken_name(name, code))?;
    Ok(text)
}

fn broken_name(name: &str, code: FaultCode) -> Failure {
    let rule = format!("must have 1 to {NAME_MAX_BYTES} bytes and no control character ({})", code.as_str());
    Failure::parameter(name, &rule)
}

fn decoded(name: &str, text: &str) -> Result<String, Failure> {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Failure::parameter(name, "is not UTF-8 when it is percent-decoded")),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn query(text: &str) -> Result<Query, Failure> {
        Query::of(&TestRequest::with_uri(&format!("/x?{text}")).to_http_request())
    }

    #[test]
    fn parameters_are_decoded_and_taken_once() {
        let mut query = query("a=%C3%A9+b&limit=7&&flag").unwrap();
        assert_eq!(query.take("a").as_deref(), Some("é b"));
        assert_eq!(query.take("a"), None);
        assert_eq!(query.take("flag").as_deref(), Some(""));
        assert_eq!(query.number("limit", 1..=9).unwrap(), Some(7));
        query.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in ["a=1&a=2", "a=1&%61=1", "a=%FF"] {
            assert!(query(bad).unwrap_err().to_string().contains("parameter a "), "{bad}");
        }
        for bad in ["limit=", "limit=0", "limit=-1", "limit=%2B1", "limit=10", "limit=99999999999999999999"] {
            let error = query(bad).unwrap().number("limit", 1..=9).unwrap_err();
            assert!(error.to_string().contains("limit must be a whole number from 1 to 9"), "{bad}");
        }
        let error = query("order=up").unwrap().word("order", &[("asc", 1), ("desc", 2)]).unwrap_err();
        assert!(error.to_string().contains("order must be asc or desc"));
        assert!(query("x=1").unwrap().finish().unwrap_err().to_string().contains("parameter x "));
    }

    #[test]
    fn more_than_sixteen_parameters_are_refused_before_they_are_read() {
        let of = |count: usize| (0..count).map(|number| format!("p{number}=1&")).collect::<Vec<_>>().concat();
        assert_eq!(query(&of(16)).unwrap().pairs.len(), 16);
        // The parameters that are wrong are not looked at.
        for bad in [of(17), "a=%FF&".repeat(17), "a&".repeat(30_000)] {
            let refused = query(&bad).unwrap_err().to_string();
            assert_eq!(refused, "invalid_parameter: the query has more than 16 parameters");
        }
    }

    #[test]
    fn a_long_name_is_not_repeated_whole() {
        let refused = query(&"x".repeat(60_000)).unwrap().finish().unwrap_err().to_string();
        assert!(refused.len() < 200 && refused.contains("parameter xxx"), "{refused}");
    }

    #[test]
    fn parts_of_the_path_may_hold_any_name() {
        let part = |path: &str| segment(&TestRequest::with_uri(path).to_http_request(), 1, "topic");
        assert_eq!(part("/topics/a%2Fb%25+%C3%A9").unwrap(), "a/b%+é");
        assert!(part("/topics/%FF").is_err());
        assert!(part("/topics/%0A").is_err());
    }
}
