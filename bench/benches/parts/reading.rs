//! Pages and keys of a store whose older part is in a sealed run, each read with its way to a thread that may block.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput};
use rusqlite::Connection;
use sekali::config::{Durability, StoreUrl};
use sekali::domain::Topic;
use sekali::store::{Engine, Key, Order, PageQuery, Reader};
use sekali_bench::parts::{EVENTS, OwnStore, SEED, fill};
use sekali_bench::plan::{Lane, Plan};
use tokio::runtime::{Builder, Runtime};

use crate::TOPICS;

/// Events that the store holds: 800,000 new ones, of which 524,288 are sealed.
const FILLED: usize = 1_000_000;

/// Seqs that every one of the topics has, by far.
const SEQS: u64 = 190_000;

/// Events of a page: few, as a person asks for, and many, as a reader of everything does.
const PAGE: u64 = 100;
const LARGE_PAGE: u64 = 1000;

/// What is sealed has smaller numbers.
const SEALED: u64 = 500_000;

const PLAN: Plan = Plan::new(SEED, TOPICS);

pub(crate) fn pages_and_keys(criterion: &mut Criterion) {
    let store = OwnStore::make(Durability::Relaxed).unwrap();
    let mut writer = store.engine.open_writer().unwrap();
    fill(writer.as_mut(), PLAN, &mut Lane::new(SEED, 0, 1), FILLED, &store.settings).unwrap();
    let StoreUrl::Sqlite(path) = &store.settings.store.url else { unreachable!("a file was made") };
    assert!(runs(path) > 0, "nothing is sealed");
    let runtime = Builder::new_current_thread().build().unwrap();
    let reader = store.engine.reader();
    pages(criterion, &runtime, reader.as_ref());
    lookups(criterion, &runtime, reader.as_ref());
}

fn pages(criterion: &mut Criterion, runtime: &Runtime, reader: &dyn Reader) {
    let topic = Topic::parse(&PLAN.topics().next().unwrap()).unwrap();
    let page = |first: u64, limit: u64| {
        let query = PageQuery {
            topic: topic.clone(),
            first,
            last: SEQS,
            limit: usize::try_from(limit).unwrap(),
            order: Order::Ascending,
        };
        let events = runtime.block_on(reader.page(query)).unwrap().events;
        assert_eq!(events.len() as u64, limit.min(SEQS + 1 - first));
    };
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(PAGE));
    group.bench_function("page of 100 in the middle", |bencher| {
        bencher.iter(|| page(black_box(SEQS / 2), PAGE));
    });
    group.throughput(Throughput::Elements(SEQS)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("whole topic in pages of 1000", |bencher| {
        bencher.iter(|| (0..SEQS / LARGE_PAGE).for_each(|turn| page(turn * LARGE_PAGE + 1, LARGE_PAGE)));
    });
    group.finish();
}

fn lookups(criterion: &mut Criterion, runtime: &Runtime, reader: &dyn Reader) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(EVENTS as u64));
    // Numbers far from each other, below those of recent keys; and numbers that nothing has.
    let step = SEALED / EVENTS as u64;
    for (name, start, stored) in [("stored", 0, true), ("unknown", 1 << 40, false)] {
        let keys: Vec<_> = (0..EVENTS as u64).map(|turn| key(start + turn * step)).collect();
        let look = |asked: Vec<Key>| {
            let found = runtime.block_on(reader.lookup(asked)).unwrap();
            assert!(found.iter().all(|found| found.is_some() == stored));
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| keys.clone(), look, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn key(number: u64) -> Key {
    let mut buffer = Vec::new();
    let event = PLAN.event(number, &mut buffer).unwrap();
    Key { topic: Topic::parse(event.topic()).unwrap(), event_id: event.id().to_owned() }
}

/// Runs of the dedup index.
fn runs(path: &Path) -> i64 {
    let store = Connection::open(path).unwrap();
    store.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
}
