//! What this node tells others of its commits, and hears of theirs.
//!
//! A `NOTIFY` inside a commit takes a lock on the whole database while it commits, so that commits of all nodes would wait
//! for each other. So it follows the commit in a transaction of its own, at most once in [`PAUSE`]. It may be lost: with
//! the node that was about to send it, or with the connection that was to bring it. So who listens on this node is looked
//! after every [`ROUND`] as well; where the database knows no notifications, that is all there is, and it comes every
//! [`DEAF_ROUND`]. While there is no connection to ask on, whoever listens reads for itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection::{Database, drive, within};
use super::reader::PostgresReader;
use crate::domain::Topic;
use crate::store::{News, StoreError};

/// The name of what is listened to; it is the database's own.
const CHANNEL: &str = "sekali";

/// Between two words to the others: a fifth of the time within which a follower on another node has an event.
const PAUSE: Duration = Duration::from_millis(20);

/// How often the database is asked about topics that somebody listens to.
const ROUND: Duration = Duration::from_secs(1);

/// The same where nobody is told: half of the time within which a follower on another node has an event.
const DEAF_ROUND: Duration = Duration::from_millis(50);

/// How a database says that it does not know a statement.
const NOT_KNOWN: [SqlState; 2] = [SqlState::FEATURE_NOT_SUPPORTED, SqlState::SYNTAX_ERROR];

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(250);

/// The bytes of one notification; PostgreSQL takes fewer than 8,000.
const WORD_BYTES: usize = 7_000;

/// Past so many topics at once, others are told to look for themselves.
const WORD_TOPICS: usize = 2_000;

/// What others were not told of yet.
#[derive(Debug, Default)]
pub(super) struct Herald {
    fresh: Mutex<Fresh>,
    told: Notify,
    running: OnceLock<AbortHandle>,
}

/// Topics with new events.
#[derive(Debug)]
enum Fresh {
    /// These, each with its last seq.
    Few(HashMap<Topic, u64, RandomState>),
    /// More than others are told one by one.
    Many,
}

impl Default for Fresh {
    fn default() -> Self {
        Self::Few(HashMap::default())
    }
}

impl Fresh {
    /// invariant 8: there is room for a number of topics, however long nobody can be told.
    fn add(&mut self, topics: &[(&Topic, u64)]) {
        let Self::Few(few) = self else { return };
        few.extend(topics.iter().map(|(topic, last)| ((*topic).clone(), *last)));
        if few.len() > WORD_TOPICS {
            *self = Self::Many;
        }
    }
}

impl Herald {
    /// Begins to tell and to hear, as the node with this id, whose followers read by `reader`.
    pub(super) fn start(
        self: &Arc<Self>,
        database: &Database,
        node: i64,
        news: &Arc<News>,
        reader: &Arc<PostgresReader>,
    ) {
        let ear = Ear { node, news: Arc::clone(news), look: Arc::default() };
        let running = database.spawn(run(database.clone(), Arc::clone(self), ear, Arc::clone(reader)));
        drop(self.running.set(running.abort_handle()));
    }

    /// Neither tells nor hears any more.
    pub(super) fn stop(&self) {
        if let Some(running) = self.running.get() {
            running.abort();
        }
    }

    /// Others are to be told of these topics.
    pub(super) fn tell(&self, topics: &[(&Topic, u64)]) {
        if topics.is_empty() {
            return;
        }
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).add(topics);
        self.told.notify_one();
    }

    /// What others are to be told, as notifications.
    fn words(&self, node: i64) -> Vec<String> {
        let fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        let Fresh::Few(few) = fresh else { return vec![format!("{node}\n*")] };
        let mut words: Vec<String> = Vec::new();
        for (topic, last) in few {
            match words.last_mut().filter(|word| word.len() + topic.as_str().len() + 22 <= WORD_BYTES) {
                // Writing to a String cannot fail. No name has a line feed.
                Some(word) => drop(write!(word, "\n{last} {topic}")),
                None => words.push(format!("{node}\n{last} {topic}")),
            }
        }
        words
    }
}

/// What hears of other nodes' commits.
#[derive(Clone)]
struct Ear {
    node: i64,
    news: Arc<News>,
    /// Told when somebody else has more to say than there is room for.
    look: Arc<Notify>,
}

impl Ear {
    /// Takes in a notification.
    fn hear(&self, word: &str) {
        let mut lines = word.lines();
        let from = lines.next().and_then(|node| node.parse::<i64>().ok());
        if from == Some(self.node) || !self.news.anybody_listens() {
            return;
        }
        let mut fresh = Vec::new();
        for line in lines {
            match line.split_once(' ').map(|(last, name)| (last.parse(), Topic::parse(name))) {
                Some((Ok(last), Ok(topic))) => fresh.push((topic, last)),
                _ => self.look.notify_one(),
            }
        }
        self.news.announce(fresh.iter().map(|(topic, last)| (topic, *last)));
    }
}

async fn run(database: Database, herald: Arc<Herald>, ear: Ear, reader: Arc<PostgresReader>) {
    // One line says that others are not heard, and not one for each try.
    let mut hears = true;
    let mut looked = Instant::now();
    loop {
        let Err(error) = listen(&database, &herald, &ear, &mut hears).await;
        if std::mem::replace(&mut hears, false) {
            tracing::warn!(%error, "other nodes are not heard of; connecting again");
        }
        // A follower that cannot read is ended. While the database is away all would be, and have nothing to read.
        if looked.elapsed() >= ROUND && reader.answers().await {
            ear.news.look_again();
            looked = Instant::now();
        }
        sleep(AGAIN).await;
    }
}

/// Tells and hears on one connection, until it is lost.
async fn listen(
    database: &Database,
    herald: &Herald,
    ear: &Ear,
    is_heard: &mut bool,
) -> Result<Infallible, StoreError> {
    let limit = database.statement_timeout;
    let (client, connection) = database.connect_raw().await?;
    let listening = ear.clone();
    tokio::spawn(drive(connection, move |word| listening.hear(word)));
    within(limit, client.batch_execute(&database.given_up_in_time())).await?;
    let hears = begin_to_hear(&client, limit).await?;
    *is_heard = true;
    let mut rounds = interval(if hears { ROUND } else { DEAF_ROUND });
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // At once for the first time: what was said before this connection listened was not heard.
            _ = rounds.tick() => look(&client, limit, &ear.news).await?,
            () = ear.look.notified() => look(&client, limit, &ear.news).await?,
            () = herald.told.notified() => {
                let words = herald.words(ear.node);
                if hears {
                    let tell = "SELECT pg_notify($1, word) FROM unnest($2::text[]) AS word";
                    within(limit, client.execute(tell, &[&CHANNEL, &words])).await?;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Listens; false where the database has no notifications, as some that speak PostgreSQL's protocol.
async fn begin_to_hear(client: &Client, limit: Duration) -> Result<bool, StoreError> {
    let listen = format!("LISTEN {CHANNEL}");
    let asked = async {
        match client.batch_execute(&listen).await {
            Err(error) if error.code().is_some_and(|code| NOT_KNOWN.contains(code)) => Ok(false),
            answered => answered.map(|()| true),
        }
    };
    let hears = within(limit, asked).await?;
    if !hears {
        tracing::info!("the database has no notifications; it is asked for news every {DEAF_ROUND:?}");
    }
    Ok(hears)
}

/// Asks how far the topics are that somebody listens to.
async fn look(client: &Client, limit: Duration, news: &News) -> Result<(), StoreError> {
    let listened = news.listened();
    if listened.is_empty() {
        // Also to learn whether the connection still stands.
        return within(limit, client.batch_execute("")).await;
    }
    let names: Vec<_> = listened.iter().map(Topic::as_str).collect();
    let asked = "SELECT topic, last_seq FROM sekali.topics WHERE topic = ANY ($1)";
    let mut fresh = Vec::new();
    for row in within(limit, client.query(asked, &[&names])).await? {
        let (name, last): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
        fresh.extend(Topic::parse(name).ok().map(|topic| (topic, last.cast_unsigned())));
    }
    news.announce(fresh.iter().map(|(topic, last)| (topic, *last)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    #[test]
    fn what_one_node_says_another_one_hears_and_it_itself_does_not() {
        let herald = Herald::default();
        let names: Vec<_> = (0..1000).map(|number| topic(&format!("topic number {number}"))).collect();
        herald.tell(&names.iter().zip(1..).collect::<Vec<_>>());
        herald.tell(&[(&names[0], 2_000)]);
        let words = herald.words(7);
        assert!(words.len() > 1 && words.iter().all(|word| word.len() <= WORD_BYTES));
        assert_eq!(herald.words(7), [""; 0], "once");
        for (node, is_told) in [(7, false), (8, true)] {
            let ear = Ear { node, news: Arc::default(), look: Arc::default() };
            let mut listeners = [ear.news.listen(names[0].clone()), ear.news.listen(names[999].clone())];
            for word in &words {
                ear.hear(word);
            }
            assert_eq!(listeners[0].beyond(1_999).now_or_never().is_some(), is_told);
            assert_eq!(listeners[1].beyond(999).now_or_never().is_some(), is_told);
            assert!(listeners[0].beyond(2_000).now_or_never().is_none());
        }
    }

    #[test]
    fn past_a_number_of_topics_others_look_for_themselves() {
        let herald = Herald::default();
        let names: Vec<_> = (0..=WORD_TOPICS).map(|number| topic(&number.to_string())).collect();
        herald.tell(&names.iter().zip(1..).collect::<Vec<_>>());
        herald.tell(&[(&topic("one more"), 1)]);
        assert!(matches!(*herald.fresh.lock().unwrap(), Fresh::Many), "none of them is kept");
        let ear = Ear { node: 8, news: Arc::default(), look: Arc::default() };
        let _listener = ear.news.listen(topic("a"));
        for word in herald.words(7) {
            ear.hear(&word);
        }
        assert!(ear.look.notified().now_or_never().is_some());
    }
}
