//! The configuration as it is written: the overrides over the operator's file over the defaults.
//!
//! The compiled-in config/default.toml holds every key, so it is also the list of the keys that there are.

use super::error::{ConfigError, ConfigErrors, Origin};
use super::layer::{self, Entry, Value};

const DEFAULT_TEXT: &str = include_str!("../../config/default.toml");
const DEFAULT_NAME: &str = "config/default.toml";
/// The section whose subsections have names of the operator's own.
const TOPICS: &str = "topics";
/// The keys of `[topics.NAME]`: each is optional, so the defaults do not hold them.
const TOPIC_KEYS: [&str; 2] = ["keys_per_topic", "lanes"];

/// What the command line and the environment say; it wins over every file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of `server.bind`.
    pub bind: Option<String>,
    /// In place of `server.ops_bind`.
    pub ops_bind: Option<String>,
    /// In place of `store.url`.
    pub store: Option<String>,
    /// In place of `log.level`.
    pub log: Option<String>,
    /// In place of `server.allowed_hosts`, where there are any.
    pub allowed_hosts: Vec<String>,
    /// In place of `server.trusted_proxies`, where there are any.
    pub trusted_proxies: Vec<String>,
    /// In place of `compat.first_version`: `true` or `false`.
    pub compat_first_version: Option<String>,
}

/// Everything that was written.
#[derive(Debug)]
pub(super) struct Raw {
    /// What the operator wrote: the overrides, then the file.
    own: Vec<Entry>,
    default: Vec<Entry>,
}

impl Raw {
    /// Lays the overrides over the operator's file, given as its name and text, over the defaults.
    ///
    /// # Errors
    /// Where a file is not TOML.
    pub(super) fn new(file: Option<(&str, &str)>, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let mut own = overrides.entries();
        if let Some((name, text)) = file {
            own.extend(layer::parse(name, text)?);
        }
        Ok(Self { own, default: layer::parse(DEFAULT_NAME, DEFAULT_TEXT)? })
    }

    /// What a key is set to; `None` for a key that the defaults do not hold.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.own.iter().chain(&self.default).find(|entry| entry.key == key)
    }

    /// Every key that there is.
    #[cfg(test)]
    pub(super) fn known_keys(&self) -> impl Iterator<Item = &str> {
        self.default.iter().filter(|entry| entry.value != Value::Section).map(|entry| entry.key.as_str())
    }

    /// Whether the operator set this key.
    pub(super) fn is_own(&self, key: &str) -> bool {
        self.own.iter().any(|entry| entry.key == key)
    }

    /// The sections `[topics.NAME]`, each with the name of its topic.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.own.iter().filter_map(|entry| match entry.path.as_slice() {
            [section, topic] if section == TOPICS => Some((topic.as_str(), entry)),
            _ => None,
        })
    }

    /// An error for every key of the operator that does not exist, naming those that do.
    pub(super) fn unknown_keys(&self) -> Vec<ConfigError> {
        let mut unknown: Vec<&Entry> = Vec::new();
        let mut errors = Vec::new();
        for entry in &self.own {
            let inside = unknown.iter().any(|outer| entry.path.starts_with(&outer.path));
            if let (false, Some(rule)) = (inside, self.broken_name(entry)) {
                unknown.push(entry);
                errors.push(ConfigError::of(entry, rule));
            }
        }
        errors
    }

    /// The rule that the name of a key breaks, if it does.
    fn broken_name(&self, entry: &Entry) -> Option<String> {
        match entry.path.as_slice() {
            [topics] | [topics, _] if topics == TOPICS => {
                (entry.value != Value::Section).then(|| "must be a section".to_owned())
            }
            [topics, _, name] if topics == TOPICS => {
                let known = TOPIC_KEYS.contains(&name.as_str());
                (!known).then(|| format!("no such key; a topic has {}", TOPIC_KEYS.join(", ")))
            }
            path => match self.default.iter().find(|known| known.path == path) {
                Some(known) if known.value == Value::Section && entry.value != Value::Section => {
                    Some("must be a section".to_owned())
                }
                Some(_) => None,
                None => Some(self.known_names(path)),
            },
        }
    }

    fn known_names(&self, unknown: &[String]) -> String {
        let names = |parent: &[String]| -> Vec<&str> {
            let children = self
                .default
                .iter()
                .filter(|entry| entry.path.len() == parent.len() + 1 && entry.path.starts_with(parent));
            children.filter_map(|entry| entry.path.last()).map(String::as_str).collect()
        };
        match unknown {
            [section, _] => format!("no such key; [{section}] has {}", names(&unknown[..1]).join(", ")),
            _ => format!("no such section; there are {}, {TOPICS}", names(&[]).join(", ")),
        }
    }
}

impl Overrides {
    fn entries(&self) -> Vec<Entry> {
        let text = |text: &String| (format!("{text:?}"), Value::Text(text.clone()));
        let list = |texts: &Vec<String>| {
            let written = || (format!("{texts:?}"), Value::Texts(texts.clone()));
            (!texts.is_empty()).then(written)
        };
        let all = [
            ("server", "bind", "--bind (SEKALI_BIND)", self.bind.as_ref().map(text)),
            ("server", "ops_bind", "--ops-bind (SEKALI_OPS_BIND)", self.ops_bind.as_ref().map(text)),
            ("store", "url", "--store (SEKALI_STORE)", self.store.as_ref().map(text)),
            ("log", "level", "--log (SEKALI_LOG)", self.log.as_ref().map(text)),
            ("server", "allowed_hosts", "--allowed-hosts (SEKALI_ALLOWED_HOSTS)", list(&self.allowed_hosts)),
            (
                "server",
                "trusted_proxies",
                "--trusted-proxies (SEKALI_TRUSTED_PROXIES)",
                list(&self.trusted_proxies),
            ),
            (
                "compat",
                "first_version",
                "--compat-first-version (SEKALI_COMPAT_FIRST_VERSION)",
                self.compat_first_version.as_ref().map(text),
            ),
        ];
        let entry = |(section, name, origin, given): (&str, &str, &'static str, Option<(String, Value)>)| {
            let (written, value) = given?;
            Some(Entry {
                path: vec![section.to_owned(), name.to_owned()],
                key: format!("{section}.{name}"),
                origin: Origin::Argument(origin),
                written,
                value,
            })
        };
        all.into_iter().filter_map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(text: &str) -> Vec<String> {
        let raw = Raw::new(Some(("f", text)), &Overrides::default()).unwrap();
        raw.unknown_keys().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_are_named_with_those_that_there_are() {
        assert_eq!(
            unknown("bind = 1\n[router]\nlane = 2\n[topics.a]\nlane = 1\n"),
            [
                "f:1: bind: no such section; there are cache, compat, limits, log, metrics, router, server, store, topics",
                "f:3: router.lane: no such key; [router] has consumers, idle, lanes, shards",
                "f:5: topics.a.lane: no such key; a topic has keys_per_topic, lanes",
            ]
        );
    }

    #[test]
    fn an_unknown_section_is_named_once() {
        assert_eq!(unknown("[nope]\na = 1\nb = 2\n").len(), 1);
    }

    #[test]
    fn a_section_is_not_a_value() {
        assert_eq!(
            unknown("router = 1\n[topics]\nlanes = 4\n"),
            ["f:1: router: must be a section", "f:3: topics.lanes: must be a section"]
        );
    }

    #[test]
    fn overrides_win_over_the_file_and_that_over_the_defaults() {
        let overrides = Overrides { bind: Some("flag:1".to_owned()), ..Overrides::default() };
        let text = "[server]\nbind = \"file:1\"\n[router]\nlanes = 3\n";
        let raw = Raw::new(Some(("f", text)), &overrides).unwrap();
        let origin = |key| raw.entry(key).unwrap().origin.to_string();
        assert_eq!(origin("server.bind"), "--bind (SEKALI_BIND)");
        assert_eq!(origin("router.lanes"), "f:4");
        assert!(origin("router.shards").starts_with("config/default.toml:"));
    }
}
