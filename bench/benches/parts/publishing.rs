//! Requests through the whole pipeline, one after the other: router, consumers with their caches, writer, and the
//! threads between them.

use std::sync::Arc;

use actix_web::rt::System;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput};
use sekali::config::Durability;
use sekali::domain::{Event, Verdict};
use sekali::metrics::Metrics;
use sekali::pipeline::Pipeline;
use sekali::store::Engine;
use sekali_bench::parts::{EVENTS, Form, Kind, OwnStore, SEED, accepted, fill, limits, parse};
use sekali_bench::plan::{Lane, Plan};

use crate::{FILLED, TOPICS};

pub(crate) fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(EVENTS as u64)).sampling_mode(SamplingMode::Flat);
    for kind in Kind::ALL {
        publish(&mut group, kind);
    }
    group.finish();
}

/// Measures one kind of request on a store and a pipeline of its own.
fn publish(group: &mut BenchmarkGroup<'_, WallTime>, kind: Kind) {
    let plan = Plan::new(SEED, TOPICS);
    group.bench_function(kind.name(), |bencher| {
        let store = OwnStore::make(Durability::Full).unwrap();
        let mut lane = Lane::new(SEED, 0, 1);
        let mut writer = store.engine.open_writer().unwrap();
        fill(writer.as_mut(), plan, &mut lane, FILLED, &store.settings).unwrap();
        drop(writer);
        let system = System::new();
        let engine: Arc<dyn Engine> = store.engine.clone();
        let start = async { Pipeline::start(&store.settings, engine, Arc::new(Metrics::new())).unwrap() };
        let pipeline = system.block_on(start);
        let mut steps = kind.steps(lane);
        let next = || {
            let steps: Vec<_> = steps.by_ref().take(EVENTS).collect();
            let body = Form::Lines.body(plan, &steps).unwrap();
            let new = steps.iter().filter(|step| step.new).count();
            (parse(&body, Form::Lines, limits(&store.settings)).unwrap(), new)
        };
        let answered = |(events, new): (Vec<Event>, usize)| {
            let verdicts = system.block_on(publish_one(&pipeline, events));
            assert_eq!(accepted(&verdicts), new);
        };
        bencher.iter_batched(next, answered, BatchSize::SmallInput);
        system.block_on(pipeline.stop());
    });
}

async fn publish_one(pipeline: &Pipeline, events: Vec<Event>) -> Vec<Verdict> {
    let mut permit = pipeline.budget().permit(sekali::domain::Address::UNKNOWN);
    permit.charge_events(events.len()).unwrap();
    pipeline.publish(events, permit).await.unwrap()
}
