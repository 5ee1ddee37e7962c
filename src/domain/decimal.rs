//! JSON numbers as exact decimal values, of any length and exponent.

/// Digits of an exponent that are counted with at once: 10^37 is the greatest power of ten in an `i128` with
/// room for the distance of a decimal point.
const LOW_DIGITS: usize = 37;

/// 10^[`LOW_DIGITS`].
const LOW_END: i128 = 10_i128.pow(37);

/// Writes the canonical form of a valid JSON number: two numbers have the same form exactly when they have the
/// same value. Nothing is allocated, whatever the length of the number and of its exponent.
///
/// The form is a sign, the digits without zeros at either end, `e`, and the exponent that makes
/// `0.DIGITS x 10^EXPONENT` the value; zero has a form of its own.
pub(super) fn write_canonical(number: &str, write: &mut impl FnMut(&[u8])) {
    let (is_negative, unsigned) = sign(number);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, ""));
    let (before_point, behind_point) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut whole = before_point.trim_start_matches('0');
    let mut fraction = behind_point.trim_end_matches('0');
    // Where the point stands, counted from before the first digit that is not 0.
    let mut point = distance(whole.len());
    if whole.is_empty() {
        let zeros = fraction.len();
        fraction = fraction.trim_start_matches('0');
        point = -distance(zeros - fraction.len());
    }
    if fraction.is_empty() {
        whole = whole.trim_end_matches('0');
    }
    if whole.is_empty() && fraction.is_empty() {
        write(b"0");
        return;
    }
    write(if is_negative { b"-" } else { b"+" });
    write(whole.as_bytes());
    write(fraction.as_bytes());
    write(b"e");
    let (is_below, digits) = sign(exponent);
    write_sum(is_below, digits.trim_start_matches('0').as_bytes(), point, write);
}

/// Writes the sum of a number of any length, given by its sign and digits, and a small one.
fn write_sum(negative: bool, digits: &[u8], small: i128, write: &mut impl FnMut(&[u8])) {
    let (high, low) = digits.split_at(digits.len().saturating_sub(LOW_DIGITS));
    let low = low.iter().fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    if high.is_empty() {
        let sum = if negative { small - low } else { small + low };
        write(sum.to_string().as_bytes());
        return;
    }
    // The long number is far from 0: it gives the sum its sign.
    let low = if negative { low - small } else { low + small };
    write(if negative { b"-" } else { b"" });
    let low = if low < 0 {
        write_neighbour(high, Step::Down, write);
        low + LOW_END
    } else if low >= LOW_END {
        write_neighbour(high, Step::Up, write);
        low - LOW_END
    } else {
        write(high);
        low
    };
    write(format!("{low:0LOW_DIGITS$}").as_bytes());
}

/// The way to a neighbour of a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Up,
    Down,
}

/// Writes the digits of a whole number's neighbour; none where that is 0.
fn write_neighbour(digits: &[u8], step: Step, write: &mut impl FnMut(&[u8])) {
    let (full, empty) = if step == Step::Up { (b'9', b'0') } else { (b'0', b'9') };
    let kept = digits.iter().rposition(|digit| *digit != full).map_or(0, |last| last + 1);
    match digits[..kept].split_last() {
        Some((last, before)) => {
            write(before);
            let changed = if step == Step::Up { last + 1 } else { last - 1 };
            if !before.is_empty() || changed != b'0' {
                write(&[changed]);
            }
        }
        // Nines alone: the neighbour has a digit more. A number of zeros alone has no neighbour below.
        None if step == Step::Up => write(b"1"),
        None => {}
    }
    let mut left = digits.len() - kept;
    let run = [empty; 64];
    while left > 0 {
        let part = left.min(run.len());
        write(&run[..part]);
        left -= part;
    }
}

fn distance(digits: usize) -> i128 {
    // A text has fewer than 2^64 bytes.
    digits as i128
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
    use crate::domain::oracle::same_number;

    fn same(left: &str, right: &str) -> bool {
        let canonical = |number| {
            let mut text = Vec::new();
            write_canonical(number, &mut |bytes| text.extend_from_slice(bytes));
            text
        };
        let same = canonical(left) == canonical(right);
        assert_eq!(same, same_number(left, right), "the oracle judges otherwise: {left} {right}");
        same
    }

    /// The digits of a whole number less a small one; the number itself where it is less than that.
    fn decremented(digits: &str, by: usize) -> String {
        let mut digits: Vec<_> = digits.bytes().map(|digit| digit - b'0').collect();
        for _ in 0..by {
            let Some(last) = digits.iter().rposition(|digit| *digit > 0) else { break };
            digits[last] -= 1;
            digits[last + 1..].fill(9);
        }
        digits.into_iter().map(|digit| char::from(b'0' + digit)).collect()
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
            (
                "1e999999999999999999999999999999999999999999",
                "0.1e1000000000000000000000000000000000000000000",
            ),
            (
                "1e-999999999999999999999999999999999999999999",
                "10e-1000000000000000000000000000000000000000000",
            ),
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

    /// A whole number of so many digits, most of them 0 or 9: its neighbours differ in many digits.
    fn long() -> impl Strategy<Value = String> {
        prop_oneof!["[1-9]0{0,60}[0-9]{0,2}", "9{1,60}[0-9]{0,2}", "[1-9][09]{30,45}", "[1-9][0-9]{0,60}"]
    }

    proptest! {
        #[test]
        fn agrees_with_the_oracle_where_exponents_are_long(
            exponent in long(), other in long(), sign in "[+-]?", whole in "0|[1-9][0-9]{0,3}",
            zeros in 0_usize..25, shift in 0_usize..30,
        ) {
            let (padding, moved) = ("0".repeat(zeros), "0".repeat(shift));
            // Equal where the shift is the difference, which the oracle knows.
            let numbers = [
                format!("{whole}e{sign}{exponent}"),
                format!("{whole}{moved}e{sign}{exponent}"),
                format!("0.{moved}{whole}E{sign}{padding}{exponent}"),
                format!("{whole}.{padding}e{sign}{other}"),
                format!("{whole}{moved}e{sign}{}", decremented(&exponent, shift)),
            ];
            for left in &numbers {
                for right in &numbers {
                    same(left, right);
                }
            }
        }

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
