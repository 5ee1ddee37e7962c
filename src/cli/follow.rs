//! `sekali events --follow`: a topic for as long as one likes, over any number of connections.

use std::io::{BufWriter, StdoutLock, Write};
use std::time::Duration;

use actix_web::rt::time::sleep;
use futures_util::FutureExt;

use super::output;
use super::server::{failed, where_to_resume};
use crate::client::{Begin, Client, ClientError, Cursor, Following, Retry};

/// Before a new connection, where the last one gave nothing: as long as the server asks browsers to wait.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the first connection is tried again.
const FIRST: Duration = Duration::from_secs(30);

/// Copies events, one a line, until there were so many. What can be read again later ends nothing.
pub(super) async fn copy(
    client: &Client,
    topic: &str,
    after: Cursor,
    limit: u64,
    out: &mut BufWriter<StdoutLock<'_>>,
) -> anyhow::Result<()> {
    let mut left = limit;
    let begin = Begin::After(after);
    let first = Retry { give_up_after: FIRST, unreachable_at_first: false };
    let mut following = first.run(|| client.follow(topic, &begin), failed).await.map_err(where_to_resume)?;
    loop {
        let before = left;
        let broken = match copy_one(&mut following, &mut left, out).await? {
            None => return Ok(()),
            Some(error) if error.is_transient() => error,
            Some(error) => return Err(error.into()),
        };
        out.flush()?;
        output::talk(&format!("{broken}; following on {}", place(following.at())));
        if left == before {
            sleep(PAUSE).await;
        }
        following = again(client, topic, following.at()).await?;
    }
}

/// Copies what one connection gives; the error that ended it, or none when there was enough.
async fn copy_one(
    following: &mut Following,
    left: &mut u64,
    out: &mut BufWriter<StdoutLock<'_>>,
) -> anyhow::Result<Option<ClientError>> {
    while *left > 0 {
        let at_once = following.next().now_or_never();
        let next = if let Some(next) = at_once {
            next
        } else {
            // Nobody knows how long the next one takes: what there is goes out first.
            out.flush()?;
            following.next().await
        };
        match next {
            Ok(line) => {
                out.write_all(&line)?;
                out.write_all(b"\n")?;
                *left -= 1;
            }
            Err(error) => return Ok(Some(error)),
        }
    }
    Ok(None)
}

/// The next connection, however long it takes to get one.
async fn again(client: &Client, topic: &str, begin: &Begin) -> anyhow::Result<Following> {
    let patience = Retry::of(Duration::MAX);
    let followed = patience.run(|| client.follow(topic, begin), |_, _| {}).await;
    followed.map_err(where_to_resume)
}

fn place(begin: &Begin) -> String {
    match begin {
        Begin::After(Cursor { seq: 0, .. }) => "from the first event".to_owned(),
        Begin::After(last) | Begin::Had(last) => format!("after seq {}", last.seq),
    }
}
