//! The types and bounds of values: reads one key at a time and collects every error.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

use super::error::{ConfigError, Origin};
use super::layer::{Entry, Value};
use super::postgres::without_password;
use super::raw::Raw;

/// Reads keys and collects what is wrong with them. After an error a reading gives some value all the same, so
/// that the rest is checked too; it is never used, because there is an error.
#[derive(Debug)]
pub(super) struct Checker<'a> {
    raw: &'a Raw,
    /// What is wrong so far.
    pub(super) errors: Vec<ConfigError>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(raw: &'a Raw) -> Self {
        Self { raw, errors: raw.unknown_keys() }
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &str, bounds: RangeInclusive<u64>) -> u64 {
        self.within(key, bounds, number_of, |least, most| format!("must be from {least} to {most}"))
    }

    /// A whole number that fits into memory.
    pub(super) fn count(&mut self, key: &str, bounds: RangeInclusive<u64>) -> usize {
        to_usize(self.number(key, bounds))
    }

    /// A number of bytes within bounds: a whole number, or a text such as "16MiB".
    pub(super) fn size(&mut self, key: &str, bounds: RangeInclusive<u64>) -> u64 {
        self.within(key, bounds, size_of, |least, most| {
            format!("must be a size from {} to {}, such as \"16MiB\"", size_text(least), size_text(most))
        })
    }

    /// A size that fits into memory.
    pub(super) fn bytes(&mut self, key: &str, bounds: RangeInclusive<u64>) -> usize {
        to_usize(self.size(key, bounds))
    }

    /// A time within bounds, such as "250ms".
    pub(super) fn duration(&mut self, key: &str, bounds: RangeInclusive<Duration>) -> Duration {
        self.within(key, bounds, duration_of, |least, most| {
            format!("must be a time from {} to {}, such as \"5s\"", duration_text(least), duration_text(most))
        })
    }

    /// `true` or `false`. The environment and flags know only texts, so these words count as well,
    /// but not in a file.
    pub(super) fn switch(&mut self, key: &str) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        let from_file = matches!(entry.origin, Origin::File(_));
        match (&entry.value, from_file) {
            (Value::Switch(on), _) => *on,
            (Value::Text(word), false) if word == "true" => true,
            (Value::Text(word), false) if word == "false" => false,
            _ => self.fail(entry, "must be true or false", false),
        }
    }

    /// A text that `read` understands; `rule` says what it must be.
    pub(super) fn text<T>(&mut self, key: &str, rule: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.told(key, rule, |text| read(text).ok_or_else(|| rule.to_owned()))
    }

    /// A text that `read` understands, or else says which rule it breaks; `rule` is that of what is no text.
    pub(super) fn told<T>(
        &mut self,
        key: &str,
        rule: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        let found = match &entry.value {
            Value::Text(text) => read(text),
            Value::Section | Value::Number(_) | Value::Switch(_) | Value::Texts(_) | Value::Other => {
                Err(rule.to_owned())
            }
        };
        found.map_err(|broken| self.fail(entry, &broken, ())).ok()
    }

    /// A list of texts, each of which `read` understands; `rule` says what it must be.
    pub(super) fn texts<T>(&mut self, key: &str, rule: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let found = match &entry.value {
            Value::Texts(texts) => texts.iter().map(|text| read(text)).collect::<Option<_>>(),
            Value::Section | Value::Number(_) | Value::Switch(_) | Value::Text(_) | Value::Other => None,
        };
        found.unwrap_or_else(|| self.fail(entry, rule, Vec::new()))
    }

    /// Checks that so many times one key are not over another; the one that the operator set is at
    /// fault.
    pub(super) fn at_most(
        &mut self,
        times: usize,
        (small_key, small): (&str, usize),
        (large_key, large): (&str, usize),
    ) {
        if small <= large / times || !self.errors.is_empty() {
            return;
        }
        let (part, multiple) = match times {
            1 => (String::new(), String::new()),
            _ => (format!("1/{times} of "), format!("{times} times ")),
        };
        let (at_fault, relation, other) = if self.raw.is_own(small_key) || !self.raw.is_own(large_key) {
            (small_key, format!("at most {part}"), large_key)
        } else {
            (large_key, format!("at least {multiple}"), small_key)
        };
        let written = self.raw.entry(other).map_or("", |entry| entry.written.as_str());
        if let Some(entry) = self.entry(at_fault) {
            self.fail(entry, &format!("must be {relation}{other} ({written})"), ());
        }
    }

    /// Refuses two keys that name the same listener. The one that a flag or a variable set is at
    /// fault, otherwise the first.
    pub(super) fn same_listener(&mut self, one: &str, other: &str) {
        let (Some(first), Some(second)) = (self.entry(one), self.entry(other)) else { return };
        let is_argument = |entry: &Entry| matches!(entry.origin, Origin::Argument(_));
        let (at_fault, instead) =
            if is_argument(second) && !is_argument(first) { (second, first) } else { (first, second) };
        let rule = format!(
            "must be another listener than {} ({}): choose another port for one of them",
            instead.key, instead.written
        );
        self.fail(at_fault, &rule, ());
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        key: &str,
        bounds: RangeInclusive<T>,
        read: fn(&Value) -> Option<T>,
        rule: impl Fn(T, T) -> String,
    ) -> T {
        let Some(entry) = self.entry(key) else { return *bounds.start() };
        let within = read(&entry.value).filter(|value| bounds.contains(value));
        within.unwrap_or_else(|| self.fail(entry, &rule(*bounds.start(), *bounds.end()), *bounds.start()))
    }

    fn entry(&mut self, key: &str) -> Option<&'a Entry> {
        let entry = self.raw.entry(key);
        if entry.is_none() {
            let rule = "config/default.toml does not hold this key".to_owned();
            self.errors.push(ConfigError {
                origin: Origin::File("sekali".to_owned()),
                key: Some(key.to_owned()),
                rule,
            });
        }
        entry
    }

    fn fail<T>(&mut self, entry: &Entry, rule: &str, instead: T) -> T {
        let found =
            if entry.key == "store.url" { without_password(&entry.written) } else { entry.written.clone() };
        self.errors.push(ConfigError::of(entry, format!("{rule}, found {found}")));
        instead
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number_of(value: &Value) -> Option<u64> {
    if let Value::Number(number) = value { Some(*number) } else { None }
}

fn size_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(bytes) => Some(*bytes),
        Value::Text(text) => text.parse().ok().map(|ByteSize(bytes)| bytes),
        Value::Section | Value::Switch(_) | Value::Texts(_) | Value::Other => None,
    }
}

fn duration_of(value: &Value) -> Option<Duration> {
    let Value::Text(text) = value else { return None };
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

fn duration_text(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}

/// A size as the configuration writes it, in the largest unit that is exact.
fn size_text(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.into_iter().find(|(shift, _)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::super::raw::Overrides;
    use super::*;

    fn check<T>(text: &str, read: impl Fn(&mut Checker<'_>) -> T) -> Result<T, String> {
        let raw = Raw::new(Some(("f", text)), &Overrides::default()).unwrap();
        let mut checker = Checker::new(&raw);
        let value = read(&mut checker);
        match checker.errors.first() {
            None => Ok(value),
            Some(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn numbers_are_whole_and_within_bounds() {
        let read = |text: &str| check(text, |checker| checker.number("router.lanes", 1..=64));
        assert_eq!(read("[router]\nlanes = 64"), Ok(64));
        for bad in ["0", "65", "-1", "1.5", "\"two\"", "[1]"] {
            let rule = format!("f:2: router.lanes: must be from 1 to 64, found {bad}");
            assert_eq!(read(&format!("[router]\nlanes = {bad}")), Err(rule));
        }
    }

    #[test]
    fn switches_are_true_or_false() {
        let read = |text: &str| {
            let text = format!("[compat]\nfirst_version = {text}");
            check(&text, |checker| checker.switch("compat.first_version"))
        };
        assert_eq!(read("true"), Ok(true));
        assert_eq!(read("false"), Ok(false));
        for bad in ["1", "\"true\"", "\"yes\"", "[true]", "1.0"] {
            let rule = format!("f:2: compat.first_version: must be true or false, found {bad}");
            assert_eq!(read(bad), Err(rule));
        }
    }

    #[test]
    fn a_switch_of_the_environment_is_one_of_two_words() {
        let read = |word: &str| {
            let overrides = Overrides { compat_first_version: Some(word.to_owned()), ..Overrides::default() };
            let raw = Raw::new(Some(("f", "[compat]\nfirst_version = true\n")), &overrides).unwrap();
            let mut checker = Checker::new(&raw);
            let on = checker.switch("compat.first_version");
            checker.errors.first().map_or(Ok(on), |error| Err(error.to_string()))
        };
        assert_eq!(read("true"), Ok(true));
        assert_eq!(read("false"), Ok(false), "flags and the environment override the file");
        for bad in ["", "TRUE", "1", "yes", " true"] {
            let rule = format!(
                "--compat-first-version (SEKALI_COMPAT_FIRST_VERSION): compat.first_version: must be true or \
                    false, found {bad:?}"
            );
            assert_eq!(read(bad), Err(rule));
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        let read = |text: &str| {
            check(&format!("[limits]\nbody = {text}"), |checker| checker.size("limits.body", 1024..=1 << 30))
        };
        assert_eq!(read("2048"), Ok(2048));
        assert_eq!(read("\"16 MiB\""), Ok(16 << 20));
        assert_eq!(read("\"1MB\""), Ok(1_000_000));
        for bad in ["\"16 apples\"", "1023", "\"2GiB\"", "true"] {
            let rule =
                format!("f:2: limits.body: must be a size from 1KiB to 1GiB, such as \"16MiB\", found {bad}");
            assert_eq!(read(bad), Err(rule));
        }
    }

    #[test]
    fn times_have_a_unit() {
        let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
        let read = |text: &str| {
            let bounds = bounds.clone();
            check(&format!("[router]\nidle = {text}"), |checker| {
                checker.duration("router.idle", bounds.clone())
            })
        };
        assert_eq!(read("\"250ms\""), Ok(Duration::from_millis(250)));
        assert_eq!(read("\"10m\""), Ok(Duration::from_mins(10)));
        for bad in ["5", "\"5\"", "\"-5s\"", "\"soon\"", "\"2h\"", "\"99ms\""] {
            let rule =
                format!("f:2: router.idle: must be a time from 100ms to 1h, such as \"5s\", found {bad}");
            assert_eq!(read(bad), Err(rule));
        }
    }
}
