//! Digests against the oracle, and the memory that they take.

use proptest::prelude::*;

use super::*;
use crate::domain::{check_payload, oracle};

/// Whether two payloads have one digest, which must be what the oracle says.
fn same_value(left: &str, right: &str) -> bool {
    let hasher = PayloadHasher::new(&fastrand::u128(..).to_le_bytes());
    let same = hasher.digest(left, |_| ()) == hasher.digest(right, |_| ());
    assert_eq!(same, oracle::same_value(left, right), "the oracle judges otherwise: {left} {right}");
    same
}

#[test]
fn values_are_compared_and_not_texts() {
    for (left, right) in [
        (r#"{"a":1,"b":2}"#, r#" { "b" : 2.0 , "a" : 1e0 } "#),
        (r#"{"a":"\u0041\/"}"#, r#"{"a":"A/"}"#),
        (r#"{"\u0061":[]}"#, r#"{"a":[ ]}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"a":{ }}"#, r#"{"a":{}}"#),
        (r#"{"a":-0}"#, r#"{"a":0.0e5}"#),
    ] {
        assert!(same_value(left, right), "{left} {right}");
    }
}

#[test]
fn other_values_are_not_the_same() {
    for (left, right) in [
        (r#"{"a":1}"#, r#"{"a":"1"}"#),
        (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
        (r#"{"a":null}"#, "{}"),
        (r#"{"a":true}"#, r#"{"a":false}"#),
        (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#),
        (r#"{"a":1e400}"#, r#"{"a":1e401}"#),
        (r#"{"a":{"$serde_json::private::Number":"1"}}"#, r#"{"a":1}"#),
    ] {
        assert!(!same_value(left, right), "{left} {right}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-c\"\\\\\n☃😀]{0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-c\"☃]{0,2}", inner, 0..4)
                .prop_map(|members| { serde_json::Value::Object(members.into_iter().collect()) }),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_a_parser_where_that_is_exact(left in json(), right in json()) {
        let pretty = serde_json::to_string_pretty(&left).unwrap();
        prop_assert!(same_value(&left.to_string(), &pretty));
        prop_assert_eq!(same_value(&left.to_string(), &right.to_string()), left == right);
        prop_assert_eq!(check_payload(&pretty, 64), Ok(()));
    }
}

/// A JSON text with all that two texts of one value may differ in: white space, order, numbers and strings in
/// other words, names that come again.
fn text() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", " ", "\n\t", " \r "]);
    let string = || {
        prop::sample::select(vec![
            r#""""#,
            r#""a""#,
            r#""\u0061""#,
            r#""\/""#,
            r#""/""#,
            r#""\\u0061""#,
            r#""\ud83d\ude00""#,
            r#""😀""#,
            r#""\ud800""#,
            r#""\\ud800""#,
            r#""\u0000""#,
            r#""1""#,
            r#""\n\t\b\f\r\"""#,
            r#""\u000a\u0009\u0008\u000C\u000d\u0022""#,
        ])
    };
    let number = prop::sample::select(vec![
        "0",
        "-0",
        "0.0e5",
        "1",
        "1.0",
        "1e0",
        "10E-1",
        "0.1e+1",
        "-1",
        "100",
        "1e2",
        "1E+02",
        "0.10",
        "1e-1",
        "9007199254740993",
        "9007199254740992",
        "1e99999999999999999999999999999999999999999999",
        "10e99999999999999999999999999999999999999999998",
        "1e-99999999999999999999999999999999999999999999",
    ]);
    let literal = prop::sample::select(vec!["true", "false", "null"]);
    let leaf = prop_oneof![
        3 => number.prop_map(str::to_owned),
        3 => string().prop_map(str::to_owned),
        1 => literal.prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let spaced =
            (space(), inner, space()).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = (string(), space(), spaced.clone())
            .prop_map(|(name, space, value)| format!("{space}{name}{space}:{value}"));
        prop_oneof![
            (space(), prop::collection::vec(spaced, 0..4))
                .prop_map(|(space, items)| format!("[{space}{}]", items.join(","))),
            (space(), prop::collection::vec(member, 0..4))
                .prop_map(|(space, of)| format!("{{{space}{}}}", of.join(","))),
        ]
    })
}

/// The same value in other words, as far as the members of an object are rearranged: an earlier member of a
/// name may come at any time before the last one of it.
fn rearranged(json: &str, seed: u64) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let Ok(members) = serde_json::from_str::<Vec<(String, serde_json::Value)>>(json) else {
        return json.to_owned();
    };
    let mut last: std::collections::BTreeMap<_, _> = members.iter().cloned().collect();
    let mut texts = Vec::new();
    for (name, value) in &members {
        if rng.bool() {
            texts.push(format!("{}:{value}", serde_json::Value::from(name.as_str())));
        }
    }
    rng.shuffle(&mut texts);
    while !last.is_empty() {
        let names: Vec<_> = last.keys().cloned().collect();
        let name = &names[rng.usize(..names.len())];
        let value = last.remove(name).unwrap();
        texts.push(format!(" {} : {value}", serde_json::Value::from(name.as_str())));
    }
    format!("{{{}}}", texts.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn agrees_with_the_oracle(left in text(), right in text()) {
        same_value(&left, &right);
        let spaced = format!(" {left}\n");
        prop_assert!(same_value(&left, &spaced));
    }

    #[test]
    fn a_part_that_differs_makes_the_whole_differ(value in text(), left in text(), right in text()) {
        for (begins, ends) in [("[1,", ",{}]"), ("{\"x\":", ",\"y\":[]}"), ("[[{\"\":", "}],2]")] {
            let wrap = |part: &str| format!("{begins}{part}{ends}");
            prop_assert_eq!(same_value(&wrap(&left), &wrap(&right)), oracle::same_value(&left, &right));
            prop_assert!(!same_value(&wrap(&value), &value));
        }
    }

    #[test]
    fn members_count_in_any_order_and_the_last_of_a_name_alone(
        members in prop::collection::vec(("[a-c]", -3_i64..3), 0..8), seeds: (u64, u64),
    ) {
        let pairs: Vec<_> = members.iter().map(|(name, value)| serde_json::json!([name, value])).collect();
        let pairs = serde_json::Value::from(pairs).to_string();
        let texts: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let plain = format!("{{{}}}", texts.join(","));
        prop_assert!(same_value(&rearranged(&pairs, seeds.0), &plain));
        prop_assert!(same_value(&rearranged(&pairs, seeds.0), &rearranged(&pairs, seeds.1)));
    }
}

#[test]
fn digests_of_two_secrets_tell_nothing_of_each_other() {
    let digest = |secret| PayloadHasher::new(&[secret; 16]).digest("{}", |_| ());
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

/// The bytes that the digest of a payload takes.
fn taken(json: &str) -> usize {
    let mut taken = 0;
    PayloadHasher::new(&[0; 16]).digest(json, |bytes| taken += bytes);
    taken
}

// invariant 8: what a comparison takes follows from the text's length, and only names that are open together count.
#[test]
fn memory_is_bounded_by_nesting_and_by_the_names_of_open_objects() {
    const BYTES: usize = 1 << 20;
    let of_one_level = |item: &dyn Fn(usize) -> String, ends: [&str; 2]| {
        let mut text = String::new();
        for number in 0.. {
            let item = item(number);
            if text.len() + item.len() + 3 > BYTES {
                break;
            }
            text += if text.is_empty() { "" } else { "," };
            text += &item;
        }
        format!("{}{text}{}", ends[0], ends[1])
    };
    let numbers = of_one_level(&|_| "1".to_owned(), ["[", "]"]);
    let objects = of_one_level(&|number| format!("{{\"{number:x}\":1}}"), ["[", "]"]);
    let long = format!("{{\"x\":\"{}\",\"y\":1e{}}}", "\\u0041".repeat(BYTES / 12), "9".repeat(BYTES / 2));
    let open = 16 * size_of::<Open>() + 16 * size_of::<Member>();
    for small in [&numbers, &objects, &long] {
        assert!(taken(small) <= open, "{} bytes for one of {}", taken(small), small.len());
    }
    // The most that a text of a length can ask for: names alone.
    let names = of_one_level(&|number| format!("\"{number:x}\":1"), ["{", "}"]);
    let same = of_one_level(&|_| "\"\":1".to_owned(), ["{", "}"]);
    for large in [&names, &same] {
        assert!(taken(large) <= 13 * BYTES, "{} bytes for one of {}", taken(large), large.len());
    }
    // As deep as stores of older versions may hold, and without a call for each level.
    let deep = format!("{}1{}", "[".repeat(BYTES / 2), "]".repeat(BYTES / 2));
    assert!(taken(&deep) <= 100 * BYTES);
}
