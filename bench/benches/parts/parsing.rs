//! Bodies to events, and payloads that are compared.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use sekali::config::{Overrides, load};
use sekali::domain::PayloadHasher;
use sekali_bench::parts::{EVENTS, Form, SEED, limits, parse};
use sekali_bench::plan::{Lane, Plan};

use crate::TOPICS;

/// A payload of the workload, and the same value in other words: the other order, another exponent, an escape.
const PAYLOAD: &str = r#"{"order":"0000012345","amount":12345.60,"currency":"EUR","buyer":"123456"}"#;
const IN_OTHER_WORDS: &str =
    r#"{ "buyer": "12345\u0036", "currency": "EUR", "amount": 1.23456e4, "order": "0000012345" }"#;
const OF_OTHER_VALUE: &str = r#"{"order":"0000012345","amount":12345.61,"currency":"EUR","buyer":"123456"}"#;

pub(crate) fn bodies(criterion: &mut Criterion) {
    let limits = limits(&load(None, &Overrides::default()).unwrap());
    let steps: Vec<_> = Lane::new(SEED, 0, 1).take(EVENTS).collect();
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (form, name) in Form::ALL.into_iter().zip(["array", "object", "ndjson"]) {
        let body = form.body(Plan::new(SEED, TOPICS), &steps).unwrap();
        // Events are freed on another thread, so their end does not count here.
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| parse(black_box(&body), form, limits).unwrap());
        });
    }
    group.finish();
}

pub(crate) fn payloads(criterion: &mut Criterion) {
    let hasher = PayloadHasher::new(&SEED.to_le_bytes().repeat(2).try_into().unwrap_or_default());
    let same_value = |left, right| hasher.digest(left, |_| ()) == hasher.digest(right, |_| ());
    let mut group = criterion.benchmark_group("same_value");
    for (name, other, same) in
        [("equal in other words", IN_OTHER_WORDS, true), ("different", OF_OTHER_VALUE, false)]
    {
        assert_eq!(same_value(PAYLOAD, other), same, "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| same_value(black_box(PAYLOAD), black_box(other)));
        });
    }
    group.finish();
}
