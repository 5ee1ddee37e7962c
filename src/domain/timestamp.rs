//! The rule of timestamps: RFC 3339, as producers write it.

use jiff::civil::Date;

/// Checks that `text` is a time: `YYYY-MM-DD`, then `T` or one space, then `HH:MM:SS`, then optionally a
/// fraction, then optionally `Z` or an offset (without one it is UTC). Second 60 is a leap second.
///
/// # Errors
/// What is wrong, for a person.
pub fn check_timestamp(text: &str) -> Result<(), &'static str> {
    const SHAPE: &str =
        "must be an RFC 3339 time such as 2026-01-31T12:00:00Z (fraction and offset optional)";
    let (seconds, rest) = text.as_bytes().split_at_checked(19).ok_or(SHAPE)?;
    let shaped = seconds.iter().zip(b"dddd-dd-ddTdd:dd:dd").all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        fixed => byte == fixed,
    });
    if !shaped || !is_offset(without_fraction(rest).ok_or(SHAPE)?) {
        return Err(SHAPE);
    }
    let two = |at: usize| (seconds[at] - b'0') * 10 + (seconds[at + 1] - b'0');
    let year = i16::from(two(0)) * 100 + i16::from(two(2));
    let (month, day) = (two(5).cast_signed(), two(8).cast_signed());
    if Date::new(year, month, day).is_err() {
        return Err("has a date that does not exist");
    }
    if two(11) > 23 || two(14) > 59 || two(17) > 60 {
        return Err("has a time of day that does not exist");
    }
    Ok(())
}

/// What follows the seconds' fraction; `None` where a point has no digit behind it.
fn without_fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = rest.strip_prefix(b".") else { return Some(rest) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| &fraction[digits..])
}

fn is_offset(text: &[u8]) -> bool {
    match text {
        [] | [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit())
                && (*h1, *h2) <= (b'2', b'3')
                && *m1 <= b'5'
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_contract_are_accepted() {
        for good in [
            "2026-11-22T10:00:00Z",
            "2026-11-22 10:00:00",
            "2026-11-22t10:00:00.123456789012z",
            "2024-02-29T23:59:60+05:30",
            "0000-01-01T00:00:00-23:59",
        ] {
            assert_eq!(check_timestamp(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            "yesterday",
            "2026-11-22",
            "2026-11-22T10:00",
            "2026-11-22  10:00:00",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00+0530",
            "2026-11-22T10:00:00+24:00",
            "2026-11-22T10:00:00+19:60",
            "2026-11-22T10:00:00Zulu",
            "2026-11-22T10:00:00 Z",
            "2026-11-22T10:00:00\u{663}",
            "20261-1-22T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-11-00T10:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:00:61Z",
            "\u{663}026-11-22T10:00:00Z",
        ] {
            assert!(check_timestamp(bad).is_err(), "{bad}");
        }
    }
}
