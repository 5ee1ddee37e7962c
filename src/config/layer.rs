//! One configuration file, read into a flat list of keys with their places.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin};

/// One key of a file, or one override.
#[derive(Debug)]
pub(super) struct Entry {
    /// The names of its sections and its own.
    pub(super) path: Vec<String>,
    /// The key as errors name it.
    pub(super) key: String,
    /// Where it stands.
    pub(super) origin: Origin,
    /// What it is set to.
    pub(super) value: Value,
    /// The value as it is written.
    pub(super) written: String,
}

/// The types that keys can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A section, whose keys are entries of their own.
    Section,
    /// A whole number, not negative.
    Number(u64),
    /// `true` or `false`.
    Switch(bool),
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// Anything else that TOML knows; no key has such a type.
    Other,
}

/// Reads the text of a file into its keys, each section in front of its keys.
///
/// # Errors
/// Every place where the text is not TOML.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Entry>, ConfigErrors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let error = |error: &toml::de::Error| ConfigError {
            origin: place(file, text, error.span().map_or(0, |span| span.start)),
            key: None,
            rule: format!("not TOML: {}", error.message()),
        };
        return Err(ConfigErrors(errors.iter().map(error).collect()));
    }
    let mut entries = Vec::new();
    flatten(file, text, &[], table.get_ref(), &mut entries);
    Ok(entries)
}

fn flatten(file: &str, text: &str, parent: &[String], table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let mut path = parent.to_vec();
        path.push(name.get_ref().to_string());
        entries.push(Entry {
            key: path.iter().map(|part| quoted(part)).collect::<Vec<_>>().join("."),
            origin: place(file, text, name.span().start),
            value: Value::of(value),
            written: text.get(value.span()).unwrap_or_default().to_owned(),
            path: path.clone(),
        });
        if let DeValue::Table(inner) = value.get_ref() {
            flatten(file, text, &path, inner, entries);
        }
    }
}

impl Value {
    fn of(value: &Spanned<DeValue<'_>>) -> Self {
        match value.get_ref() {
            DeValue::Table(_) => Self::Section,
            DeValue::Boolean(on) => Self::Switch(*on),
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Array(items) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<_>>().map_or(Self::Other, Self::Texts)
            }
            DeValue::Integer(number) => {
                u64::from_str_radix(number.as_str(), number.radix()).map_or(Self::Other, Self::Number)
            }
            _ => Self::Other,
        }
    }
}

/// A part of a key as TOML writes it.
fn quoted(part: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !part.is_empty() && part.bytes().all(bare) { part.to_owned() } else { format!("{part:?}") }
}

/// `FILE:LINE` of a byte of the text.
fn place(file: &str, text: &str, at: usize) -> Origin {
    let before = text.as_bytes().iter().take(at);
    Origin::File(format!("{file}:{}", 1 + before.filter(|byte| **byte == b'\n').count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_flat_with_their_lines() {
        let entries = parse("f", "[router]\nlanes = 2\n\n[topics.\"a b\"]\nlanes = 0x10\n").unwrap();
        let origins: Vec<_> = entries.iter().map(|entry| entry.origin.to_string()).collect();
        let found: Vec<_> = entries
            .iter()
            .zip(&origins)
            .map(|(entry, origin)| (entry.key.as_str(), origin.as_str(), &entry.value))
            .collect();
        assert_eq!(
            found,
            [
                ("router", "f:1", &Value::Section),
                ("router.lanes", "f:2", &Value::Number(2)),
                ("topics", "f:4", &Value::Section),
                ("topics.\"a b\"", "f:4", &Value::Section),
                ("topics.\"a b\".lanes", "f:5", &Value::Number(16)),
            ]
        );
    }

    #[test]
    fn text_that_is_not_toml_is_named_with_its_line() {
        let errors = parse("f", "[router]\nlanes = \n").unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert!(errors.to_string().starts_with("f:2: not TOML: "), "{errors}");
    }
}
