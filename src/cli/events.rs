//! `sekali events`: reads a topic, or follows it, one event a line, in constant memory.

use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::Context;

use super::server::{ReadArgs, is_of_another_history, where_to_resume};
use super::{Outcome, WrongUsage, follow, output};
use crate::client::{Cursor, Order, Patient, Range, Reading};

/// The greatest limit that the server takes; more events than this are read without a limit.
const SERVER_LIMIT: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ReadArgs,
    /// The topic
    topic: String,
    /// Only events with a greater seq
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Only events with a smaller seq
    #[arg(long, value_name = "SEQ", conflicts_with = "follow")]
    before: Option<u64>,
    /// The history of --after, or of --before where it is alone or with --desc; refused where the
    /// current history does not share the events up to that seq
    #[arg(long, value_name = "ID")]
    history: Option<String>,
    /// So many events at most
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    limit: Option<u64>,
    /// The newest first
    #[arg(long, conflicts_with = "follow")]
    desc: bool,
    /// Go on with new events as they become durable; reconnects and resumes by itself
    #[arg(long, short, conflicts_with = "give_up_after")]
    follow: bool,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Outcome> {
    if args.history.is_some() && args.after.is_none() && args.before.is_none() {
        let rule = "--history belongs to a seq: give it with --after or --before";
        return Err(WrongUsage(rule.to_owned()).into());
    }
    let most = args.limit.unwrap_or(u64::MAX);
    let after = Cursor { seq: args.after.unwrap_or(0), history: args.history.clone() };
    let patient = args.server.patient()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let copied = if args.follow {
        // Else who is gone would be missed at the next event, which may be tomorrow's.
        tokio::select! {
            copied = follow::copy(&patient.client, &args.topic, after, most, &mut out) => copied,
            () = output::reader_gone() => return Ok(Outcome::Done),
        }
    } else {
        read(&patient, &args, most, &mut out).await
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
    patient: &Patient,
    args: &Args,
    most: u64,
    out: &mut BufWriter<StdoutLock<'_>>,
) -> anyhow::Result<()> {
    let order = if args.desc { Order::Desc } else { Order::Asc };
    let limit = args.limit.filter(|limit| *limit <= SERVER_LIMIT);
    let range = Range { after: args.after, before: args.before, history: args.history.clone(), limit, order };
    let read = copy(&mut patient.events(&args.topic, range), most, order, out).await?;
    if read == 0 && args.after.is_none() && args.before.is_none() {
        output::talk(&format!("topic {} has no events; `sekali topics` lists those that have", args.topic));
    }
    Ok(())
}

/// Copies at most so many events; gives how many there were.
async fn copy(
    reading: &mut Reading,
    limit: u64,
    order: Order,
    out: &mut BufWriter<StdoutLock<'_>>,
) -> anyhow::Result<u64> {
    for read in 0..limit {
        let line = match reading.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(read),
            Err(error) if is_of_another_history(&error) => return Err(where_to_resume(error)),
            Err(error) => {
                return Err(error).context(how_to_resume(reading.last_seq(), reading.history(), order));
            }
        };
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    Ok(limit)
}

/// What to say when a read ends early.
fn how_to_resume(last: Option<u64>, history: Option<&str>, order: Order) -> String {
    let flag = match order {
        Order::Asc => "--after",
        Order::Desc => "--before",
    };
    match last {
        Some(seq) => {
            let history = history.map_or_else(String::new, |history| format!(" --history {history}"));
            format!("the read ended early; resume with {flag} {seq}{history}")
        }
        None => "the read ended before the first event".to_owned(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_ended_early_says_how_to_resume() {
        let told = |last, order| how_to_resume(last, None, order);
        let of_history = how_to_resume(Some(41), Some("k3f9"), Order::Asc);
        assert_eq!(of_history, "the read ended early; resume with --after 41 --history k3f9");
        assert_eq!(told(Some(41), Order::Asc), "the read ended early; resume with --after 41");
        assert_eq!(told(Some(41), Order::Desc), "the read ended early; resume with --before 41");
        assert_eq!(told(None, Order::Asc), "the read ended before the first event");
    }
}
