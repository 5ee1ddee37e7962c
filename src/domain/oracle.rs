//! The comparison of two payloads as parsed trees: the oracle of the tests and of the fuzzer. The program compares
//! digests instead (`digest`), because a tree takes many times the memory of its text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::payload::{has_escape, string_at};

/// Whether two valid JSON texts mean the same value: key order and white space do not matter, numbers are
/// equal when their exact decimal values are, strings are compared after unescaping, and of equal names in
/// one object the last counts.
pub(super) fn same_value(left: &str, right: &str) -> bool {
    left == right || Parser::parse(left) == Parser::parse(right)
}

#[cfg(test)]
/// Whether two JSON numbers have the same value.
pub(super) fn same_number(left: &str, right: &str) -> bool {
    Decimal::parse(left) == Decimal::parse(right)
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    Literal(&'a str),
    Number(Decimal<'a>),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(BTreeMap<Cow<'a, str>, Value<'a>>),
}

/// Reads a text that is known to be one valid JSON value.
struct Parser<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn parse(json: &'a str) -> Value<'a> {
        Self { json, at: 0 }.value()
    }

    fn value(&mut self) -> Value<'a> {
        match self.peek() {
            b'{' => Value::Object(self.object()),
            b'[' => Value::Array(self.array()),
            b'"' => Value::String(self.string()),
            _ => self.scalar(),
        }
    }

    fn object(&mut self) -> BTreeMap<Cow<'a, str>, Value<'a>> {
        let mut members = BTreeMap::new();
        self.at += 1;
        while self.peek() != b'}' {
            let name = self.string();
            self.skip(b':');
            members.insert(name, self.value());
            self.skip(b',');
        }
        self.at += 1;
        members
    }

    fn array(&mut self) -> Vec<Value<'a>> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != b']' {
            items.push(self.value());
            self.skip(b',');
        }
        self.at += 1;
        items
    }

    fn string(&mut self) -> Cow<'a, str> {
        self.peek();
        let literal = string_at(self.json, self.at);
        self.at += literal.len();
        if has_escape(literal)
            && let Ok(unescaped) = serde_json::from_str::<String>(literal)
        {
            return Cow::Owned(unescaped);
        }
        Cow::Borrowed(&literal[1..literal.len() - 1])
    }

    fn scalar(&mut self) -> Value<'a> {
        let rest = &self.json[self.at..];
        let end = rest
            .find(|character: char| matches!(character, ',' | ']' | '}') || character.is_ascii_whitespace())
            .unwrap_or(rest.len());
        self.at += end;
        match &rest[..end] {
            literal @ ("true" | "false" | "null") => Value::Literal(literal),
            number => Value::Number(Decimal::parse(number)),
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> u8 {
        let bytes = self.json.as_bytes();
        while bytes[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        bytes[self.at]
    }

    /// Skips one punctuation mark if it is next.
    fn skip(&mut self, mark: u8) {
        if self.peek() == mark {
            self.at += 1;
        }
    }
}

/// The exact value of a JSON number: `0.DIGITS x 10^(point + exponent)`, with no zero at either end of the
/// digits. Two numbers are the same value exactly when their parts agree.
#[derive(Debug, Clone)]
struct Decimal<'a> {
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
    fn parse(number: &'a str) -> Self {
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
