//! JSON numbers as exact decimal values, of any length and exponent.

use std::borrow::Cow;

/// The exact value of a JSON number: `0.DIGITS x 10^(point + exponent)`, with no zero at either end of the
/// digits. Two numbers are the same value exactly when their parts agree.
#[derive(Debug, Clone)]
pub(super) struct Decimal<'a> {
    negative: bool,
    digits: Cow<'a, str>,
    /// Where the decimal point stands, counted from before the first digit.
    point: i128,
    exponent: Exponent<'a>,
}

/// The exponent as written: sign and digits without leading zeros, since it may have any length.
#[derive(Debug, Clone, Copy, Default)]
struct Exponent<'a> {
    negative: bool,
    digits: &'a str,
}

impl<'a> Decimal<'a> {
    /// Reads a valid JSON number.
    pub(super) fn parse(number: &'a str) -> Self {
        let (negative, unsigned) = sign(number);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, ""));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all =
            if fraction.is_empty() { Cow::Borrowed(whole) } else { Cow::Owned([whole, fraction].concat()) };
        let zeros = all.len() - all.trim_start_matches('0').len();
        let digits = match all {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches('0')),
            Cow::Owned(text) => Cow::Owned(text.trim_matches('0').to_owned()),
        };
        if digits.is_empty() {
            return Self { negative: false, digits, point: 0, exponent: Exponent::default() };
        }
        let (exponent_negative, exponent_digits) = sign(exponent);
        Self {
            negative,
            digits,
            point: whole.len() as i128 - zeros as i128,
            exponent: Exponent {
                negative: exponent_negative,
                digits: exponent_digits.trim_start_matches('0'),
            },
        }
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.negative == other.negative
            && self.digits == other.digits
            && self.exponent.minus(other.exponent) == Some(other.point - self.point)
    }
}

impl Exponent<'_> {
    /// The difference, digit by digit from the greatest; `None` where it is far over what a point can make
    /// up for (a point is at most the length of a text away).
    fn minus(self, other: Self) -> Option<i128> {
        const FAR: i128 = 1 << 100;
        let length = self.digits.len().max(other.digits.len());
        let mut difference = 0_i128;
        for place in (0..length).rev() {
            difference = difference * 10 + self.digit(place) - other.digit(place);
            // Each further digit can bring it back by less than 20 / 10 of itself: it only grows from here.
            if difference.abs() > FAR {
                return None;
            }
        }
        Some(difference)
    }

    /// The signed digit at 10^place.
    fn digit(self, place: usize) -> i128 {
        let digits = self.digits.as_bytes();
        let value = digits.len().checked_sub(place + 1).map_or(0, |at| i128::from(digits[at] - b'0'));
        if self.negative { -value } else { value }
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(left: &str, right: &str) -> bool {
        Decimal::parse(left) == Decimal::parse(right)
    }

    #[test]
    fn equal_values_written_otherwise_are_the_same() {
        for (left, right) in [
            ("1", "1.0"),
            ("1", "1e0"),
            ("10", "1E+1"),
            ("0.001", "1e-3"),
            ("-0", "0e99999999999999999999999999999999999999999999"),
            ("123.4500", "0.12345e3"),
            ("1e999999999999999999999999999999999999999999", "10e999999999999999999999999999999999999999998"),
            ("1e100000000000000000000000000000000000000000", "10e99999999999999999999999999999999999999999"),
            ("1e-0001", "0.1"),
        ] {
            assert!(same(left, right), "{left} {right}");
        }
    }

    #[test]
    fn other_values_are_not() {
        for (left, right) in [
            ("1", "-1"),
            ("1", "10"),
            ("100000000000000000000000000000000001", "100000000000000000000000000000000002"),
            ("1e999999999999999999999999999999999999999999", "1e999999999999999999999999999999999999999998"),
            ("1e99999999999999999999999999999999999999999", "1e-99999999999999999999999999999999999999999"),
            ("0.1", "0.01"),
            ("0", "1e-400"),
        ] {
            assert!(!same(left, right), "{left} {right}");
        }
    }

    proptest! {
        #[test]
        fn moving_the_point_and_the_exponent_together_changes_nothing(
            digits in "[1-9][0-9]{0,30}", shift in 0_usize..40, exponent in -50_i64..50, negative: bool,
        ) {
            let sign = if negative { "-" } else { "" };
            let whole = format!("{sign}{digits}e{exponent}");
            let moved = format!("{sign}{digits}{}e{}", "0".repeat(shift), exponent - i64::try_from(shift).unwrap());
            let fraction = format!("{sign}0.{}{digits}e{}", "0".repeat(shift),
                exponent + i64::try_from(shift + digits.len()).unwrap());
            prop_assert!(same(&whole, &moved) && same(&whole, &fraction), "{} {} {}", whole, moved, fraction);
            let other = format!("{sign}{digits}1e{exponent}");
            prop_assert!(!same(&whole, &other));
        }
    }
}
