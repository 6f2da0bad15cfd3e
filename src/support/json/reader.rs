//! The JSON parser (RFC 8259; the sections below refer to it).
//!
//! It does not use `serde_json`, because another crate of the program may enable features that change how numbers
//! are read (with `arbitrary_precision` a number becomes an object), and valid tokens would be refused.

use super::{Fault, Kind, MAX_DEPTH, MAX_MEMBERS, MAX_PAIRWISE, Name, Span, Tree, name_hash};

/// Reads one object. `has_duplicates` of the tree reports duplicate names.
pub(super) fn read(text: &str) -> Result<Tree, Fault> {
    let mut reader = Reader { text, at: 0, tree: Tree::new(), is_over_limit: false };
    let is_object = reader.next() == Some(b'{');
    let is_read = is_object && reader.object(Name::NONE, 0).is_some() && reader.next().is_none();
    match is_read {
        true => Ok(reader.tree),
        false if reader.is_over_limit => Err(Fault::Limit),
        false => Err(Fault::Syntax),
    }
}

/// Whether a byte of a string stands for itself: every byte but control characters, quotation marks and
/// backslashes.
#[expect(clippy::indexing_slicing, reason = "computed while the crate is compiled")]
const IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ' as usize;
    while byte < plain.len() {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tree: Tree,
    /// Whether reading stopped at a limit, not at a syntax error.
    is_over_limit: bool,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Returns the next byte that is not white space (§2).
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
        }
    }

    fn value(&mut self, first: u8, name: Name, depth: usize) -> Option<()> {
        let kind = match first {
            b'"' => Kind::Text(self.string()?),
            b'-' | b'0'..=b'9' => Kind::Number(self.number()?),
            b'[' => return self.list(name, depth),
            b'{' => return self.object(name, depth),
            b't' => self.word("rue", Kind::Bool(true))?,
            b'f' => self.word("alse", Kind::Bool(false))?,
            b'n' => self.word("ull", Kind::Null)?,
            _ => return None,
        };
        self.tree.push(name, kind);
        Some(())
    }

    /// Reads an object after its opening brace (§4).
    fn object(&mut self, name: Name, depth: usize) -> Option<()> {
        let start = self.at - 1;
        let opened = self.open(name, Kind::Object(Span::EMPTY), depth)?;
        let (mut count, mut tags) = (0, 0);
        let mut next = self.next()?;
        if next != b'}' {
            loop {
                self.check_limit(count < MAX_MEMBERS)?;
                if next != b'"' {
                    return None;
                }
                let name = self.name(opened, count, &mut tags)?;
                count += 1;
                if self.next()? != b':' {
                    return None;
                }
                let first = self.next()?;
                self.value(first, name, depth + 1)?;
                match self.next()? {
                    b',' => next = self.next()?,
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.tree.close(opened, Kind::Object(Span::between(start, self.at)));
        self.tree.has_duplicates |=
            count > MAX_PAIRWISE && self.tree.has_duplicate_members(self.text, opened);
        Some(())
    }

    /// Reads a list after its opening bracket (§5).
    fn list(&mut self, name: Name, depth: usize) -> Option<()> {
        let opened = self.open(name, Kind::List, depth)?;
        let mut next = self.next()?;
        if next != b']' {
            loop {
                self.value(next, Name::NONE, depth + 1)?;
                match self.next()? {
                    b',' => next = self.next()?,
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.tree.close(opened, Kind::List);
        Some(())
    }

    fn open(&mut self, name: Name, kind: Kind, depth: usize) -> Option<u32> {
        self.check_limit(depth < MAX_DEPTH)?;
        Some(self.tree.push(name, kind))
    }

    /// Returns `None`, which stops reading, if a limit is exceeded, and records that.
    fn check_limit(&mut self, is_within: bool) -> Option<()> {
        self.is_over_limit |= !is_within;
        is_within.then_some(())
    }

    fn word(&mut self, rest: &str, kind: Kind) -> Option<Kind> {
        let end = self.at + rest.len();
        let is_there = self.text.as_bytes().get(self.at..end)? == rest.as_bytes();
        self.at = end;
        is_there.then_some(kind)
    }

    /// Reads the name of the next member. `count` is the number of members before it. `tags` is a bit set of
    /// the hashes of their names: a name whose hash is new needs no comparison.
    fn name(&mut self, object: u32, count: u32, tags: &mut u128) -> Option<Name> {
        let span = self.string()?;
        let name = self.tree.string(self.text, span);
        let name_hash = name_hash(name);
        let bit = 1 << (name_hash % 128);
        if *tags & bit != 0 && count < MAX_PAIRWISE {
            let members = object + 1..self.tree.nodes.len() as u32;
            self.tree.has_duplicates |= self.tree.find(self.text, name, members).is_some();
        }
        *tags |= bit;
        Some(Name { name: span, name_hash })
    }

    /// Reads a number after its first byte (§6). A number that is too large for an `f64` is rejected.
    fn number(&mut self) -> Option<f64> {
        let start = self.at - 1;
        self.at = start;
        self.skip(b"-");
        match self.byte()? {
            b'0' => {}
            b'1'..=b'9' => _ = self.digits(),
            _ => return None,
        }
        if self.skip(b".") && self.digits() == 0 {
            return None;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            if self.digits() == 0 {
                return None;
            }
        }
        let number: f64 = self.text.get(start..self.at)?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// Skips the next byte, if it is one of `these`.
    fn skip(&mut self, these: &[u8]) -> bool {
        let is_there = self.text.as_bytes().get(self.at).is_some_and(|byte| these.contains(byte));
        self.at += usize::from(is_there);
        is_there
    }

    /// Skips digits and returns their number.
    fn digits(&mut self) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Reads a string after its opening quotation mark (§7).
    fn string(&mut self) -> Option<Span> {
        let start = self.at;
        if self.skip_plain()? == b'"' {
            return Some(Span::between(start, self.at - 1));
        }
        let mut unescaped = self.text.get(start..self.at - 1)?.to_owned();
        loop {
            unescaped.push(self.escaped()?);
            let start = self.at;
            let end = self.skip_plain()?;
            unescaped.push_str(self.text.get(start..self.at - 1)?);
            if end == b'"' {
                return Some(self.tree.add_unescaped(self.text, &unescaped));
            }
        }
    }

    /// Skips plain characters. Reads and returns the quotation mark or backslash that ends them. A control
    /// character is rejected.
    fn skip_plain(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let is_plain = |byte: &&u8| IS_PLAIN.get(usize::from(**byte)).is_some_and(|is| *is);
        self.at += rest.iter().take_while(is_plain).count();
        self.byte().filter(|end| *end >= b' ')
    }

    /// Reads an escape after its backslash.
    fn escaped(&mut self) -> Option<char> {
        Some(match self.byte()? {
            same @ (b'"' | b'\\' | b'/') => char::from(same),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.code_unit()?;
                let is_first_half = (0xd800..0xdc00).contains(&unit);
                let second = match is_first_half {
                    true if self.skip(b"\\") && self.skip(b"u") => Some(self.code_unit()?),
                    true => return None,
                    false => None,
                };
                let units = [Some(unit), second].into_iter().flatten();
                let mut characters = char::decode_utf16(units);
                let character = characters.next()?.ok()?;
                return characters.next().is_none().then_some(character);
            }
            _ => return None,
        })
    }

    /// Reads the four hexadecimal digits of a UTF-16 code unit.
    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| are_digits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::support::json::{Document, Value};

    fn number(text: &str) -> Option<f64> {
        let document = Document::parse(format!("{{\"n\":{text}}}")).ok()?;
        document.root().get("n").and_then(Value::as_f64)
    }

    #[test]
    fn numbers_follow_the_rfc() {
        let table = [
            ("4000000000.0", 4e9),
            ("4e9", 4e9),
            ("4.0E+9", 4e9),
            ("-0", 0.0),
            ("-1.5e-3", -0.0015),
            ("0.1", 0.1),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("123456789012345678901234567890", 1.234_567_890_123_456_8e29),
        ];
        for (text, expected) in table {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in ["01", "-", "-a", "1.", ".1", "1.e1", "1e", "1e+", "+1", "1e999", "0x1", "1_0"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn escapes_follow_the_rfc() {
        let text = |text: &str| {
            let document = Document::parse(format!("{{\"t\":\"{text}\"}}")).ok()?;
            document.root().get("t").and_then(Value::as_str).map(str::to_owned)
        };
        let all = text(r#"\"\\\/\b\f\n\r\t\u00e9\uD83D\ude00x"#);
        assert_eq!(all.as_deref(), Some("\"\\/\u{8}\u{c}\n\r\té😀x"));
        for refused in
            [r"\u12", r"\u12g4", r"\u+123", r"\ud83d", r"\ud83dx", r"\ud83dA", r"\ude00", r"\x"]
        {
            assert_eq!(text(refused), None, "{refused}");
        }
    }

    /// Returns the result of this reader as a value of `serde_json`.
    fn as_serde_json(text: &str) -> Option<Json> {
        fn of(value: Value<'_>) -> Json {
            match value.kind() {
                Kind::Null => Json::Null,
                Kind::Bool(truth) => (*truth).into(),
                Kind::Number(number) => (*number).into(),
                Kind::Text(_) => value.as_str().into(),
                Kind::List => value.children().map(of).collect(),
                Kind::Object(_) => {
                    value.children().map(|member| (member.name().to_owned(), of(member))).collect()
                }
            }
        }
        let tree = read(text).ok()?;
        let document = Document { text: text.to_owned(), tree };
        Some(of(document.root()))
    }
    /// Generates concatenations of JSON tokens, most of which are not JSON.
    fn almost_json() -> impl Strategy<Value = String> {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"b\":",
            "\"a\":",
            "{\"a\":",
            "0",
            "1",
            "12",
            "-",
            ".",
            "e",
            "E",
            "+",
            "true",
            "false",
            "null",
            "t",
            "n",
            " ",
            "\t",
            "\n",
            "\\",
            "\\u0061",
            "\\\"",
            "é",
            "\u{feff}",
            "\u{2028}",
            "\u{0}",
            "\u{7f}",
            "//",
            "'",
            "}}",
            "]}",
            "[[",
            "{}",
            "[]",
            "99999999999999",
        ];
        let some = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12);
        (some, any::<bool>()).prop_map(|(pieces, inside)| match inside {
            true => format!("{{\"x\":{}}}", pieces.concat()),
            false => pieces.concat(),
        })
    }

    /// Generates well-formed JSON.
    fn value(depth: u32) -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "0",
                "-0",
                "1.25",
                "7e2",
                "18446744073709551616"
            ])
            .prop_map(str::to_owned),
            any::<u64>().prop_map(|number| number.to_string()),
            (0..10_u64.pow(16)).prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
            "[a-z é]{0,40}".prop_map(|text| format!("\"{text}\"")),
        ];
        leaf.prop_recursive(depth, 40, 5, |inner| {
            let members = prop::collection::vec(("[a-c]{0,3}", inner.clone()), 0..5);
            let items = prop::collection::vec(inner, 0..5);
            let comma = prop::sample::select(vec![",", ", ", " ,", ",\n"]);
            prop_oneof![
                (items, comma.clone())
                    .prop_map(|(items, comma)| format!("[{}]", items.join(comma))),
                (members, comma).prop_map(|(members, comma)| {
                    let members: Vec<_> =
                        members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                    format!("{{{}}}", members.join(comma))
                }),
            ]
        })
    }

    /// Returns the results of this reader and of `serde_json`, with rounded numbers.
    fn both(text: &str) -> (Option<Json>, Option<Json>) {
        fn rounded(value: Json) -> Json {
            match value {
                // The last bits may differ.
                Json::Number(number) => number.as_f64().map(|number| number as f32).into(),
                Json::Array(items) => items.into_iter().map(rounded).collect(),
                Json::Object(members) => {
                    members.into_iter().map(|(name, value)| (name, rounded(value))).collect()
                }
                other => other,
            }
        }
        let library: Option<Json> = serde_json::from_str(text).ok();
        (as_serde_json(text).map(rounded), library.filter(Json::is_object).map(rounded))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_reads_like_serde_json(text in almost_json()) {
            let (own, library) = both(&text);
            prop_assert_eq!(own, library, "{:?}", text);
        }

        #[test]
        fn well_formed_text_reads_like_serde_json(inner in value(4), cut in any::<prop::sample::Index>()) {
            let text = format!("{{\"claims\":{inner}}}");
            let (own, library) = both(&text);
            prop_assert!(own.is_some());
            prop_assert_eq!(own, library, "{:?}", text);
            let end = (0..=cut.index(text.len())).rfind(|end| text.is_char_boundary(*end)).unwrap();
            prop_assert!(end == text.len() || as_serde_json(&text[..end]).is_none());
        }
    }
}
