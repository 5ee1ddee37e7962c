//! Groups of events into a store: the dedup index, the rows and the commit, without the pipeline.

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput};
use sekali::config::Durability;
use sekali::store::Engine;
use sekali_bench::parts::{EVENTS, Group, Kind, OwnStore, SEED, fill};
use sekali_bench::plan::{Lane, Plan};

use crate::{FILLED, MANY_TOPICS, TOPICS};

pub(crate) fn groups(criterion: &mut Criterion) {
    for durability in [Durability::Full, Durability::Relaxed] {
        for topics in [TOPICS, MANY_TOPICS] {
            let name = format!("append/{}, {topics} topics", durability.as_str());
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(EVENTS as u64)).sampling_mode(SamplingMode::Flat);
            for kind in Kind::ALL {
                append(&mut group, kind, durability, Plan::new(SEED, topics));
            }
            group.finish();
        }
    }
}

/// Measures one kind of group on a store of its own, which grows meanwhile.
fn append(group: &mut BenchmarkGroup<'_, WallTime>, kind: Kind, durability: Durability, plan: Plan) {
    group.bench_function(kind.name(), |bencher| {
        let store = OwnStore::make(durability).unwrap();
        let mut writer = store.engine.open_writer().unwrap();
        let mut lane = Lane::new(SEED, 0, 1);
        fill(writer.as_mut(), plan, &mut lane, FILLED, &store.settings).unwrap();
        let mut steps = kind.steps(lane);
        let next = || {
            let steps: Vec<_> = steps.by_ref().take(EVENTS).collect();
            Group::of(plan, &steps, &store.settings).unwrap()
        };
        let append = |events: Group| {
            events.append(writer.as_mut()).unwrap();
            // Given back, so that freeing the events does not count: the program does that after its answers.
            events
        };
        bencher.iter_batched(next, append, BatchSize::SmallInput);
    });
}
