//! Which request it is, in the log and for the client.

use std::fmt;
use std::sync::Arc;

/// The id of a request. One that was made is a number until somebody reads it, which is once for most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestId {
    /// Made here, of random bits; written as 32 hexadecimal digits.
    Made(u128),
    /// Taken from the request.
    Given(Arc<str>),
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(bits) => write!(formatter, "{bits:032x}"),
            Self::Given(id) => formatter.write_str(id),
        }
    }
}
