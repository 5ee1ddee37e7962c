//! The byte order mark that editors and spreadsheets put before a text: skipped at the start of a
//! body, named elsewhere.

use super::BodyError;

/// The mark of a UTF-8 text.
const MARK: &str = "\u{feff}";

/// The marks of other encodings. That of UTF-32 in little-endian order begins with the one of
/// UTF-16.
const OTHERS: [(&[u8], &str); 4] = [
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];

/// A body without the mark at its start.
///
/// # Errors
/// Where the mark says that the body is no UTF-8.
pub(super) fn skipped(body: &[u8]) -> Result<&[u8], BodyError> {
    if let Some((_, encoding)) = OTHERS.iter().find(|(mark, _)| body.starts_with(mark)) {
        return Err(BodyError::NotJson(format!(
            "the body begins with a {encoding} byte order mark; encode it as UTF-8"
        )));
    }
    Ok(body.strip_prefix(MARK.as_bytes()).unwrap_or(body))
}

/// Whether a mark is what a parser met that failed in this column of a line, counted from 1 in
/// bytes.
///
/// A mark within a string is a character as any other: no parser fails at it.
pub(super) fn is_at(line: &str, column: usize) -> Option<usize> {
    // The parser has consumed the byte that it fails at, or only looked at it.
    let places = [column.saturating_sub(1), column];
    places.into_iter().find(|at| line.get(*at..).is_some_and(|rest| rest.starts_with(MARK)))
}

/// What is wrong with a mark at this place, as the end of a sentence.
pub(super) fn misplaced(place: &str) -> String {
    format!("a UTF-8 byte order mark at {place}; only the start of a body may have one")
}
