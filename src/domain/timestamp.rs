//! The rule of timestamps: RFC 3339, as producers write it.

use jiff::civil::Date;

/// The longest timestamp, in bytes. The contract's number: docs/API.md.
pub const TIMESTAMP_MAX_BYTES: usize = 64;

/// Checks that `text` is a time of at most [`TIMESTAMP_MAX_BYTES`] bytes: `YYYY-MM-DD`, then `T` or
/// one space, then `HH:MM:SS`, then optionally a fraction, then optionally `Z` or an offset
/// (without one it is UTC). Second 60, a leap second, is there at 23:59 UTC only.
///
/// # Errors
/// What is wrong, for a person.
pub fn check_timestamp(text: &str) -> Result<(), &'static str> {
    // Before anything else, so that a text of a megabyte costs nothing.
    if text.len() > TIMESTAMP_MAX_BYTES {
        return Err("has more than 64 bytes");
    }
    let time = parse(text)?;
    if time.second == 60 && time.minute_of_utc_day() != LAST_MINUTE {
        return Err("has second 60 at another time than 23:59:60 UTC");
    }
    Ok(())
}

/// Checks that `text` is a time as some version of this program stored it. Before there was a
/// limit, a timestamp had any length, and second 60 in any minute: such events are whole.
///
/// # Errors
/// What is wrong, for a person.
pub fn check_stored_timestamp(text: &str) -> Result<(), &'static str> {
    parse(text).map(drop)
}

/// 23:59.
const LAST_MINUTE: i16 = 24 * 60 - 1;

/// What has to be known of a time to judge its second.
struct Time {
    /// Minutes of the day, by the clock that the text shows.
    minute: i16,
    second: u8,
    /// By how many minutes that clock is ahead of UTC.
    ahead: i16,
}

impl Time {
    fn minute_of_utc_day(&self) -> i16 {
        (self.minute - self.ahead).rem_euclid(24 * 60)
    }
}

fn parse(text: &str) -> Result<Time, &'static str> {
    const SHAPE: &str =
        "must be an RFC 3339 time such as 2026-01-31T12:00:00Z (fraction and offset optional)";
    let (seconds, rest) = text.as_bytes().split_at_checked(19).ok_or(SHAPE)?;
    let shaped = seconds.iter().zip(b"dddd-dd-ddTdd:dd:dd").all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        fixed => byte == fixed,
    });
    let ahead = without_fraction(rest).and_then(offset).filter(|_| shaped).ok_or(SHAPE)?;
    let two = |at: usize| two_digits(seconds[at], seconds[at + 1]);
    let year = i16::from(two(0)) * 100 + i16::from(two(2));
    let (month, day) = (two(5).cast_signed(), two(8).cast_signed());
    if Date::new(year, month, day).is_err() {
        return Err("has a date that does not exist");
    }
    let (hour, minute, second) = (two(11), two(14), two(17));
    if hour > 23 || minute > 59 || second > 60 {
        return Err("has a time of day that does not exist");
    }
    Ok(Time { minute: minutes(hour, minute), second, ahead })
}

/// The number of two digits.
fn two_digits(tens: u8, ones: u8) -> u8 {
    (tens - b'0') * 10 + (ones - b'0')
}

fn minutes(hours: u8, minutes: u8) -> i16 {
    i16::from(hours) * 60 + i16::from(minutes)
}

/// What follows the seconds' fraction; `None` where a point has no digit behind it.
fn without_fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = rest.strip_prefix(b".") else { return Some(rest) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| &fraction[digits..])
}

/// The minutes of an offset from UTC; `None` where the text is none.
fn offset(text: &[u8]) -> Option<i16> {
    match text {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let are_digits = [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit());
            let exists = are_digits && (*h1, *h2) <= (b'2', b'3') && *m1 <= b'5';
            let ahead = exists.then(|| minutes(two_digits(*h1, *h2), two_digits(*m1, *m2)))?;
            Some(if *sign == b'-' { -ahead } else { ahead })
        }
        _ => None,
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
            "2024-02-29T23:59:59+05:30",
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

    #[test]
    fn second_60_is_at_23_59_utc_only() {
        for good in [
            "1998-12-31T23:59:60Z",
            "2016-12-31t23:59:60.999z",
            "2016-12-31 23:59:60",
            "2016-12-31T18:59:60-05:00",
            "2017-01-01T05:29:60+05:30",
            "2017-01-01T00:00:60+00:01",
            "2016-12-31T00:00:60-23:59",
            "2016-12-31T23:58:60+23:59",
            "1990-12-31T15:59:60-08:00",
            "2016-12-31T23:59:60-00:00",
        ] {
            assert_eq!(check_timestamp(good), Ok(()), "{good}");
        }
        for bad in [
            "1998-12-31T23:58:60Z",
            "1998-12-31T00:00:60Z",
            "1998-12-31T22:59:60",
            "2024-02-29T23:59:60+05:30",
            "2016-12-31T18:59:60+05:00",
            "2016-12-31T18:58:60-05:00",
            "2016-12-31T19:59:60-05:00",
        ] {
            let rule = check_timestamp(bad).unwrap_err();
            assert!(rule.contains("23:59:60 UTC"), "{bad}: {rule}");
            assert_eq!(check_stored_timestamp(bad), Ok(()), "{bad} may be stored");
        }
        assert!(check_timestamp("1998-12-31T23:59:61Z").is_err());
    }

    #[test]
    fn a_timestamp_has_64_bytes_at_most() {
        let long = |digits: usize| format!("2026-11-22T10:00:00.{}Z", "1".repeat(digits));
        assert_eq!(long(43).len(), TIMESTAMP_MAX_BYTES);
        assert_eq!(check_timestamp(&long(43)), Ok(()));
        for digits in [44, 1_000_000] {
            let rule = check_timestamp(&long(digits)).unwrap_err();
            assert!(rule.contains(&format!("more than {TIMESTAMP_MAX_BYTES} bytes")), "{rule}");
            assert_eq!(check_stored_timestamp(&long(digits)), Ok(()), "it may be stored");
        }
        assert!(check_stored_timestamp("2026-02-30T10:00:00Z").is_err());
    }
}
