//! Names: topics, event ids and sources share one rule.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::bytes;
use super::verdict::FaultCode;

/// The longest topic, `event_id` or source, in bytes of UTF-8. The contract's number: docs/API.md.
pub const NAME_MAX_BYTES: usize = 255;

/// Checks the rule of topics, event ids and sources: 1 to [`NAME_MAX_BYTES`] bytes, no control character.
///
/// # Errors
/// The rule that is broken.
pub fn check_name(name: &str) -> Result<(), FaultCode> {
    if name.is_empty() {
        return Err(FaultCode::Empty);
    }
    if name.len() > NAME_MAX_BYTES {
        return Err(FaultCode::TooLong);
    }
    // Nearly all names are printable ASCII, which is seen without a look at each character on its own.
    let printable = bytes::count(name, |byte| matches!(byte, b' '..=b'~'));
    if printable < name.len() && name.chars().any(char::is_control) {
        return Err(FaultCode::ControlCharacter);
    }
    Ok(())
}

/// The name of a topic: valid, cheap to clone, compared as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Parses the name of a topic.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(name: &str) -> Result<Self, FaultCode> {
        check_name(name)?;
        Ok(Self(name.into()))
    }

    /// A name that was checked when it was stored or parsed.
    pub(crate) fn trusted(name: &str) -> Self {
        debug_assert_eq!(check_name(name), Ok(()), "topics are checked at the edge");
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes() {
        assert_eq!(check_name(""), Err(FaultCode::Empty));
        assert_eq!(check_name(&"x".repeat(255)), Ok(()));
        assert_eq!(check_name(&"x".repeat(256)), Err(FaultCode::TooLong));
        assert_eq!(check_name(&"é".repeat(128)), Err(FaultCode::TooLong), "bytes, not characters");
    }

    #[test]
    fn a_name_has_no_control_character_of_any_plane() {
        for bad in ["a\nb", "\u{0}", "\u{7f}", "\u{85}"] {
            assert_eq!(check_name(bad), Err(FaultCode::ControlCharacter), "{bad:?}");
        }
        assert_eq!(check_name("größe/☃ 1"), Ok(()));
    }
}
