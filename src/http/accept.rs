//! Which of the forms of events a client likes best: the negotiation of RFC 9110, section 12.5.1.
//!
//! Two rules are more lenient than the RFC, since clients are. A weight may be any decimal number
//! from 0 to 1, and `*` is `*/*`: Java sends `*; q=.2` unless it is told otherwise. Where no form
//! matches with the parameters of the ranges, the ranges are read again without them, so that
//! `application/json;version=1` is answered and not refused.

use actix_web::http::header::{ACCEPT, HeaderMap};

use super::failure::Failure;
use super::fields;
use super::follow::EVENT_STREAM;
use super::headers::NDJSON;
use crate::api::Code;
use crate::intake::Format;

/// How events are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// As a list of those that there are.
    Listed(Format),
    /// As those that there are and those that come.
    Followed,
}

/// What events can be given as, by the names of its media type. Wildcards match the first name;
/// where the client likes several equally, the first row is given.
const OFFERED: [(Given, &[&str]); 3] = [
    (Given::Listed(Format::Json), &["application/json"]),
    (Given::Listed(Format::NdJson), &[NDJSON, "application/ndjson", "application/jsonl"]),
    (Given::Followed, &[EVENT_STREAM]),
];

/// How exactly a range names a type: a more exact range decides in place of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exactness {
    Anything,
    AnySubtype,
    Type,
    TypeWithParameters,
}

/// Whether the parameters of ranges must be those of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameters {
    Matter,
    AreIgnored,
}

/// A media range of the header.
#[derive(Debug)]
struct Range {
    name: String,
    weight: f32,
    /// Whether it has parameters, and whether they are those of our types.
    parameters: Option<bool>,
}

/// The form of events that the client likes best; JSON where it says nothing.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Given, Failure> {
    let members = fields::members(headers, ACCEPT);
    if members.is_empty() {
        return Ok(Given::Listed(Format::Json));
    }
    let ranges: Vec<_> = members.iter().filter_map(|member| Range::parse(member)).collect();
    let given = best(&ranges, Parameters::Matter).or_else(|| best(&ranges, Parameters::AreIgnored));
    given.ok_or_else(|| {
        let rule = format!("events are given as application/json, {NDJSON} or {EVENT_STREAM}");
        Failure::new(Code::NotAcceptable, rule)
    })
}

/// The form with the greatest weight. Of equal ones a type that is named goes before one that only
/// a wildcard matches, then the order of [`OFFERED`] decides.
fn best(ranges: &[Range], parameters: Parameters) -> Option<Given> {
    let mut best: Option<((f32, bool), Given)> = None;
    for (given, names) in OFFERED {
        let Some((exactness, weight)) = judged(ranges, names, parameters) else { continue };
        let rank = (weight, exactness >= Exactness::Type);
        if weight > 0.0 && best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, given));
        }
    }
    best.map(|(_, given)| given)
}

/// The weight that the most exact range gives to a type with these names, and how exact that range
/// is.
fn judged(ranges: &[Range], names: &[&str], parameters: Parameters) -> Option<(Exactness, f32)> {
    let matching = ranges.iter().filter_map(|range| Some((range.matches(names, parameters)?, range.weight)));
    matching.max_by(|(exactness, weight), (other, other_weight)| {
        exactness.cmp(other).then(weight.total_cmp(other_weight))
    })
}

impl Range {
    /// A member of the header; `None` where its weight is not one, and the member says nothing
    /// then.
    fn parse(member: &str) -> Option<Self> {
        let mut parameters = fields::parameters(member);
        let weight = match parameters.iter().position(|(name, _)| name == "q") {
            Some(at) => weight(&parameters.remove(at).1)?,
            None => 1.0,
        };
        let is_ours =
            |(name, value): &(String, String)| name == "charset" && value.eq_ignore_ascii_case("utf-8");
        Some(Self {
            name: fields::essence(member),
            weight,
            parameters: (!parameters.is_empty()).then(|| parameters.iter().all(is_ours)),
        })
    }

    /// How exactly the range names a type with these names; `None` where it does not.
    fn matches(&self, names: &[&str], parameters: Parameters) -> Option<Exactness> {
        if parameters == Parameters::Matter && self.parameters == Some(false) {
            return None;
        }
        if names.contains(&&*self.name) {
            let is_more = self.parameters.is_some() && parameters == Parameters::Matter;
            return Some(if is_more { Exactness::TypeWithParameters } else { Exactness::Type });
        }
        if matches!(&*self.name, "*/*" | "*") {
            return Some(Exactness::Anything);
        }
        let of = |name: &&str| name.split('/').next() == self.name.strip_suffix("/*");
        names.first().is_some_and(of).then_some(Exactness::AnySubtype)
    }
}

/// The weight of a range, from 0 to 1.
fn weight(text: &str) -> Option<f32> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let weight: f32 = if is_decimal { text.parse().ok()? } else { return None };
    (0.0..=1.0).contains(&weight).then_some(weight)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    const JSON: Option<Given> = Some(Given::Listed(Format::Json));
    const LINES: Option<Given> = Some(Given::Listed(Format::NdJson));
    const FOLLOWED: Option<Given> = Some(Given::Followed);

    fn read(lines: &[&str]) -> Option<Given> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        accepted(&headers).ok()
    }

    #[test]
    fn the_best_acceptable_form_is_chosen() {
        for (accept, expected) in [
            // Nothing is said.
            ("", JSON),
            (" , ,", JSON),
            // Types, in any case and with aliases.
            ("application/json", JSON),
            ("Application/JSON", JSON),
            ("application/x-ndjson", LINES),
            ("application/ndjson", LINES),
            ("application/JSONL", LINES),
            ("text/event-stream", FOLLOWED),
            ("Text/Event-Stream; charset=utf-8", FOLLOWED),
            // Weights.
            ("application/x-ndjson;Q=0.1, application/json", JSON),
            ("application/x-ndjson;q=0.1, application/json", JSON),
            ("application/json;q=0.5, application/jsonl", LINES),
            ("application/json;q=0.123, application/x-ndjson;q=0.124", LINES),
            ("application/json ; q=0.9 , application/x-ndjson ; q=1.000", LINES),
            ("application/json;q=0.9;ext=1, application/x-ndjson", LINES),
            ("application/json;q=\"0.5\", application/x-ndjson;q=0.6", LINES),
            ("application/json;q=0.5;charset=utf-8, application/x-ndjson;q=0.4", JSON),
            // Weights that are none: the range says nothing.
            ("application/json;q=abc, application/x-ndjson;q=0.1", LINES),
            ("application/json;q=1.5, application/x-ndjson;q=0.1", LINES),
            ("application/json;q=-1, application/x-ndjson;q=0.1", LINES),
            ("application/json;q=, application/x-ndjson;q=0.1", LINES),
            ("application/json;q=1e0, application/x-ndjson;q=0.1", LINES),
            ("application/json;q=nan, application/x-ndjson;q=0.1", LINES),
            ("application/json;q=abc", None),
            // Zero excludes, whatever a wildcard says.
            ("application/json;q=0", None),
            ("application/json;q=0.000, */*", LINES),
            ("*/*, application/json;q=0", LINES),
            ("application/*;q=0, */*", FOLLOWED),
            ("application/*, application/json;q=0", LINES),
            ("text/event-stream;q=0, application/*", JSON),
            ("*/*;q=0", None),
            ("*/*;q=0, application/x-ndjson", LINES),
            // Wildcards and what they do not match.
            ("*/*", JSON),
            ("application/*", JSON),
            ("text/*", FOLLOWED),
            ("text/html, */*;q=0.1", JSON),
            ("text/html", None),
            ("image/*", None),
            ("*/json", None),
            ("app/*", None),
            ("application", None),
            ("application/", None),
            // What Java sends.
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", JSON),
            // The most exact range decides on a type.
            ("application/json;q=0.1, application/*;q=0.9", LINES),
            ("application/x-ndjson;q=0.1, application/*;q=0.2, */*;q=0.9", FOLLOWED),
            ("application/json;q=0.9, application/json;charset=utf-8;q=0.1, application/jsonl;q=0.5", LINES),
            // Equal weights: named before matched, then the order of the server.
            ("application/x-ndjson, application/json", JSON),
            ("text/event-stream, application/x-ndjson", LINES),
            ("*/*, application/ndjson", LINES),
            ("text/event-stream, application/*", FOLLOWED),
            ("text/*, */*", JSON),
            // Parameters.
            ("application/json;charset=UTF-8", JSON),
            ("application/json; charset=\"utf-8\"", JSON),
            ("application/json;version=1", JSON),
            ("application/json;version=1, application/x-ndjson;q=0.5", LINES),
            ("application/json;version=1;q=0, application/json;q=0.1", JSON),
            ("application/json;version=1;q=0", None),
            ("application/json;x=\"a, application/x-ndjson\", text/event-stream;q=0.5", FOLLOWED),
            ("text/html;x=\"\\\", application/json\", application/x-ndjson", LINES),
            // Bytes that are no text spoil only their member.
            ("text/\u{e9}, application/x-ndjson", LINES),
        ] {
            assert_eq!(read(&[accept]), expected, "{accept}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(read(&["application/json;q=0.1", "application/x-ndjson"]), LINES);
        assert_eq!(read(&["*/*", "application/json;q=0"]), LINES);
        assert_eq!(read(&["", "text/event-stream"]), FOLLOWED);
        assert_eq!(read(&["text/html", "image/png"]), None);
        assert_eq!(read(&[]), JSON);
    }
}
