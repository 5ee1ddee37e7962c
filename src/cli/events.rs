//! `sekali events`: reads a topic, or follows it, one event a line, in constant memory.

use std::io::{self, BufWriter, StdoutLock, Write};

use actix_web::web::Bytes;
use anyhow::Context;
use serde::Deserialize;

use super::server::ServerArgs;
use super::{Outcome, follow, output};
use crate::client::{Client, Lines, Order, Range};

/// The greatest limit that the server takes; more events than this are read without a limit.
const SERVER_LIMIT: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The topic
    topic: String,
    /// Only events with a greater seq
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Only events with a smaller seq
    #[arg(long, value_name = "SEQ", conflicts_with = "follow")]
    before: Option<u64>,
    /// So many events at most
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    limit: Option<u64>,
    /// The newest first
    #[arg(long, conflicts_with = "follow")]
    desc: bool,
    /// Go on with new events as they become durable; reconnects and resumes by itself
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let most = args.limit.unwrap_or(u64::MAX);
    let client = args.server.client()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let copied = if args.follow {
        // Else who is gone would be missed at the next event, which may be tomorrow's.
        tokio::select! {
            copied = follow::copy(&client, &args.topic, args.after.unwrap_or(0), most, &mut out) => copied,
            () = output::reader_gone() => return Ok(Outcome::Done),
        }
    } else {
        read(&client, &args, most, &mut out).await
    };
    let flushed = out.flush().map_err(anyhow::Error::from);
    match copied.and(flushed) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if is_broken_pipe(&error) => Ok(Outcome::Done),
        Err(error) => match error.downcast::<io::Error>() {
            // Everything else that fails has errors of its own.
            Ok(unwritten) => Err(output::unwritten(&unwritten).into()),
            Err(other) => Err(other),
        },
        Ok(()) => Ok(Outcome::Done),
    }
}

fn one_or_more(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "must be a whole number from 1 on".to_owned())
}

async fn read(
    client: &Client,
    args: &Args,
    most: u64,
    out: &mut BufWriter<StdoutLock<'_>>,
) -> anyhow::Result<()> {
    let order = if args.desc { Order::Desc } else { Order::Asc };
    let limit = args.limit.filter(|limit| *limit <= SERVER_LIMIT);
    let range = Range { after: args.after, before: args.before, limit, order };
    let read = copy(&mut client.events(&args.topic, range).await?, most, order, out).await?;
    if read == 0 && range.after.is_none() && range.before.is_none() {
        output::talk(&format!("topic {} has no events; `sekali topics` lists those that have", args.topic));
    }
    Ok(())
}

/// Copies at most so many events; gives how many there were.
async fn copy(
    lines: &mut Lines,
    limit: u64,
    order: Order,
    out: &mut BufWriter<StdoutLock<'_>>,
) -> anyhow::Result<u64> {
    let mut last = Bytes::new();
    for read in 0..limit {
        let Some(line) = lines.next().await.with_context(|| how_to_go_on(&last, order))? else {
            return Ok(read);
        };
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        last = line;
    }
    Ok(limit)
}

/// What to say when a read ends early.
fn how_to_go_on(last: &[u8], order: Order) -> String {
    #[derive(Deserialize)]
    struct Line {
        seq: u64,
    }
    let flag = match order {
        Order::Asc => "--after",
        Order::Desc => "--before",
    };
    match serde_json::from_slice(last) {
        Ok(Line { seq }) => format!("the read ended early; go on with {flag} {seq}"),
        Err(_) => "the read ended before the first event".to_owned(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_ended_early_says_how_to_go_on() {
        let line = br#"{"seq":41,"topic":"orders"}"#;
        assert_eq!(how_to_go_on(line, Order::Asc), "the read ended early; go on with --after 41");
        assert_eq!(how_to_go_on(line, Order::Desc), "the read ended early; go on with --before 41");
        assert_eq!(how_to_go_on(b"", Order::Asc), "the read ended before the first event");
    }
}
