//! From what is written to [`Settings`]: every key once, with its bounds; config/default.toml explains them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrors};
use super::listeners;
use super::raw::Raw;
use super::rules::Checker;
use super::settings::{
    Cache, Compat, Durability, Limits, Log, LogFormat, Metrics, Router, Server, Settings, Store, StoreUrl,
    TopicSettings,
};
use super::texts;
use crate::domain::check_name;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const SHORTEST: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Comparing payloads recurses this deep at most, which must fit any thread's stack.
const DEPTH_MAX: u64 = 100;
const LANES_MAX: u64 = 64;
const CACHE_KEYS_MAX: u64 = 1_000_000_000;
const TOPICS_MAX: u64 = 1_000_000_000_000;
const NEW_TOPICS_MAX: u32 = 1_000_000_000;
const COMMIT_MAX: u64 = 1_000_000;

/// One address gets at most 21/32 of what may be in flight (see `pipeline/pool.rs`). It must always be
/// able to send the largest body: once as it is sent, once inflated, once in the decoder's window.
const BODIES: usize = 5;

/// The same for the largest batch, which is there once.
const BATCHES: usize = 2;

/// Half of it is the share of one address, which must be able to read a few pages at once.
const ANSWERS_MIN: u64 = 16 * MIB;

/// The same for the largest event, which is a page of its own.
const EVENTS_ANSWERED: usize = 8;

/// Each is a connection and a thread, and a database has a hundred connections by default.
const WRITERS_MAX: u64 = 32;

/// Checks every value and every rule between values.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn validate(raw: &Raw) -> Result<Settings, ConfigErrors> {
    let mut checker = Checker::new(raw);
    let settings = Settings {
        server: server(&mut checker),
        limits: limits(&mut checker),
        router: router(&mut checker),
        cache: cache(&mut checker),
        store: store(&mut checker),
        metrics: metrics(&mut checker),
        topics: topics(&mut checker, raw),
        log: log(&mut checker),
        compat: Compat { first_version: checker.switch("compat.first_version") },
    };
    relations(&mut checker, &settings);
    if checker.errors.is_empty() { Ok(settings) } else { Err(ConfigErrors(checker.errors)) }
}

fn server(checker: &mut Checker<'_>) -> Server {
    const BIND: &str = "must be HOST:PORT, such as \"127.0.0.1:8080\" or \"[::]:8080\"";
    const OPS_BIND: &str = "must be HOST:PORT, such as \"127.0.0.1:8081\", or \"\" for no second listener";
    const HOSTS: &str = "must be a list of names without ports, such as [\"log.example\"]";
    const PROXIES: &str = "must be a list of addresses and networks, such as [\"127.0.0.1\", \"10.0.0.0/8\"]";
    Server {
        bind: checker.text("server.bind", BIND, texts::bind).unwrap_or_default(),
        ops_bind: checker.text("server.ops_bind", OPS_BIND, texts::optional_bind).flatten(),
        allowed_hosts: checker.texts("server.allowed_hosts", HOSTS, texts::host),
        trusted_proxies: checker.texts("server.trusted_proxies", PROXIES, texts::network),
        workers: or_cores(checker.count("server.workers", 0..=1024)),
        request_timeout: checker.duration("server.request_timeout", SHORTEST..=HOUR),
        head_timeout: checker.duration("server.head_timeout", SHORTEST..=HOUR),
        body_timeout: checker.duration("server.body_timeout", SHORTEST..=HOUR),
        body_grace: checker.duration("server.body_grace", SHORTEST..=HOUR),
        body_min_rate: checker.bytes("server.body_min_rate", 0..=GIB),
        drain_timeout: checker.duration("server.drain_timeout", SHORTEST..=HOUR),
        write_timeout: checker.duration("server.write_timeout", SHORTEST..=HOUR),
        keep_alive: checker.duration("server.keep_alive", SHORTEST..=HOUR),
        answer_min_rate: checker.bytes("server.answer_min_rate", 0..=GIB),
        shutdown_timeout: checker.duration("server.shutdown_timeout", Duration::ZERO..=HOUR),
        follow_heartbeat: checker.duration("server.follow_heartbeat", SHORTEST..=MINUTE / 2),
        follow_timeout: checker.duration("server.follow_timeout", SHORTEST..=HOUR),
    }
}

fn limits(checker: &mut Checker<'_>) -> Limits {
    Limits {
        body: checker.bytes("limits.body", KIB..=GIB),
        compression_ratio: checker.count("limits.compression_ratio", 0..=1_000_000),
        compressed_members: checker.count("limits.compressed_members", 1..=1_000_000),
        batch_events: checker.count("limits.batch_events", 1..=1_000_000),
        event: checker.bytes("limits.event", 64..=GIB),
        depth: checker.count("limits.depth", 2..=DEPTH_MAX),
        in_flight_events: checker.count("limits.in_flight_events", 1..=100_000_000),
        in_flight_bytes: checker.bytes("limits.in_flight_bytes", KIB..=TIB),
        free_disk: checker.size("limits.free_disk", 0..=1024 * TIB),
        store_bytes: Some(checker.size("limits.store_bytes", 0..=1024 * TIB)).filter(|limit| *limit > 0),
        topics: Some(checker.number("limits.topics", 0..=TOPICS_MAX)).filter(|limit| *limit > 0),
        connections: checker.count("limits.connections", 1..=1_000_000),
        connections_per_address: checker.count("limits.connections_per_address", 1..=1_000_000),
        drain_bytes: checker.bytes("limits.drain_bytes", 0..=TIB),
        new_topics_per_minute: new_topics(checker),
        followers: checker.count("limits.followers", 0..=1_000_000),
        followers_per_address: checker.count("limits.followers_per_address", 1..=1_000_000),
        lookup_keys: checker.count("limits.lookup_keys", 1..=1_000_000),
        answer_bytes: checker.bytes("limits.answer_bytes", ANSWERS_MIN..=TIB),
        sources: checker.count("limits.sources", 0..=10_000),
    }
}

fn new_topics(checker: &mut Checker<'_>) -> Option<u32> {
    let most = u64::from(NEW_TOPICS_MAX);
    let limit = checker.number("limits.new_topics_per_minute", 0..=most);
    u32::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn metrics(checker: &mut Checker<'_>) -> Metrics {
    const NAMES: &str = "must be a list of topics, such as [\"orders\"]";
    let name = |text: &str| check_name(text).is_ok().then(|| text.to_owned());
    let topic_names = checker.texts("metrics.topic_names", NAMES, name);
    Metrics { topics: checker.count("metrics.topics", 0..=1_000), topic_names }
}

fn router(checker: &mut Checker<'_>) -> Router {
    Router {
        shards: or_cores(checker.count("router.shards", 0..=1024)),
        lanes: checker.count("router.lanes", 1..=LANES_MAX),
        idle: checker.duration("router.idle", SHORTEST..=HOUR * 720),
        consumers: checker.count("router.consumers", 1..=10_000_000),
    }
}

fn cache(checker: &mut Checker<'_>) -> Cache {
    Cache {
        keys: checker.count("cache.keys", 0..=CACHE_KEYS_MAX),
        keys_per_topic: checker.count("cache.keys_per_topic", 0..=CACHE_KEYS_MAX),
    }
}

fn store(checker: &mut Checker<'_>) -> Store {
    const DURABILITY: &str = "must be \"full\" or \"relaxed\"";
    Store {
        url: checker
            .told("store.url", texts::STORE_URL, texts::store_url)
            .unwrap_or(StoreUrl::Sqlite(PathBuf::new())),
        password_file: checker.told("store.password_file", "must be a path", texts::optional_path).flatten(),
        durability: checker
            .text("store.durability", DURABILITY, texts::durability)
            .unwrap_or(Durability::Full),
        commit_events: checker.count("store.commit_events", 1..=COMMIT_MAX),
        commit_bytes: checker.bytes("store.commit_bytes", KIB..=GIB),
        commit_topics: Some(checker.count("store.commit_topics", 0..=COMMIT_MAX)).filter(|most| *most > 0),
        writers: checker.count("store.writers", 1..=WRITERS_MAX),
        readers: checker.count("store.readers", 1..=256),
        lock_timeout: checker.duration("store.lock_timeout", Duration::ZERO..=MINUTE * 10),
        connect_timeout: checker.duration("store.connect_timeout", SHORTEST..=MINUTE * 10),
        statement_timeout: checker.duration("store.statement_timeout", SHORTEST..=MINUTE * 10),
        seal_keys: checker.count("store.seal_keys", 1_000..=16_000_000),
        wal_bytes: checker.size("store.wal_bytes", MIB..=TIB),
        repeated_keys: checker.count("store.repeated_keys", 0..=100_000),
    }
}

fn log(checker: &mut Checker<'_>) -> Log {
    const LEVEL: &str =
        "must be error, warn, info, debug, trace or off, or a filter such as \"info,sekali=debug\"";
    const FORMAT: &str = "must be \"auto\", \"text\" or \"json\"";
    Log {
        level: checker.text("log.level", LEVEL, texts::log_level).unwrap_or_default(),
        format: checker.text("log.format", FORMAT, texts::log_format).unwrap_or(LogFormat::Auto),
    }
}

fn topics(checker: &mut Checker<'_>, raw: &Raw) -> BTreeMap<String, TopicSettings> {
    let mut topics = BTreeMap::new();
    for (name, section) in raw.topics() {
        if let Err(fault) = check_name(name) {
            let rule = format!("a topic has 1 to 255 bytes and no control characters ({})", fault.as_str());
            checker.errors.push(ConfigError::of(section, rule));
        }
        let own = |key: &str| Some(format!("{}.{key}", section.key)).filter(|full| raw.is_own(full));
        let settings = TopicSettings {
            lanes: own("lanes").map(|key| checker.count(&key, 1..=LANES_MAX)),
            keys_per_topic: own("keys_per_topic").map(|key| checker.count(&key, 0..=CACHE_KEYS_MAX)),
        };
        topics.insert(name.to_owned(), settings);
    }
    topics
}

/// Rules between keys, checked once each key is right by itself.
fn relations(checker: &mut Checker<'_>, settings: &Settings) {
    let (limits, router) = (&settings.limits, &settings.router);
    checker.at_most(1, ("limits.event", limits.event), ("limits.body", limits.body));
    let bytes = ("limits.in_flight_bytes", limits.in_flight_bytes);
    let answers = ("limits.answer_bytes", limits.answer_bytes);
    checker.at_most(EVENTS_ANSWERED, ("limits.event", limits.event), answers);
    checker.at_most(BODIES, ("limits.body", limits.body), bytes);
    let events = ("limits.in_flight_events", limits.in_flight_events);
    checker.at_most(BATCHES, ("limits.batch_events", limits.batch_events), events);
    checker.at_most(1, ("router.lanes", router.lanes), ("router.consumers", router.consumers));
    let server = &settings.server;
    if server.ops_bind.as_ref().is_some_and(|ops_bind| listeners::overlap(&server.bind, ops_bind)) {
        checker.same_listener("server.ops_bind", "server.bind");
    }
}

/// The number, or one a core for 0.
fn or_cores(number: usize) -> usize {
    if number > 0 { number } else { thread::available_parallelism().map_or(1, Into::into) }
}

#[cfg(test)]
mod tests {
    use super::super::raw::Overrides;
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let raw = Raw::new(Some(("f", text)), &Overrides::default()).unwrap();
        validate(&raw).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_defaults_are_valid_and_those_of_the_design() {
        let defaults = settings("").unwrap();
        assert_eq!(defaults.server.bind, "127.0.0.1:8080");
        assert_eq!(defaults.server.ops_bind, None);
        assert_eq!(defaults.server.allowed_hosts, Vec::<String>::new());
        assert_eq!(defaults.server.trusted_proxies, []);
        assert!(defaults.server.workers > 0 && defaults.router.shards > 0);
        assert_eq!(defaults.server.shutdown_timeout, Duration::from_secs(10));
        let server = &defaults.server;
        assert_eq!((server.follow_heartbeat.as_secs(), server.follow_timeout.as_secs()), (15, 30));
        assert_eq!((server.body_grace.as_secs(), server.body_min_rate), (5, 1_024));
        let waits = [server.head_timeout, server.drain_timeout, server.write_timeout, server.keep_alive];
        assert_eq!(waits.map(|wait| wait.as_secs()), [10, 10, 30, 75]);
        let limits = Limits {
            body: 16 << 20,
            compression_ratio: 200,
            compressed_members: 1_000,
            batch_events: 10_000,
            event: 1 << 20,
            depth: 64,
            in_flight_events: 200_000,
            in_flight_bytes: 256 << 20,
            free_disk: 256 << 20,
            store_bytes: None,
            topics: None,
            connections: 10_000,
            connections_per_address: 2_000,
            drain_bytes: 32 << 20,
            new_topics_per_minute: Some(10_000),
            followers: 2_000,
            followers_per_address: 1_000,
            lookup_keys: 1_000,
            answer_bytes: 64 << 20,
            sources: 50,
        };
        assert_eq!(defaults.limits, limits);
        assert_eq!((defaults.router.lanes, defaults.router.consumers), (1, 10_000));
        assert_eq!(defaults.cache, Cache { keys: 1_000_000, keys_per_topic: 100_000 });
        let store = Store {
            url: StoreUrl::Sqlite("data/sekali.db".into()),
            password_file: None,
            durability: Durability::Full,
            commit_events: 10_000,
            commit_bytes: 16 << 20,
            commit_topics: None,
            writers: 2,
            readers: 4,
            lock_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            seal_keys: 448_000,
            wal_bytes: 64 << 20,
            repeated_keys: 10_000,
        };
        assert_eq!(defaults.store, store);
        assert_eq!(defaults.metrics, Metrics { topics: 20, topic_names: Vec::new() });
        let level = "info,actix_server=warn,actix_http=off".to_owned();
        assert_eq!(defaults.log, Log { level, format: LogFormat::Auto });
        assert_eq!(defaults.compat, Compat { first_version: false });
        assert_eq!(defaults.topics, BTreeMap::new());
    }

    #[test]
    fn the_default_file_holds_no_key_that_is_not_read() {
        let default = Raw::new(None, &Overrides::default()).unwrap();
        let read = include_str!("validate.rs");
        for key in default.known_keys() {
            assert!(read.contains(&format!("\"{key}\"")), "{key} is not read");
        }
    }

    #[test]
    fn a_topic_can_differ() {
        let own = settings("[topics.\"big one\"]\nlanes = 8\n[topics.quiet]\nkeys_per_topic = 0\n").unwrap();
        assert_eq!((own.lanes("big one"), own.keys_per_topic("big one")), (8, 100_000));
        assert_eq!((own.lanes("quiet"), own.keys_per_topic("quiet")), (1, 0));
        assert_eq!((own.lanes("other"), own.keys_per_topic("other")), (1, 100_000));
    }

    #[test]
    fn hosts_are_a_list_of_names() {
        let hosts = |text: &str| settings(&format!("[server]\nallowed_hosts = {text}"));
        let found = hosts("[\"Log.example\", \"log.internal.\"]").unwrap().server.allowed_hosts;
        assert_eq!(found, ["log.example", "log.internal"]);
        for bad in
            ["\"log.example\"", "[1]", "[\"\"]", "[\"log.example:80\"]", "[\"*.example\"]", "[\"http://h\"]"]
        {
            let rule = "must be a list of names without ports, such as [\"log.example\"]";
            assert_eq!(hosts(bad), Err(format!("f:2: server.allowed_hosts: {rule}, found {bad}")));
        }
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let proxies = |text: &str| settings(&format!("[server]\ntrusted_proxies = {text}"));
        let text = "[\"127.0.0.1\", \"10.1.2.3/8\", \"fd00::/8\", \"::ffff:10.0.0.0/104\", \"::1\"]";
        let found = proxies(text).unwrap().server.trusted_proxies;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8", "10.0.0.0/8", "::1/128"]);
        for bad in
            ["\"10.0.0.1\"", "[1]", "[\"\"]", "[\"proxy.example\"]", "[\"10.0.0.0/33\"]", "[\"10.0.0.1:80\"]"]
        {
            let rule = "must be a list of addresses and networks, such as [\"127.0.0.1\", \"10.0.0.0/8\"]";
            assert_eq!(proxies(bad), Err(format!("f:2: server.trusted_proxies: {rule}, found {bad}")));
        }
    }

    #[test]
    fn the_two_listeners_are_two() {
        let rule = "must be another listener than server";
        for (own, ops) in [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:1", "10.0.0.1:1"), ("a:1", "A:1")] {
            let said = settings(&format!("[server]\nbind = \"{own}\"\nops_bind = \"{ops}\"\n")).unwrap_err();
            let end =
                format!("{rule}.bind (\"{own}\"): choose another port for one of them, found \"{ops}\"");
            assert_eq!(said, format!("f:3: server.ops_bind: {end}"));
        }
        assert!(settings("[server]\nops_bind = \"localhost:8080\"").unwrap_err().contains("127.0.0.1:8080"));
        assert!(settings("[server]\nbind = \"[::]:0\"\nops_bind = \"[::]:0\"").is_ok());
        assert!(settings("[server]\nbind = \"[::]:1\"\nops_bind = \"[::]:2\"").is_ok());
        // The flag is at fault, and the file has the other one.
        let overrides = Overrides { bind: Some("[::]:9".to_owned()), ..Overrides::default() };
        let raw = Raw::new(Some(("f", "[server]\nops_bind = \"0.0.0.0:9\"")), &overrides).unwrap();
        let errors = validate(&raw).unwrap_err();
        assert!(errors.are_of_usage());
        let said = errors.to_string();
        assert!(
            said.starts_with("--bind (SEKALI_BIND): server.bind: ") && said.contains("ops_bind"),
            "{said}"
        );
    }

    #[test]
    fn impossible_topics_are_named() {
        assert_eq!(
            settings("[topics.\"\"]\nlanes = 1\n[topics.\"a\\tb\"]\nlanes = 65\n"),
            Err([
                "f:1: topics.\"\": a topic has 1 to 255 bytes and no control characters (empty)",
                "f:3: topics.\"a\\tb\": a topic has 1 to 255 bytes and no control characters (control_character)",
                "f:4: topics.\"a\\tb\".lanes: must be from 1 to 64, found 65",
            ]
            .join("\n"))
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let text = "[server]\nbind = \"8080\"\n[limits]\ndepth = 101\n[store]\nurl = \"mysql://x\"\n\
            durability = \"yes\"\n[log]\nlevel = \"inof\"\nformat = 1\n";
        assert_eq!(
            settings(text),
            Err([
                "f:2: server.bind: must be HOST:PORT, such as \"127.0.0.1:8080\" or \"[::]:8080\", found \"8080\"",
                "f:4: limits.depth: must be from 2 to 100, found 101",
                "f:6: store.url: must be sqlite:PATH, such as \"sqlite:data/sekali.db\", or \
                    postgres://USER:PASSWORD@HOST:PORT/DATABASE with libpq's keys, found \"mysql://x\"",
                "f:7: store.durability: must be \"full\" or \"relaxed\", found \"yes\"",
                "f:9: log.level: must be error, warn, info, debug, trace or off, or a filter such as \
                    \"info,sekali=debug\", found \"inof\"",
                "f:10: log.format: must be \"auto\", \"text\" or \"json\", found 1",
            ]
            .join("\n"))
        );
    }

    #[test]
    fn of_two_keys_that_do_not_fit_the_one_that_was_set_is_at_fault() {
        let fault = |text: &str| settings(text).unwrap_err();
        assert_eq!(
            fault("[limits]\nevent = \"32MiB\""),
            "f:2: limits.event: must be at most limits.body (\"16MiB\"), found \"32MiB\""
        );
        assert_eq!(
            fault("[limits]\nbody = \"64KiB\""),
            "f:2: limits.body: must be at least limits.event (\"1MiB\"), found \"64KiB\""
        );
        assert_eq!(
            fault("[limits]\nin_flight_bytes = 1024"),
            "f:2: limits.in_flight_bytes: must be at least 5 times limits.body (\"16MiB\"), found 1024"
        );
        assert_eq!(
            fault("[limits]\nbatch_events = 100001"),
            "f:2: limits.batch_events: must be at most 1/2 of limits.in_flight_events (200000), found 100001"
        );
    }
}
