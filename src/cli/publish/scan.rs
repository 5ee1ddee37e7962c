//! Where a JSON value ends, byte by byte and in constant memory but for its depth. Structure is checked,
//! because a value that was cut off is known by it; what scalars hold is left to the server.

/// What a byte means for the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It belongs to the value, which goes on.
    More,
    /// It is the last one of the value.
    Last,
    /// The value ended before it.
    After,
    /// It cannot stand here.
    Wrong(&'static str),
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text { is_key: bool, escaped: bool },
    Scalar,
}

/// Reads one value.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// What is open: objects are true, lists are false.
    open: Vec<bool>,
}

impl Scanner {
    /// Before the first byte of a value.
    pub(super) fn new() -> Self {
        Self { state: State::Value, open: Vec::new() }
    }

    /// Within an object, before the name of a member.
    pub(super) fn within_object() -> Self {
        Self { state: State::Key, open: vec![true] }
    }

    /// How many objects and lists are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match self.state {
            State::Text { is_key, escaped } => return self.text(byte, is_key, escaped),
            State::Scalar if is_scalar(byte) => return Step::More,
            State::Scalar if self.open.is_empty() => return Step::After,
            State::Scalar => self.state = State::CommaOrEnd,
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Step::More;
        }
        match (self.state, byte) {
            (State::Value | State::ValueOrEnd, b'{') => self.begin(true),
            (State::Value | State::ValueOrEnd, b'[') => self.begin(false),
            (State::Value | State::ValueOrEnd, b'"') => {
                self.go(State::Text { is_key: false, escaped: false })
            }
            (State::Value | State::ValueOrEnd, first) if is_scalar(first) => self.go(State::Scalar),
            (State::Key | State::KeyOrEnd, b'"') => self.go(State::Text { is_key: true, escaped: false }),
            (State::CommaOrEnd, b',') if self.is_in_object() => self.go(State::Key),
            (State::CommaOrEnd, b',') | (State::Colon, b':') => self.go(State::Value),
            (State::CommaOrEnd | State::KeyOrEnd, b'}') if self.is_in_object() => self.end(),
            (State::CommaOrEnd | State::ValueOrEnd, b']') if !self.is_in_object() => self.end(),
            (state, _) => Step::Wrong(self.expected(state)),
        }
    }

    fn text(&mut self, byte: u8, is_key: bool, escaped: bool) -> Step {
        match byte {
            0..0x20 => return Step::Wrong("a control character within a string"),
            b'"' if !escaped && is_key => self.state = State::Colon,
            b'"' if !escaped && self.open.is_empty() => return Step::Last,
            b'"' if !escaped => self.state = State::CommaOrEnd,
            _ => self.state = State::Text { is_key, escaped: byte == b'\\' && !escaped },
        }
        Step::More
    }

    fn go(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    fn begin(&mut self, is_object: bool) -> Step {
        self.open.push(is_object);
        self.go(if is_object { State::KeyOrEnd } else { State::ValueOrEnd })
    }

    fn end(&mut self) -> Step {
        self.open.pop();
        self.state = State::CommaOrEnd;
        if self.open.is_empty() { Step::Last } else { Step::More }
    }

    fn is_in_object(&self) -> bool {
        self.open.last() == Some(&true)
    }

    fn expected(&self, state: State) -> &'static str {
        match state {
            State::Key | State::KeyOrEnd => "expected a name in double quotes",
            State::Colon => "expected `:`",
            State::CommaOrEnd if self.is_in_object() => "expected `,` or `}`",
            State::CommaOrEnd => "expected `,` or `]`",
            _ => "expected value",
        }
    }
}

/// Whether a byte may stand in a number, true, false or null; more than that is the server's to check.
fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes the value has, or where and why it is wrong.
    fn scan(text: &str) -> Result<usize, (usize, &'static str)> {
        let mut scanner = Scanner::new();
        for (at, byte) in text.bytes().enumerate() {
            match scanner.step(byte) {
                Step::More => {}
                Step::Last => return Ok(at + 1),
                Step::After => return Ok(at),
                Step::Wrong(why) => return Err((at, why)),
            }
        }
        Err((text.len(), "the end"))
    }

    #[test]
    fn a_value_ends_where_json_says() {
        for (text, length) in [
            ("{}{}", 2),
            (r#"{"a":[1,{"b":"}]\"\\"}],"c":null} x"#, 33),
            ("[ ]1", 3),
            ("12 ", 2),
            ("-1.5e+3,", 7),
            ("true]", 4),
            (r#""a\"b" "#, 6),
        ] {
            assert_eq!(scan(text), Ok(length), "{text}");
        }
    }

    #[test]
    fn what_cannot_stand_is_found_at_its_byte() {
        for (text, at, why) in [
            ("{\"a\":1{", 6, "expected `,` or `}`"),
            ("[1 2", 3, "expected `,` or `]`"),
            ("{\"a\":}", 5, "expected value"),
            ("{\"a\"}", 4, "expected `:`"),
            ("{'a'", 1, "expected a name in double quotes"),
            ("{\"a\":1,}", 7, "expected a name in double quotes"),
            ("[1,]", 3, "expected value"),
            ("[1}", 2, "expected `,` or `]`"),
            ("{\"a\":1]", 6, "expected `,` or `}`"),
            ("{\"a\":\"x\ny\"}", 7, "a control character within a string"),
            ("{\"a\":[", 6, "the end"),
        ] {
            assert_eq!(scan(text), Err((at, why)), "{text}");
        }
    }

    proptest! {
        /// What serde_json takes for a value ends where it says, whatever follows.
        #[test]
        fn every_valid_value_is_whole(value in any_json(3), rest in "[ \n{}\\[\\],x\"]{0,3}") {
            let text = format!("[{value}]");
            prop_assert_eq!(scan(&format!("{text}{rest}")), Ok(text.len()));
        }
    }

    fn any_json(depth: u32) -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(depth, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }
}
