//! Reads JSON as tokens have it, in over 2,000 instructions less than the general reader takes for one.
//!
//! It knows no escapes, no white space but spaces, and no numbers but short whole ones: what most
//! providers write. Whatever else it meets, it gives up, and the general reader has the only say. So
//! all that could be wrong here is to take something otherwise than that reader does: the tests
//! compare the two.

use super::{Kind, MAX_DEPTH, Name, Span, Tree, fingerprint};

/// Whole numbers of so many digits are exact as [`f64`].
const MAX_DIGITS: usize = 15;

/// Reads the text as the general reader would, or gives up half-way: then that reader has to be asked.
pub(super) fn read(text: &str) -> Option<Box<Tree>> {
    // One look at all octets, many at a time, and none later at those within strings.
    let is_special = |octet| u8::from(octet < b' ' || octet == b'\\');
    if text.bytes().fold(0, |any, octet| any | is_special(octet)) != 0 {
        return None;
    }
    let mut reader = Reader { text, at: 0, tree: Tree::new() };
    match reader.next()? {
        b'{' => reader.object(Name::NONE, 0)?,
        _ => return None,
    }
    reader.next().is_none().then_some(reader.tree)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tree: Box<Tree>,
}

impl Reader<'_> {
    /// The next octet that is no space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            let octet = *self.text.as_bytes().get(self.at)?;
            self.at += 1;
            if octet != b' ' {
                return Some(octet);
            }
        }
    }

    fn value(&mut self, first: u8, name: Name, depth: usize) -> Option<()> {
        let kind = match first {
            b'"' => Kind::Text(self.string()?),
            b'0'..=b'9' => Kind::Number(self.number(first)?),
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

    /// What stands behind an opening brace.
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

    /// What stands behind an opening bracket.
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

    /// What stands behind an opening quotation mark, up to the closing one.
    #[inline]
    fn string(&mut self) -> Option<Span> {
        let start = self.at;
        let end = start + quotation_mark(self.text.as_bytes().get(start..)?)?;
        self.at = end + 1;
        Some(Span::between(start, end))
    }

    #[inline]
    fn name(&mut self) -> Option<Name> {
        let span = self.string()?;
        let tag = fingerprint(self.text.as_bytes().get(span.range())?);
        Some(Name { span, tag })
    }

    /// A fraction or an exponent is left, and nobody knows what to do with it.
    #[inline]
    fn number(&mut self, first: u8) -> Option<f64> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit());
        let (mut number, mut count) = (u64::from(first - b'0'), 1);
        for digit in digits.take(MAX_DIGITS) {
            number = number * 10 + u64::from(digit - b'0');
            count += 1;
        }
        self.at += count - 1;
        let is_long = count > MAX_DIGITS || (first == b'0' && count > 1);
        (!is_long).then_some(number as f64)
    }

    fn word(&mut self, rest: &str, kind: Kind) -> Option<Kind> {
        let end = self.at + rest.len();
        let is_there = self.text.as_bytes().get(self.at..end)? == rest.as_bytes();
        self.at = end;
        is_there.then_some(kind)
    }
}

/// Where the first quotation mark stands. What stands between two is short in tokens, so that calling
/// `memchr` takes longer than to look at eight octets at a time.
#[inline]
fn quotation_mark(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (eights, rest) = text.as_chunks();
    for (nth, eight) in eights.iter().enumerate() {
        let differing = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b'"'));
        // The lowest bit set is the top of the first octet that differs in nothing.
        let same = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
        if same != 0 {
            return Some(nth * 8 + same.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|octet| *octet == b'"')?;
    Some(eights.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::general;

    fn plain(text: &str) -> Option<String> {
        read(text).map(|tree| format!("{tree:?}"))
    }

    /// Both readers of one text, as far as there is something to tell.
    fn both(text: &str) -> (Option<String>, Option<String>) {
        (plain(text), general::read(text).map(|tree| format!("{tree:?}")))
    }

    #[test]
    fn what_tokens_are_made_of_is_read_without_the_general_reader() {
        for text in [
            r#"{}"#,
            r#"{"iss":"https://scaikey.example","aud":["a","b"],"exp":1700000000,"mfa":true}"#,
            r#" { "sub" : "é" , "act" : { "sub" : "" } , "n" : null , "no" : false , "z" : [ ] } "#,
            r#"{"n":0,"m":999999999999999,"deep":[[[[{"a":[]}]]]]}"#,
        ] {
            let (plain, general) = both(text);
            assert_eq!(plain, general, "{text}");
            assert!(plain.is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_general_reader() {
        for value in [
            "01",
            "-1",
            "1.5",
            "1e3",
            "1E3",
            "1000000000000000",
            "+1",
            "0x1",
            "1_0",
            "tru",
            "truex",
            "nul",
            "\"\\u0061\"",
            "\"\\\"",
            "\"\n\"",
            "\t1",
            "\"",
            "'a'",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "1}",
            "1,",
            "1,2",
            "1]",
            "\u{a0}1",
            "\u{feff}1",
            "",
            " ",
            "NaN",
        ] {
            assert!(plain(&format!("{{\"a\":{value}}}")).is_none(), "{value}");
        }
        for text in ["", "[]", "1", "\"a\"", "{} {}", "{}x", "{", "\u{feff}{}"] {
            assert!(plain(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_first_quotation_mark_is_found_wherever_it_stands() {
        for length in 0..40 {
            for around in [b'!', b'#', 0, 0x7f, 0x80, 0xa2, 0xff, b'a'] {
                let mut text = vec![around; length];
                assert_eq!(quotation_mark(&text), None, "{around} × {length}");
                for at in (0..length).rev() {
                    text[at] = b'"';
                    assert_eq!(quotation_mark(&text), Some(at), "{around} × {length}");
                }
            }
        }
    }

    /// Pieces that make JSON, nearly JSON, and what looks like it.
    fn pieces() -> impl Strategy<Value = String> {
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

    /// Well-formed, in spellings that providers use.
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

    /// The general reader, and the library that everybody uses, with numbers as that one rounds them.
    fn general_and_library(text: &str) -> (Option<serde_json::Value>, Option<serde_json::Value>) {
        fn rounded(value: serde_json::Value) -> serde_json::Value {
            use serde_json::Value;
            match value {
                // The library's last digit may differ: one of a few bits.
                Value::Number(number) => number.as_f64().map(|number| number as f32).into(),
                Value::Array(items) => items.into_iter().map(rounded).collect(),
                Value::Object(members) => {
                    members.into_iter().map(|(name, value)| (name, rounded(value))).collect()
                }
                other => other,
            }
        }
        let library: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let library = library.filter(serde_json::Value::is_object);
        (general::tests::shown(text).map(rounded), library.map(rounded))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_read_is_what_the_general_reader_reads(text in pieces()) {
            let (plain, general) = both(&text);
            prop_assert!(plain.is_none() || plain == general, "{text:?}: {plain:?} {general:?}");
            let (general, library) = general_and_library(&text);
            prop_assert_eq!(general, library, "{:?}", text);
        }

        #[test]
        fn well_formed_texts_are_read_alike(inner in value(4), cut in any::<prop::sample::Index>()) {
            let text = format!("{{\"claims\":{inner}}}");
            let (plain, general) = both(&text);
            prop_assert!(general.is_some());
            let (shown, library) = general_and_library(&text);
            prop_assert_eq!(shown, library, "{:?}", text);
            prop_assert!(plain.is_none() || plain == general, "{text:?}: {plain:?} {general:?}");
            let end = (0..=cut.index(text.len())).rfind(|end| text.is_char_boundary(*end)).unwrap();
            prop_assert!(both(&text[..end]).0.is_none());
        }
    }
}
