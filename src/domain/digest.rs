//! Digests of payloads: two payloads mean the same JSON value exactly when their digests are equal.
//!
//! Key order and white space do not matter, numbers are equal when their exact decimal values are, strings are
//! compared after unescaping, and of equal names in one object the last counts. A digest is made in one pass
//! over the text and without a tree: of a value that is open it takes a few words, and of an object that is open
//! 40 bytes for each name.
//!
//! 1. A string, a number and a literal are hashed in their canonical form.
//! 2. An array is the hash of the digests of its items, in their order.
//! 3. An object is the hash of a sum: of the hash of each name's and value's digests. A sum has no order, and
//!    while its terms are keyed hashes that nobody outside sees, nobody can make two sums equal.

#[cfg(test)]
mod tests;

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

use super::decimal::write_canonical;
use super::payload::{check_surrogates, code_unit, has_escape, string_at};

/// Makes digests with a secret. Those of two secrets cannot be compared.
#[derive(Clone)]
pub struct PayloadHasher(SipHasher13);

/// The digest of a payload, 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadDigest(u128);

/// What is hashed, so that no value has the digest of one of another kind.
#[derive(Clone, Copy)]
enum Kind {
    Literal = 1,
    Number,
    String,
    Array,
    Object,
    Member,
}

/// A value that is not read to its end.
enum Open {
    Array {
        items: SipHasher13,
        count: u64,
    },
    /// Its members are those of [`Digesting::members`] from `first` on. `name` waits for its value.
    Object {
        first: usize,
        name: Option<u128>,
    },
}

/// A member of an object that is open: the digests of its name and value, and its place in the object.
/// In halves, so that it has 40 bytes and not 48.
struct Member {
    name: [u64; 2],
    value: [u64; 2],
    place: u32,
}

/// One pass over a text.
struct Digesting<'a, C> {
    hasher: &'a PayloadHasher,
    json: &'a str,
    at: usize,
    open: Vec<Open>,
    members: Vec<Member>,
    charge: C,
}

impl PayloadHasher {
    /// With this secret, which nobody who sends payloads may know.
    #[must_use]
    pub fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(secret))
    }

    /// The digest of a payload, which must be one valid JSON value. `charge` is told of the bytes that are taken
    /// for it, before they are; all of them are free again when this returns.
    pub fn digest(&self, json: &str, charge: impl FnMut(usize)) -> PayloadDigest {
        let (open, members) = (Vec::new(), Vec::new());
        PayloadDigest(Digesting { hasher: self, json, at: 0, open, members, charge }.run())
    }

    fn start(&self, kind: Kind) -> SipHasher13 {
        let mut hasher = self.0;
        hasher.write(&[kind as u8]);
        hasher
    }

    fn number(&self, number: &str) -> u128 {
        let mut hasher = self.start(Kind::Number);
        write_canonical(number, &mut |bytes| hasher.write(bytes));
        hasher.finish128().as_u128()
    }

    /// The digest of a string literal, quotes included. One with a lone surrogate, which no request may have, is
    /// no text: it counts as it is written.
    fn string(&self, literal: &str) -> u128 {
        let mut hasher = self.start(Kind::String);
        let text = &literal[1..literal.len() - 1];
        if has_escape(text) && check_surrogates(literal).is_ok() {
            unescape(text, &mut |bytes| hasher.write(bytes));
        } else {
            hasher.write(text.as_bytes());
        }
        hasher.finish128().as_u128()
    }

    fn literal(&self, literal: &str) -> u128 {
        let mut hasher = self.start(Kind::Literal);
        hasher.write(literal.as_bytes());
        hasher.finish128().as_u128()
    }

    /// The digest of an object with these members, in the order in which they came.
    fn object(&self, members: &mut [Member]) -> u128 {
        members.sort_unstable_by_key(|member| (member.name, member.place));
        let (mut sum, mut count) = (0_u128, 0_u64);
        for same_name in members.chunk_by(|one, next| one.name == next.name) {
            if let Some(last) = same_name.last() {
                let mut term = self.start(Kind::Member);
                last.name.into_iter().chain(last.value).for_each(|half| term.write(&half.to_le_bytes()));
                sum = sum.wrapping_add(term.finish128().as_u128());
                count += 1;
            }
        }
        let mut hasher = self.start(Kind::Object);
        hasher.write(&sum.to_le_bytes());
        hasher.write(&count.to_le_bytes());
        hasher.finish128().as_u128()
    }
}

impl<C: FnMut(usize)> Digesting<'_, C> {
    fn run(mut self) -> u128 {
        loop {
            let value = match self.next_mark() {
                Some(b'{') => {
                    self.open(Open::Object { first: self.members.len(), name: None });
                    continue;
                }
                Some(b'[') => {
                    self.open(Open::Array { items: self.hasher.start(Kind::Array), count: 0 });
                    continue;
                }
                Some(b'}' | b']') => self.close(),
                Some(b'"') => self.string(),
                Some(_) => self.scalar(),
                // The text was no value.
                None => return 0,
            };
            if let Some(whole) = self.place(value) {
                return whole;
            }
        }
    }

    /// The next byte that begins or ends a value. Brackets are passed, and so are commas and colons: in valid JSON
    /// they follow from what stands around them.
    fn next_mark(&mut self) -> Option<u8> {
        let is_mark = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':');
        self.at += self.json.as_bytes()[self.at..].iter().position(is_mark)?;
        let mark = self.json.as_bytes()[self.at];
        if matches!(mark, b'{' | b'}' | b'[' | b']') {
            self.at += 1;
        }
        Some(mark)
    }

    fn open(&mut self, value: Open) {
        grow(&mut self.open, &mut self.charge);
        self.open.push(value);
    }

    fn close(&mut self) -> u128 {
        match self.open.pop() {
            Some(Open::Array { mut items, count }) => {
                items.write(&count.to_le_bytes());
                items.finish128().as_u128()
            }
            Some(Open::Object { first, .. }) => {
                let digest = self.hasher.object(&mut self.members[first..]);
                self.members.truncate(first);
                digest
            }
            None => 0,
        }
    }

    fn string(&mut self) -> u128 {
        let literal = string_at(self.json, self.at);
        self.at += literal.len();
        self.hasher.string(literal)
    }

    fn scalar(&mut self) -> u128 {
        let rest = &self.json[self.at..];
        let is_end = |byte: u8| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace();
        let scalar = &rest[..rest.bytes().position(is_end).unwrap_or(rest.len())];
        self.at += scalar.len();
        match scalar {
            "true" | "false" | "null" => self.hasher.literal(scalar),
            number => self.hasher.number(number),
        }
    }

    /// Puts a value in its place; gives it back where it is the whole.
    fn place(&mut self, value: u128) -> Option<u128> {
        match self.open.last_mut() {
            None => return Some(value),
            Some(Open::Array { items, count }) => {
                items.write(&value.to_le_bytes());
                *count += 1;
            }
            Some(Open::Object { first, name }) => match name.take() {
                None => *name = Some(value),
                Some(name) => {
                    // An event has fewer than 2^32 bytes.
                    let place = u32::try_from(self.members.len() - *first).unwrap_or(u32::MAX);
                    grow(&mut self.members, &mut self.charge);
                    self.members.push(Member { name: halves(name), value: halves(value), place });
                }
            },
        }
        None
    }
}

fn halves(digest: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken")]
    let halves = [digest as u64, (digest >> 64) as u64];
    halves
}

/// Makes room for one more, by half of what there is, and says so before.
fn grow<T>(stack: &mut Vec<T>, charge: &mut impl FnMut(usize)) {
    const FIRST: usize = 16;
    if stack.len() == stack.capacity() {
        let more = (stack.len() / 2).max(FIRST);
        charge(more * size_of::<T>());
        stack.reserve_exact(more);
    }
}

/// Writes the text of a string without its escapes, of which none is a lone surrogate.
fn unescape(text: &str, write: &mut impl FnMut(&[u8])) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        write(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let (character, length) = match (code_unit(rest), rest.as_bytes().get(1)) {
            (Some(high @ 0xD800..=0xDBFF), _) => {
                let low = rest.get(6..).and_then(code_unit).unwrap_or_default();
                let pair = char::decode_utf16([high, low]).next().and_then(Result::ok);
                (pair.unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            (Some(unit), _) => (char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
            (None, Some(b'b')) => ('\u{8}', 2),
            (None, Some(b'f')) => ('\u{c}', 2),
            (None, Some(b'n')) => ('\n', 2),
            (None, Some(b'r')) => ('\r', 2),
            (None, Some(b't')) => ('\t', 2),
            (None, Some(other)) => (char::from(*other), 2),
            (None, None) => break,
        };
        write(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = rest.get(length..).unwrap_or_default();
    }
    write(rest.as_bytes());
}
