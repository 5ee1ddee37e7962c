//! What bodies give, form by form and fault by fault.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{Field, Parts};

const LIMITS: Limits = Limits { items: 100, item_bytes: 1 << 20, depth: 64, extra_fields: false };

const GOOD: &str =
    r#"{"topic":"t","event_id":"1","timestamp":"2026-01-01T00:00:00Z","source":"s","payload":{"n":1.50}}"#;

fn json(body: &str) -> Result<Parsed<Event>, BodyError> {
    events(body.as_bytes(), Format::Json, LIMITS)
}

fn lines(body: &[u8]) -> Parsed<Event> {
    events(body, Format::NdJson, LIMITS).unwrap()
}

/// Field and code of every fault of a body with one invalid event.
fn faults(body: &str) -> Vec<(Option<String>, FaultCode)> {
    let parsed = json(body).unwrap();
    assert_eq!((parsed.valid.len(), parsed.invalid.len()), (0, 1), "{body}");
    let faults = &parsed.invalid[0].faults;
    faults.iter().map(|fault| (fault.field.as_ref().map(ToString::to_string), fault.code)).collect()
}

fn with(field: &str, json: &str) -> String {
    let mut members: Vec<_> = [
        ("topic", "\"t\""),
        ("event_id", "\"1\""),
        ("timestamp", "\"2026-01-01T00:00:00Z\""),
        ("source", "\"s\""),
        ("payload", "{}"),
    ]
    .into_iter()
    .filter(|(name, _)| *name != field)
    .collect();
    members.push((field, json));
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn one_event_an_array_and_a_batch_are_read_alike() {
    let one = json(GOOD).unwrap();
    assert_eq!(one.valid[0].payload(), r#"{"n":1.50}"#);
    assert_eq!(json(&format!(" [ {GOOD} ] ")).unwrap(), one);
    assert_eq!(json(&format!("\n{{ \"events\" : [{GOOD}] }}\n")).unwrap(), one);
    assert_eq!(json(&format!("{{\"\\u0065vents\":[{GOOD}]}}")).unwrap(), one);
    assert_eq!(lines(GOOD.as_bytes()), one);
}

#[test]
fn empty_lists_hold_no_events() {
    for body in ["[]", " [ ] ", r#"{"events":[]}"#] {
        assert_eq!(json(body).unwrap(), Parsed { valid: vec![], invalid: vec![] }, "{body}");
    }
    assert!(lines(b"").valid.is_empty());
}

#[test]
fn a_body_that_is_not_json_is_refused_as_a_whole() {
    let cut = &GOOD[..GOOD.len() - 1];
    for body in ["", " ", "{", "[", "nope", "[1,]", "[1 2]", "[1]]", "{}{}", "{\"events\":[]", cut] {
        assert!(matches!(json(body), Err(BodyError::NotJson(_))), "{body}");
    }
    let not_utf8 = events(b"[\"\xff\"]", Format::Json, LIMITS);
    assert!(matches!(not_utf8, Err(BodyError::NotJson(_))));
}

#[test]
fn what_is_not_json_is_named_with_its_place_in_the_whole_body() {
    let place = |body: &str| json(body).unwrap_err().to_string();
    let said = |line, column, what| format!("the body is not JSON at line {line}, column {column}: {what}");
    assert_eq!(place("nope"), said(1, 2, "expected ident"));
    assert_eq!(place(&format!("[{GOOD},\n {{\"topic\" 1}}]")), said(2, 11, "expected `:`"));
    assert_eq!(place(&format!("[{GOOD},\n {{\n\"topic\" 1}}]")), said(3, 9, "expected `:`"));
    assert_eq!(place(&format!("[\n{GOOD}\n{GOOD}]")), said(3, 1, "expected `,` or `]`"));
    let lines_as_json = place(&format!("{GOOD}\n{GOOD}"));
    assert!(
        lines_as_json.contains("line 2, column 1: ") && lines_as_json.contains("NDJSON"),
        "{lines_as_json}"
    );
    let line = lines(b"{\"topic\" 1}").invalid.remove(0).faults.remove(0).detail;
    assert_eq!(line, "the line is not JSON at column 10: expected `:`");
}

const MARK: &str = "\u{feff}";

#[test]
fn a_mark_at_the_start_of_a_body_is_skipped_and_moves_no_place() {
    let one = json(GOOD).unwrap();
    let batch = format!("{{\"events\":[{GOOD}]}}");
    for body in [GOOD.to_owned(), format!("[{GOOD}]"), batch, format!("\r\n [{GOOD}]")] {
        assert_eq!(json(&format!("{MARK}{body}")).unwrap(), one);
    }
    assert_eq!(lines(format!("{MARK}{GOOD}\n").as_bytes()), one);
    assert_eq!(lines(format!("{MARK}\r\n{GOOD}").as_bytes()), one);
    assert_eq!(lines(MARK.as_bytes()), Parsed { valid: vec![], invalid: vec![] });
    let key = "[{\"topic\":\"t\",\"event_id\":\"1\"}]";
    assert_eq!(keys(format!("{MARK}{key}").as_bytes(), LIMITS), keys(key.as_bytes(), LIMITS));
    let place = json(&format!("{MARK}nope")).unwrap_err().to_string();
    assert!(place.contains("line 1, column 2"), "{place}");
    // Within a string it is a character.
    let named = json(&with("topic", &format!("\"{MARK}\""))).unwrap();
    assert_eq!(named.valid[0].topic(), MARK);
}

#[test]
fn a_mark_anywhere_else_is_named_with_its_place() {
    let said = |line: usize, column: usize| {
        format!(
            "the body is not JSON: a UTF-8 byte order mark at line {line}, column {column}; only the start of a body may have one"
        )
    };
    for (body, line, column) in [
        (format!("{MARK}{MARK}[]"), 1, 1),
        (format!("[{MARK}{GOOD}]"), 1, 2),
        (format!("[{GOOD},\n{MARK}{GOOD}]"), 2, 1),
        (format!("[{GOOD},{MARK}\n{GOOD}]"), 1, GOOD.len() + 3),
        (format!("[\n{GOOD}{MARK},{GOOD}]"), 2, GOOD.len() + 1),
        (format!("[{GOOD}]\n{MARK}"), 2, 1),
        (format!("{GOOD}\n{MARK}{GOOD}"), 2, 1),
        (format!(" {MARK}[]"), 1, 2),
        (format!("{{{MARK}\"topic\":1}}"), 1, 2),
        (format!("{{\"topic\"{MARK}:1}}"), 1, 9),
        (format!("{{\"topic\":{MARK}1}}"), 1, 10),
        (format!("{{\"topic\":1{MARK}}}"), 1, 11),
        (format!("{{\"topic\":\n 1,{MARK}\"source\":2}}"), 2, 4),
        (format!("{{\"payload\":{{\"a\":[1,\n{MARK}2]}}}}"), 2, 1),
        (format!("{{\"payload\":{{\"a\":tr{MARK}ue}}}}"), 1, 19),
        (format!("{{\"events\":{MARK}[]}}"), 1, 11),
        (format!("{{\"events\":[]{MARK}}}"), 1, 13),
        (MARK.repeat(2), 1, 1),
    ] {
        assert_eq!(json(&body).unwrap_err().to_string(), said(line, column), "{body:?}");
    }
    let keys = keys(format!("[{MARK}]").as_bytes(), LIMITS).unwrap_err();
    assert_eq!(keys.to_string(), said(1, 2));
    // A mark within a string that ends before the fault is no fault.
    let other = json(&format!("[\"{MARK}\" nope]")).unwrap_err().to_string();
    assert!(!other.contains("mark"), "{other}");
}

#[test]
fn a_mark_in_a_line_of_its_own_or_of_another_file_rejects_that_line_by_name() {
    let body = format!("{MARK}{GOOD}\n{MARK}{GOOD}\r\n{MARK}\n  {MARK}{GOOD}\n{GOOD}{MARK}\n{GOOD}");
    let parsed = lines(body.as_bytes());
    assert_eq!(parsed.valid.len(), 2);
    let found: Vec<_> = parsed.invalid.iter().map(|bad| (bad.index, &*bad.faults[0].detail)).collect();
    let said = |column: usize| {
        format!(
            "the line is not JSON: a UTF-8 byte order mark at column {column}; only the start of a body may have one"
        )
    };
    let (start, end) = (said(1), said(GOOD.len() + 1));
    assert_eq!(found, [(1, &*start), (2, &*start), (3, &*start), (4, &*end)]);
    let twice = lines(format!("{MARK}{MARK}{GOOD}").as_bytes());
    assert_eq!(twice.invalid[0].faults[0].detail, start);
}

#[test]
fn marks_of_other_encodings_refuse_the_body_by_name() {
    for (body, encoding) in [
        (&b"\xff\xfe{\0}\0"[..], "UTF-16"),
        (b"\xfe\xff\0{\0}", "UTF-16"),
        (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
        (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
    ] {
        let said = format!("the body begins with a {encoding} byte order mark; encode it as UTF-8");
        for format in [Format::Json, Format::NdJson] {
            assert_eq!(events(body, format, LIMITS), Err(BodyError::NotJson(said.clone())));
        }
        assert_eq!(keys(body, LIMITS), Err(BodyError::NotJson(said)));
    }
}

#[test]
fn a_batch_has_no_other_member() {
    for (body, name) in [
        (r#"{"events":[],"mode":1}"#, "mode"),
        (r#"{"events":[],"events":[]}"#, "events"),
        (r#"{"mode":1,"events":[]}"#, "mode"),
        (r#"{"topic":"t","events":[]}"#, "topic"),
    ] {
        let Err(BodyError::NotAList(detail)) = json(body) else { panic!("{body}") };
        assert!(detail.contains(&format!("{name:?}")), "{detail}");
    }
    assert!(matches!(json(r#"{"events":{}}"#), Err(BodyError::NotAList(_))));
}

#[test]
fn other_values_are_invalid_events() {
    for body in ["1e999", "\"\\ud800\"", "null", "true", "[[]]", "[\"x\"]", "[1]"] {
        assert_eq!(faults(body), [(None, FaultCode::NotAnObject)], "{body}");
    }
    let parsed = json(&format!("[1,{GOOD},null]")).unwrap();
    assert_eq!(parsed.valid.len(), 1);
    assert_eq!(parsed.invalid.iter().map(|bad| bad.index).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn every_fault_of_an_event_is_named() {
    use FaultCode::*;
    let named = |field: &str, code| (Some(field.to_owned()), code);
    let missing = Field::ALL.map(|field| named(field.as_str(), MissingField));
    assert_eq!(faults("{}"), missing);
    let body = r#"{"topic":1,"event_id":"","timestamp":"soon","source":"a\u0000","payload":[],"extra":{}}"#;
    assert_eq!(
        faults(body),
        [
            named("extra", UnknownField),
            named("topic", WrongType),
            named("event_id", Empty),
            named("timestamp", BadTimestamp),
            named("source", ControlCharacter),
            named("payload", WrongType),
        ]
    );
    let twice = GOOD.replace("\"source\"", "\"topic\":\"t\",\"source\"");
    assert_eq!(faults(&twice), [named("topic", DuplicateField)]);
    assert_eq!(faults(&with("topic", "\"\\udc00\"")), [named("topic", LoneSurrogate)]);
    assert_eq!(faults(&with("payload", r#"{"a":"\ud800x"}"#)), [named("payload", LoneSurrogate)]);
    assert_eq!(faults(&with("topic", &format!("{:?}", "x".repeat(256)))), [named("topic", TooLong)]);
}

#[test]
fn extra_fields_are_ignored_where_they_may_be_and_nothing_else_is() {
    let limits = Limits { extra_fields: true, ..LIMITS };
    let read = |body: &str, format| events(body.as_bytes(), format, limits);
    let many: Vec<_> = (0..40).map(|number| format!("\"extra-{number}\":[{number}],")).collect();
    let many = many.concat();
    let event = GOOD.replacen('{', &format!("{{\"events\":[1],{many}"), 1);
    let expected = json(GOOD).unwrap();
    for (body, format) in [
        (event.clone(), Format::Json),
        (GOOD.replacen('{', "{\"events\":{},", 1), Format::Json),
        (GOOD.replacen(",\"source\"", ",\"events\":[],\"source\"", 1), Format::Json),
        (format!("[{event}]"), Format::Json),
        (format!("{{\"events\":[{event}]}}"), Format::Json),
        (event.clone(), Format::NdJson),
    ] {
        assert_eq!(read(&body, format), Ok(expected.clone()), "{body}");
    }
    // Behind fields that are ignored a field that is there twice is still a fault, and so is one
    // that is missing.
    let twice = event.replace("\"source\"", "\"topic\":\"other\",\"source\"");
    let parsed = read(&twice, Format::Json).unwrap();
    let codes: Vec<_> = parsed.invalid[0].faults.iter().map(|fault| fault.code).collect();
    assert_eq!(codes, [FaultCode::DuplicateField]);
    let missing = read("{\"Topic\":\"t\"}", Format::Json).unwrap();
    assert_eq!(missing.invalid[0].faults.len(), Field::ALL.len());
    for beside in ["{\"events\":[],\"sent\":1}", "{\"sent\":1,\"events\":[]}"] {
        assert!(matches!(read(beside, Format::Json), Err(BodyError::NotAList(_))), "{beside}");
    }
    assert!(matches!(read("{\"events\":[],", Format::Json), Err(BodyError::NotJson(_))));
    let keys = keys(br#"[{"topic":"t","event_id":"1","extra":0}]"#, limits).unwrap();
    assert_eq!(keys.invalid.len(), 1, "a key is no event");
}

#[test]
fn details_are_sentences_with_numbers() {
    let parsed = json(&with("topic", &format!("{:?}", "x".repeat(300)))).unwrap();
    assert_eq!(parsed.invalid[0].faults[0].detail, "topic has 300 bytes, the limit is 255");
    let other = json(&with("source", "null")).unwrap();
    assert_eq!(other.invalid[0].faults[0].detail, "source must be a string, not null");
}

#[test]
fn a_hostile_number_of_unknown_fields_names_the_first_ones() {
    let many: Vec<_> = (0..10_000).map(|number| format!("\"{number}{}\":0", "x".repeat(99))).collect();
    let parsed = json(&format!("{{{}}}", many.join(","))).unwrap();
    let text: usize = parsed.invalid[0].faults.iter().map(|fault| fault.detail.len()).sum();
    assert!(text < 4_000, "{text}");
}

#[test]
fn a_hostile_number_of_faults_is_cut_to_one_for_each_event() {
    let limits = Limits { items: 10_000, ..LIMITS };
    let body = vec!["{}"; 10_000].join("\n");
    let parsed = events(body.as_bytes(), Format::NdJson, limits).unwrap();
    assert_eq!(parsed.invalid.len(), 10_000);
    let faults: usize = parsed.invalid.iter().map(|bad| bad.faults.len()).sum();
    assert_eq!(faults, FAULTS_MAX + 10_000 - FAULTS_MAX / Field::ALL.len());
}

#[test]
fn depth_counts_the_event_itself_and_has_no_end_but_its_limit() {
    let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert_eq!(json(&with("payload", &nested(63))).unwrap().valid.len(), 1);
    let too_deep = [(Some("payload".to_owned()), FaultCode::TooDeep)];
    assert_eq!(faults(&with("payload", &nested(64))), too_deep);
    assert_eq!(faults(&with("payload", &nested(10_000))), too_deep);
    let arrays = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(faults(&arrays), [(None, FaultCode::NotAnObject)]);
    assert_eq!(faults(&with("extra", &arrays)), [(Some("extra".to_owned()), FaultCode::UnknownField)]);
    assert!(json(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn sizes_and_numbers_of_events_are_limited() {
    let limits = Limits { items: 2, item_bytes: GOOD.len(), ..LIMITS };
    let big = GOOD.replace("1.50", "1.500");
    for (body, format) in
        [(format!("[ {GOOD} , {big} ]"), Format::Json), (format!("{GOOD}\r\n{big}\n"), Format::NdJson)]
    {
        let parsed = events(body.as_bytes(), format, limits).unwrap();
        assert_eq!((parsed.valid.len(), parsed.invalid[0].index), (1, 1));
        assert!(parsed.invalid[0].too_large());
        assert_eq!(parsed.invalid[0].faults.len(), 1);
    }
    for (body, format) in
        [(format!("[{GOOD},1,{GOOD}, broken"), Format::Json), (format!("1\n2\n{GOOD}\n"), Format::NdJson)]
    {
        assert_eq!(events(body.as_bytes(), format, limits), Err(BodyError::TooMany(2)));
    }
}

#[test]
fn a_broken_line_breaks_no_other() {
    let body =
        [b" \r\n\n".as_slice(), GOOD.as_bytes(), b"\r\n{\"topic\":\n\xff\n\"x\"\n", GOOD.as_bytes()].concat();
    let parsed = lines(&body);
    assert_eq!(parsed.valid.len(), 2);
    let found: Vec<_> = parsed.invalid.iter().map(|bad| (bad.index, bad.faults[0].code)).collect();
    assert_eq!(found, [(1, FaultCode::NotJson), (2, FaultCode::NotJson), (3, FaultCode::NotAnObject)]);
}

#[test]
fn keys_have_two_fields() {
    let parsed =
        keys(br#"[{"topic":"t","event_id":"\u00e9"},{"topic":"t","source":"s"},7]"#, LIMITS).unwrap();
    assert_eq!(parsed.valid, [Key { topic: "t".to_owned(), event_id: "é".to_owned() }]);
    let codes: Vec<Vec<_>> =
        parsed.invalid.iter().map(|bad| bad.faults.iter().map(|fault| fault.code).collect()).collect();
    assert_eq!(codes, [vec![FaultCode::MissingField, FaultCode::UnknownField], vec![FaultCode::NotAnObject]]);
    assert!(matches!(keys(b"{}", LIMITS), Err(BodyError::NotAList(_))));
    assert!(matches!(keys(b"{", LIMITS), Err(BodyError::NotJson(_))));
}

#[derive(Debug, Clone)]
struct Sent {
    topic: String,
    event_id: String,
    timestamp: String,
    source: String,
    payload: serde_json::Value,
}

fn sent() -> impl Strategy<Value = Sent> {
    let name = "[a-z\"\\\\/é☃😀 ]{1,9}";
    let payload = prop::collection::btree_map("[a\"\\\\\n☃]{0,3}", any::<Option<i64>>(), 0..4);
    (name, name, name, payload, any::<bool>()).prop_map(|(topic, event_id, source, payload, zulu)| Sent {
        topic,
        event_id,
        timestamp: format!("2026-01-31 23:59:60.123{}", if zulu { "Z" } else { "" }),
        source,
        payload: json!(payload),
    })
}

impl Sent {
    fn json(&self) -> String {
        let Self { topic, event_id, timestamp, source, payload } = self;
        json!({"topic": topic, "event_id": event_id, "timestamp": timestamp, "source": source, "payload": payload})
            .to_string()
    }
}

proptest! {
    #[test]
    fn events_come_back_from_every_form(all in prop::collection::vec(sent(), 1..9)) {
        let texts: Vec<_> = all.iter().map(Sent::json).collect();
        let array = format!("[{}]", texts.join(" ,\n"));
        let batch = format!("{{\"events\":{array}}}");
        let forms = [json(&array).unwrap(), json(&batch).unwrap(), lines(texts.join("\n").as_bytes()),
            Parsed { valid: texts.iter().flat_map(|text| json(text).unwrap().valid).collect(), invalid: vec![] }];
        for parsed in forms {
            prop_assert!(parsed.invalid.is_empty());
            prop_assert_eq!(parsed.valid.len(), all.len());
            for (event, sent) in parsed.valid.iter().zip(&all) {
                let payload = sent.payload.to_string();
                let parts = Parts { topic: &sent.topic, event_id: &sent.event_id,
                    timestamp: &sent.timestamp, source: &sent.source, payload: &payload };
                prop_assert_eq!(event.parts(), parts);
            }
        }
    }

    #[test]
    fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{},:\"a1e. \\\\u]{0,40}") {
        for bytes in [body.as_slice(), text.as_bytes()] {
            let _ = events(bytes, Format::Json, LIMITS);
            let _ = events(bytes, Format::NdJson, LIMITS);
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
                prop_assert!(events(bytes, Format::Json, LIMITS).is_ok() || value.is_object());
            }
        }
    }
}
