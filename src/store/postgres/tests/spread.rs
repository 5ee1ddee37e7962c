//! Tables that are spread by topic. PostgreSQL's own partitions keep the rule of every engine that spreads tables over
//! machines: what is unique is so within a part, and so names the column that says in which part a row is.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use tokio_postgres::SimpleQueryMessage;

use super::server::{self, Database};
use super::{accepted, node, settings, store_by_hand, try_open};
use crate::store::contract::{self, append, batch};
use crate::store::postgres::connection::Use;
use crate::store::postgres::schema::MIGRATIONS;
use crate::store::postgres::statements::{self, Topics};
use crate::store::postgres::{PostgresStore, repeats};
use crate::store::{Batch, Engine};

/// Parts of each table.
const PARTS: usize = 8;

/// Makes the schema as an administrator would before the first node starts: every table with a topic is in parts by its
/// hash. Gives the names of these tables.
fn spread(database: &Database) -> BTreeSet<String> {
    let bare = |line: &'static str| line.split("--").next().unwrap();
    let statements: String = MIGRATIONS.iter().flat_map(|migration| migration.lines()).map(bare).collect();
    let (mut sql, mut names) = ("CREATE SCHEMA sekali;".to_owned(), BTreeSet::new());
    for statement in statements.split(';').map(str::trim) {
        let table = statement.strip_prefix("CREATE TABLE sekali.").filter(|table| table.contains(" topic "));
        let Some(name) = table.and_then(|table| table.split(' ').next()) else {
            write!(sql, "{statement};").unwrap();
            continue;
        };
        // A table in parts has no pages that could be filled.
        let columns = statement.split(" WITH (").next().unwrap();
        write!(sql, "{columns} PARTITION BY HASH (topic);").unwrap();
        for part in 0..PARTS {
            let place = format!("FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part})");
            write!(sql, "CREATE TABLE sekali.{name}_{part} PARTITION OF sekali.{name} {place};").unwrap();
        }
        names.insert(name.to_owned());
    }
    write!(sql, "UPDATE sekali.store SET version = {}", MIGRATIONS.len()).unwrap();
    database.run(&sql);
    names
}

#[test]
fn the_document_has_every_version_of_the_tables() {
    let document = include_str!("../../../../docs/SCALE.md");
    let files: Vec<_> = (1..=MIGRATIONS.len()).map(|version| format!("-f {version}.sql")).collect();
    let files = files.join(" ");
    let expected = format!("{files} -c 'UPDATE sekali.store SET version = {}'", MIGRATIONS.len());
    assert!(document.contains(&expected), "docs/SCALE.md lacks {expected}");
}

#[test]
fn tables_in_parts_by_topic_keep_the_contract() {
    if server::server().is_none() {
        return;
    }
    let databases = RefCell::new(Vec::new());
    contract::check(&|topic_limit| {
        let database = Database::fresh().unwrap();
        assert_eq!(spread(&database).len(), 5, "events, forks, repeats, sources, topics");
        let mut settings = settings(&database.url());
        settings.limits.topics = topic_limit;
        databases.borrow_mut().push(database);
        Arc::new(try_open(&settings).unwrap()) as Arc<dyn Engine>
    });
}

/// The parts that a commit of one event touches, planned by its values: what a database that routes statements by them does.
fn touched(database: &Database, topics: Topics) -> Vec<String> {
    let url = database.url();
    server::blocking(async move {
        let client = server::connect(&url).await.unwrap();
        client.batch_execute("SET plan_cache_mode = force_custom_plan; BEGIN").await.unwrap();
        let lock = topics.lock();
        match topics {
            Topics::Many => client.query(&lock, &[&vec!["a"]]).await.unwrap(),
            Topics::One => client.query(&lock, &[&"a"]).await.unwrap(),
        };
        assert_eq!(store_by_hand(&client, topics, "new").await, 2);
        let parts = "SELECT DISTINCT relname::text FROM pg_locks JOIN pg_class AS c ON c.oid = relation
            WHERE pid = pg_backend_pid() AND relkind = 'r' AND relname ~ '_[0-9]$' ORDER BY 1";
        client.query(parts, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    })
}

#[test]
fn a_commit_of_one_topic_touches_one_part_of_each_table() {
    let Some(database) = Database::fresh() else { return };
    spread(&database);
    append(&mut *node(&database).open_writer().unwrap(), &batch("a", &[("1", "{}")]));
    let part = database.run("SELECT right(tableoid::regclass::text, 1) FROM sekali.topics");
    let expected: Vec<_> = ["events", "sources", "topics"].map(|table| format!("{table}_{part}")).into();
    assert_eq!(touched(&database, Topics::One), expected);
    assert!(touched(&database, Topics::Many).len() > 3 * (PARTS - 1), "else the test sees nothing");
}

#[test]
fn groups_of_one_and_of_many_topics_follow_each_other() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    let mut writer = store.open_writer().unwrap();
    let group = |id: &str, topics: &[&str]| -> Vec<Batch> {
        topics.iter().map(|topic| batch(topic, &[(id, "{}"), ("same", "{}")])).collect()
    };
    assert_eq!(append(&mut *writer, &group("1", &["a"])[0]), [accepted(1), accepted(2)]);
    for (id, topics) in [("2", &["a", "b"][..]), ("3", &["b"]), ("4", &["b", "a"])] {
        let batches = group(id, topics);
        writer.append(&batches.iter().collect::<Vec<_>>(), super::now()).unwrap();
    }
    let kept =
        "SELECT string_agg(topic || seq || ' ' || event_id, ', ' ORDER BY topic, seq) FROM sekali.events";
    assert_eq!(database.run(kept), "a1 1, a2 same, a3 2, a4 4, b1 2, b2 same, b3 3, b4 4");
    let counted = "SELECT string_agg(topic || ' ' || last_seq, ', ' ORDER BY topic) FROM sekali.topics";
    assert_eq!(database.run(counted), "a 4, b 4");
}

/// How the database would look for events, planned while there are none yet.
fn plan_of_store(database: &Database, topics: Topics) -> String {
    let topic = match topics {
        Topics::Many => "ARRAY['a']",
        Topics::One => "'a'",
    };
    let values = format!("{topic}, ARRAY['1'], ARRAY['t'], ARRAY['s'], ARRAY['{{}}'], ARRAY[0], 1, 1, 1");
    plan(&node(database), &statements::store(topics), &values)
}

/// A statement as a connection that writes has it planned.
fn plan(store: &PostgresStore, statement: &str, values: &str) -> String {
    let prepared = format!("PREPARE asked AS {statement}");
    let asked = format!("EXPLAIN (COSTS OFF) EXECUTE asked ({values})");
    let database = store.node.database.clone();
    store.node.database.block_on(async move {
        let client = database.connect(Use::Write).await.unwrap();
        client.batch_execute(&prepared).await.unwrap();
        let said = client.simple_query(&asked).await.unwrap();
        let lines = said.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn what_is_planned_for_an_empty_table_looks_each_key_up() {
    let Some(database) = Database::fresh() else { return };
    for topics in [Topics::Many, Topics::One] {
        let plan = plan_of_store(&database, topics);
        let (_, events) = plan
            .split_once("Scan using events_topic_event_id_key on events")
            .unwrap_or_else(|| panic!("{plan}"));
        let condition = events.lines().nth(1).unwrap();
        assert!(condition.contains("topic = ") && condition.contains("event_id = "), "{plan}");
        let (_, sources) =
            plan.split_once("Scan using sources_pkey on sources s\n").unwrap_or_else(|| panic!("{plan}"));
        let condition = sources.lines().next().unwrap();
        assert!(condition.contains("topic = ") && condition.contains("source = "), "{plan}");
        assert!(
            !plan.contains("Seq Scan on") && !plan.contains("Materialize") && !plan.contains("Memoize"),
            "{plan}"
        );
    }
}

#[test]
fn repeats_that_have_left_the_list_are_looked_up_one_by_one() {
    let Some(database) = Database::fresh() else { return };
    let store = node(&database);
    for rows in [0, 7_000] {
        database.run(&format!(
            "INSERT INTO sekali.repeats SELECT 'a', seq, 1, 1, 0, 0, 's', false FROM generate_series(1, {rows}) AS seq"
        ));
        let plan = plan(&store, repeats::DROP, "1, ARRAY['a'], ARRAY[1]");
        let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
        let all = ["topic = ", "seq = ", "node = "].iter().all(|column| condition.contains(column));
        assert!(all, "{rows} rows: {plan}");
    }
}
