//! `sekali-instructions`: parses bodies of the workload and appends their events, always the same ones, so that
//! `.ci/instructions` can count the instructions of either step under callgrind.
//!
//! One thread does both. The pipeline between them is left out: its threads take turns as they like, and so do
//! their counts. With a number as its argument the program instead serves that many requests over a real
//! connection, with all threads: the difference between two such numbers is what the requests cost, without
//! start and stop.

use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use anyhow::ensure;
use mimalloc::MiMalloc;
use sekali::app::App;
use sekali::config::Durability;
use sekali::domain::Event;
use sekali::intake::{self, BodyError, Limits, Parsed};
use sekali::store::{AppendError, Batch, Engine, Finding, Writer};
use sekali_bench::parts::{EVENTS, Form, Group, NOW, OwnStore, SEED, fill, limits};
use sekali_bench::plan::{Lane, Plan};
use tokio::sync::oneshot;

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

/// Events of a request that is served: few, so that what a request costs by itself is seen.
const REQUEST_EVENTS: usize = 10;

/// Serves as many requests as the argument says; without one, prints how many events each step that is counted has met.
fn main() -> anyhow::Result<()> {
    if let Some(requests) = std::env::args().nth(1) {
        return serve(requests.parse()?);
    }
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

/// Sends this many publishes, one after the other on one connection, to a log in this process. Client and
/// server take turns, so that each request has a commit of its own, in every run.
fn serve(requests: usize) -> anyhow::Result<()> {
    let store = OwnStore::make(Durability::Full)?;
    let (mut settings, engine) = (store.settings.clone(), store.engine.clone());
    "127.0.0.1:0".clone_into(&mut settings.server.bind);
    settings.server.workers = 1;
    settings.router.shards = 1;
    let (told, address) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let app = App::start(&settings, engine).await?;
            told.send(app.addresses()[0])?;
            // An error is a client that has failed: its own words say more.
            let _ = stopped.await;
            app.stop().await;
            anyhow::Ok(())
        })
    });
    let sent = publish(address.recv()?, requests);
    drop(stop);
    let ended = server.join();
    sent?;
    ensure!(matches!(ended, Ok(Ok(()))), "the server failed: {ended:?}");
    Ok(())
}

/// Publishes events of the workload and reads every answer.
fn publish(address: SocketAddr, requests: usize) -> anyhow::Result<()> {
    let plan = Plan::new(SEED, TOPICS);
    let mut lane = Lane::new(SEED, 0, 1);
    let mut connection = BufReader::new(TcpStream::connect(address)?);
    for _ in 0..requests {
        let steps: Vec<_> = lane.by_ref().take(REQUEST_EVENTS).collect();
        let body = Form::Lines.body(plan, &steps)?;
        let head = format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\nUser-Agent: producer/1.0\r\nAccept: */*\r\n\
             Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        read_answer(&mut connection)?;
    }
    Ok(())
}

fn read_answer(connection: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let (mut line, mut length) = (String::new(), 0);
    connection.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200 "), "a publish was answered {line:?}");
    while line != "\r\n" {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the server closed the connection");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    connection.read_exact(&mut vec![0; length])?;
    Ok(())
}
