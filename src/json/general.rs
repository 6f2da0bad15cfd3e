//! Reads all JSON there is, to the letter of RFC 8259.
//!
//! By itself: what a JSON library makes of a number depends on features that any other crate of a program
//! may switch on (`serde_json/arbitrary_precision` makes an object of it), and a token that was good must
//! stay good.

use super::{Kind, MAX_DEPTH, Name, Node, Span, Tree, fingerprint};

/// `None` for what is not one object.
pub(super) fn read(text: &str) -> Option<Box<Tree>> {
    let mut reader = Reader { text, at: 0, tree: Tree::new() };
    let first = reader.next()?;
    reader.value(first, Name::NONE, 0)?;
    let is_read = reader.next().is_none();
    let is_object = matches!(reader.tree.nodes.first(), Some(Node { kind: Kind::Object, .. }));
    (is_read && is_object).then_some(reader.tree)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tree: Box<Tree>,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte that is no white space (§2).
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

    /// What stands behind an opening brace (§4).
    fn object(&mut self, name: Name, depth: usize) -> Option<()> {
        let opened = self.open(name, Kind::Object, depth)?;
        let mut count = 0;
        let mut next = self.next()?;
        if next != b'}' {
            loop {
                if next != b'"' {
                    return None;
                }
                let name = self.name()?;
                self.tree.note(self.text, opened, count, name);
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
        self.tree.close_object(self.text, opened, count);
        Some(())
    }

    /// What stands behind an opening bracket (§5).
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
        self.tree.close(opened);
        Some(())
    }

    fn open(&mut self, name: Name, kind: Kind, depth: usize) -> Option<u32> {
        (depth < MAX_DEPTH).then(|| self.tree.push(name, kind))
    }

    fn word(&mut self, rest: &str, kind: Kind) -> Option<Kind> {
        let end = self.at + rest.len();
        let is_there = self.text.as_bytes().get(self.at..end)? == rest.as_bytes();
        self.at = end;
        is_there.then_some(kind)
    }

    fn name(&mut self) -> Option<Name> {
        let span = self.string()?;
        let tag = fingerprint(self.tree.octets(self.text, span));
        Some(Name { span, tag })
    }

    /// A number of which one byte was read (§6). One that is too large for an `f64` is refused.
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

    /// Steps over the next byte, if it is one of these.
    fn skip(&mut self, these: &[u8]) -> bool {
        let is_there = self.text.as_bytes().get(self.at).is_some_and(|byte| these.contains(byte));
        self.at += usize::from(is_there);
        is_there
    }

    /// Steps over digits and counts them.
    fn digits(&mut self) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// What stands behind an opening quotation mark, up to the closing one (§7).
    fn string(&mut self) -> Option<Span> {
        let start = self.at;
        let plain = self.plain()?;
        if self.byte()? == b'"' {
            return Some(Span::between(start, self.at - 1));
        }
        let mut unescaped = plain.to_owned();
        loop {
            unescaped.push(self.escaped()?);
            unescaped.push_str(self.plain()?);
            if self.byte()? == b'"' {
                return Some(self.tree.add_unescaped(self.text, &unescaped));
            }
        }
    }

    /// The characters up to a quotation mark or a backslash. A control character is refused.
    fn plain(&mut self) -> Option<&'a str> {
        let start = self.at;
        let rest = self.text.as_bytes().get(start..)?;
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..b' '))?;
        self.at += length;
        let is_control = rest.get(length).is_none_or(|byte| *byte < b' ');
        if is_control { None } else { self.text.get(start..self.at) }
    }

    /// The character that stands behind a backslash.
    fn escaped(&mut self) -> Option<char> {
        Some(match self.byte()? {
            same @ (b'"' | b'\\' | b'/') => char::from(same),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                let is_first_half = (0xd800..0xdc00).contains(&unit);
                let second = match is_first_half {
                    true if self.skip(b"\\") && self.skip(b"u") => Some(self.unit()?),
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

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| are_digits)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::json::{Document, Value};

    fn number(text: &str) -> Option<f64> {
        let document = Document::parse(format!("{{\"n\":{text}}}")).ok()?;
        document.root().get("n").and_then(Value::as_f64)
    }

    #[test]
    fn numbers_are_read_as_the_rfc_writes_them() {
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
    fn escapes_are_read_as_the_rfc_writes_them() {
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

    /// What this reader reads, as the library that everybody uses would show it.
    pub(in crate::json) fn shown(text: &str) -> Option<Json> {
        fn of(value: Value<'_>) -> Json {
            match value.kind() {
                Kind::Null => Json::Null,
                Kind::Bool(truth) => (*truth).into(),
                Kind::Number(number) => (*number).into(),
                Kind::Text(_) => value.as_str().into(),
                Kind::List => value.children().map(of).collect(),
                Kind::Object => {
                    value.children().map(|member| (member.name().to_owned(), of(member))).collect()
                }
            }
        }
        let tree = read(text)?;
        let document = Document { text: text.to_owned(), tree };
        Some(of(document.root()))
    }
}
