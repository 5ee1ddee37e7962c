//! `sekali-instructions`: parses bodies of the workload and appends their events, always the same ones, so that
//! `.ci/instructions` can count the instructions of either step under callgrind.
//!
//! One thread does both. The pipeline between them is left out: its threads take turns as they like, and so do
//! their counts.

use std::hint::black_box;
use std::io::{self, Write};

use anyhow::ensure;
use mimalloc::MiMalloc;
use sekali::config::Durability;
use sekali::domain::Event;
use sekali::intake::{self, BodyError, Limits, Parsed};
use sekali::store::{AppendError, Batch, Engine, Finding, Writer};
use sekali_bench::parts::{EVENTS, Form, Group, NOW, OwnStore, SEED, fill, limits};
use sekali_bench::plan::{Lane, Plan};

/// The program's own allocator, so that counts are those of the program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// As in the comparison.
const TOPICS: u32 = 4;

/// Events that are stored before anything is counted, 16,000 of them new. The maps of the dedup index grow at
/// 14,336 and at 28,672 keys (seven eighths of a power of two), so that no commit that is counted grows them.
const WARM_UP: usize = 20_000;

/// Bodies that are counted: the mean of a few is steadier than one, in which a page of the file may be full or not.
const BODIES: usize = 10;

/// Prints how many events each step that is counted has met.
fn main() -> anyhow::Result<()> {
    let plan = Plan::new(SEED, TOPICS);
    let store = OwnStore::make(Durability::Full)?;
    let mut writer = store.engine.open_writer()?;
    let mut lane = Lane::new(SEED, 0, 1);
    fill(writer.as_mut(), plan, &mut lane, WARM_UP, &store.settings)?;
    for _ in 0..BODIES {
        let steps: Vec<_> = lane.by_ref().take(EVENTS).collect();
        let body = Form::Lines.body(plan, &steps)?;
        let parsed = counted_parse(body.as_bytes(), limits(&store.settings))?;
        ensure!(parsed.invalid.is_empty(), "the workload has invalid events");
        let group = Group::of_events(parsed.valid, &steps)?;
        let batches: Vec<_> = group.batches.iter().collect();
        group.check(&counted_append(writer.as_mut(), &batches)?)?;
    }
    writeln!(io::stdout(), "{}", BODIES * EVENTS)?;
    Ok(())
}

/// A function of its own, which callgrind can tell from the rest by its name; without the black box it would be left
/// by a jump, not by a return.
#[inline(never)]
fn counted_parse(body: &[u8], limits: Limits) -> Result<Parsed<Event>, BodyError> {
    black_box(intake::events(body, Form::Lines.format(), limits))
}

/// As [`counted_parse`].
#[inline(never)]
fn counted_append(writer: &mut dyn Writer, group: &[&Batch]) -> Result<Vec<Vec<Finding>>, AppendError> {
    black_box(writer.append(group, NOW))
}
