//! The strict JSON reader behind everything that arrives from outside: JOSE headers, claims,
//! keys, key sets and provider metadata.
//!
//! It is stricter than RFC 8259 where RFC 8725 asks for it: the text is one object with nothing
//! behind it, no member name occurs twice at any depth, and nesting is bounded. The result is one
//! flat list of nodes that borrow from the text; a value knows where its members end, so stepping
//! over it costs nothing. A small reader takes what most providers write, `serde_json` all the rest.

mod plain;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep objects and lists may nest. Claims of real providers stay below 6.
const MAX_DEPTH: usize = 16;

/// Up to this many members of an object are compared with earlier ones that look like them; all are
/// sorted where there are more, so that a hostile object costs n·log n and not n².
const PAIRWISE: u32 = 32;

/// Why a text was refused. Carries no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not one JSON object, or nested too deep.
    Syntax,
    /// A member name occurs twice in one object.
    Duplicate,
}

/// A parsed text: an object and everything in it.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    nodes: Vec<Node<'a>>,
    /// Strings that are written with escapes, unescaped.
    unescaped: Vec<Box<str>>,
    /// Of the outermost object. Many claims are looked for; this tells at once where one is, or, of
    /// most others, that it is not there.
    outermost: Names,
    /// Whether a name occurs twice in some object.
    repeats: bool,
}

/// Where the members of an object are, by the fingerprints of their names.
#[derive(Debug, Clone, Copy)]
struct Names {
    count: u32,
    /// How many nodes behind the object its first member with a fingerprint stands, or an earlier
    /// member if that is too far for an octet. Zero: there is none.
    first: [u8; 256],
}

impl Names {
    const NONE: Self = Self { count: 0, first: [0; 256] };

    #[inline]
    fn first(&self, tag: u8) -> Option<u32> {
        let distance = *self.first.get(usize::from(tag))?;
        (distance != 0).then_some(u32::from(distance))
    }

    #[inline]
    fn add(&mut self, tag: u8, distance: u32) {
        if let Some(first @ 0) = self.first.get_mut(usize::from(tag)) {
            // Next to the object stands its first member.
            *first = u8::try_from(distance).unwrap_or(1);
        }
        self.count += 1;
    }
}

/// A member name with its fingerprint; nameless are list items and the root.
#[derive(Debug, Clone, Copy)]
struct Name<'a> {
    text: Str<'a>,
    tag: u8,
}

impl<'a> Name<'a> {
    const NONE: Self = Self { text: Str::Plain(""), tag: 0 };

    #[inline]
    fn plain(text: &'a str) -> Self {
        Self { text: Str::Plain(text), tag: fingerprint(text) }
    }
}

/// A string: as it stands in the text, or the place of its unescaped form.
#[derive(Debug, Clone, Copy)]
enum Str<'a> {
    Plain(&'a str),
    Unescaped(u32),
}

#[derive(Debug)]
struct Node<'a> {
    /// The member name; empty for list items and the root.
    name: Str<'a>,
    /// The name's fingerprint, so that most names are told apart without being compared.
    tag: u8,
    kind: Kind<'a>,
    /// Index of the first node behind this one and all its descendants.
    end: u32,
}

#[derive(Debug)]
enum Kind<'a> {
    Null,
    Bool(bool),
    /// All that is ever asked of a number is whether it is a time below 2^53.
    Number(f64),
    Text(Str<'a>),
    List,
    Object,
}

impl<'a> Document<'a> {
    /// Reads one object.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        // Checked once as a whole: the readers would do it string by string, at five times the cost.
        let text = std::str::from_utf8(text).map_err(|_| Fault::Syntax)?;
        let mut document = Self::with_room();
        if plain::read(text, &mut document).is_none() {
            document = Self::with_room();
            document.read(text)?;
        }
        if document.repeats { Err(Fault::Duplicate) } else { Ok(document) }
    }

    fn with_room() -> Self {
        // What a usual token needs, in 1 KiB: allocators hand out larger blocks more slowly.
        Self {
            nodes: Vec::with_capacity(21),
            unescaped: Vec::new(),
            outermost: Names::NONE,
            repeats: false,
        }
    }

    /// Reads whatever JSON there is.
    fn read(&mut self, text: &'a str) -> Result<(), Fault> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let seed = ValueSeed { document: self, name: Name::NONE, depth: 0 };
        seed.deserialize(&mut reader).map_err(|_| Fault::Syntax)?;
        reader.end().map_err(|_| Fault::Syntax)?;
        match self.nodes.first() {
            Some(Node { kind: Kind::Object, .. }) => Ok(()),
            _ => Err(Fault::Syntax),
        }
    }

    /// The object itself.
    pub(crate) fn root(&self) -> Value<'_> {
        Value { document: self, at: 0 }
    }

    /// `u32` counts the nodes of every text below 4 GiB.
    fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    fn text<'s>(&'s self, string: &Str<'s>) -> &'s str {
        match *string {
            Str::Plain(text) => text,
            Str::Unescaped(at) => self.unescaped.get(at as usize).map_or("", |text| text),
        }
    }

    fn unescape(&mut self, text: &str) -> Str<'a> {
        self.unescaped.push(text.into());
        Str::Unescaped(self.unescaped.len() as u32 - 1)
    }

    #[inline]
    fn push(&mut self, name: Name<'a>, kind: Kind<'a>) -> u32 {
        let at = self.len();
        self.nodes.push(Node { name: name.text, tag: name.tag, kind, end: at + 1 });
        at
    }

    /// Notes a member that comes next in the object that was `opened`.
    #[inline]
    fn note(&mut self, opened: u32, names: &mut Names, name: &Name<'a>) {
        if names.count < PAIRWISE
            && let Some(distance) = names.first(name.tag)
        {
            let earlier = (opened + distance)..self.len();
            self.repeats |= self.find(self.text(&name.text), name.tag, earlier).is_some();
        }
        names.add(name.tag, self.len() - opened);
    }

    /// The member called `name` among those that stand in a row there.
    fn find(&self, name: &str, tag: u8, among: Range<u32>) -> Option<u32> {
        let mut at = among.start;
        while at < among.end {
            let node = self.nodes.get(at as usize)?;
            if node.tag == tag && self.text(&node.name) == name {
                return Some(at);
            }
            at = node.end;
        }
        None
    }

    fn close(&mut self, opened: u32) {
        let end = self.len();
        if let Some(node) = self.nodes.get_mut(opened as usize) {
            node.end = end;
        }
    }

    fn close_object(&mut self, opened: u32, names: &Names) {
        self.close(opened);
        if opened == 0 {
            self.outermost = *names;
        }
        if names.count > PAIRWISE {
            self.repeats |= Value { document: self, at: opened }.members_repeat();
        }
    }
}

/// One value inside a [`Document`].
#[derive(Clone, Copy)]
pub(crate) struct Value<'d> {
    document: &'d Document<'d>,
    at: u32,
}

impl<'d> Value<'d> {
    fn node(self) -> Option<&'d Node<'d>> {
        self.document.nodes.get(self.at as usize)
    }

    fn kind(self) -> &'d Kind<'d> {
        self.node().map_or(&Kind::Null, |node| &node.kind)
    }

    /// The member called `name`, if this is an object that has it.
    #[inline]
    pub(crate) fn get(self, name: &str) -> Option<Value<'d>> {
        let tag = fingerprint(name);
        let distance = if self.at == 0 { self.document.outermost.first(tag)? } else { 1 };
        let object = self.node().filter(|_| self.is_object())?;
        let at = self.document.find(name, tag, self.at + distance..object.end)?;
        Some(Value { document: self.document, at })
    }

    /// The value an RFC 6901 pointer, split into its reference tokens, leads to.
    #[inline]
    pub(crate) fn follow(self, path: &[Box<str>]) -> Option<Value<'d>> {
        match path {
            // Nearly all paths are a name, and the outermost value is an object.
            [name] if self.at == 0 => self.get(name),
            path => self.follow_steps(path),
        }
    }

    fn follow_steps(self, path: &[Box<str>]) -> Option<Value<'d>> {
        path.iter().try_fold(self, |value, step| match value.kind() {
            Kind::Object => value.get(step),
            Kind::List => value.children().nth(step.parse().ok()?),
            _ => None,
        })
    }

    /// The items of a list or the members of an object, in the order sent.
    pub(crate) fn children(self) -> impl Iterator<Item = Value<'d>> {
        let end = self.node().map_or(self.at, |node| node.end);
        let document = self.document;
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let child = Value { document, at };
            (at < end).then(|| {
                at = child.node().map_or(end, |node| node.end);
                child
            })
        })
    }

    /// The member name this value stands under.
    pub(crate) fn name(self) -> &'d str {
        self.node().map_or("", |node| self.document.text(&node.name))
    }

    pub(crate) fn as_str(self) -> Option<&'d str> {
        match self.kind() {
            Kind::Text(text) => Some(self.document.text(text)),
            _ => None,
        }
    }

    pub(crate) fn as_f64(self) -> Option<f64> {
        match self.kind() {
            Kind::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn as_bool(self) -> Option<bool> {
        match self.kind() {
            Kind::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    pub(crate) fn is_list(self) -> bool {
        matches!(self.kind(), Kind::List)
    }

    pub(crate) fn is_object(self) -> bool {
        matches!(self.kind(), Kind::Object)
    }

    pub(crate) fn is_null(self) -> bool {
        matches!(self.kind(), Kind::Null)
    }

    fn members_repeat(self) -> bool {
        let mut names: Vec<&str> = self.children().map(Value::name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
    }
}

/// Equal for equal names; by length and outer bytes.
#[inline]
fn fingerprint(name: &str) -> u8 {
    let name = name.as_bytes();
    let outer =
        name.first().zip(name.last()).map_or(0, |(a, b)| a.wrapping_mul(5).wrapping_add(*b));
    outer.wrapping_add((name.len() as u8).wrapping_mul(11))
}

/// Appends one value and its descendants to the list of nodes.
struct ValueSeed<'n, 'a> {
    document: &'n mut Document<'a>,
    name: Name<'a>,
    depth: usize,
}

impl<'a> ValueSeed<'_, 'a> {
    fn leaf<E>(self, kind: Kind<'a>) -> Result<(), E> {
        self.document.push(self.name, kind);
        Ok(())
    }

    fn open<E: Error>(&mut self, kind: Kind<'a>) -> Result<u32, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(self.document.push(self.name, kind))
    }

    fn member(&mut self, name: Name<'a>) -> ValueSeed<'_, 'a> {
        ValueSeed { document: self.document, name, depth: self.depth + 1 }
    }
}

impl<'a> DeserializeSeed<'a> for ValueSeed<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for ValueSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.leaf(Kind::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.leaf(Kind::Bool(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.leaf(Kind::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.leaf(Kind::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.leaf(Kind::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.leaf(Kind::Text(Str::Plain(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let text = self.document.unescape(text);
        self.leaf(Kind::Text(text))
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
        let opened = self.open(Kind::List)?;
        while items.next_element_seed(self.member(Name::NONE))?.is_some() {}
        self.document.close(opened);
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
        let opened = self.open(Kind::Object)?;
        let mut names = Names::NONE;
        while let Some(name) = members.next_key_seed(NameSeed)? {
            let name = match name {
                Cow::Borrowed(name) => Name::plain(name),
                Cow::Owned(name) => {
                    Name { tag: fingerprint(&name), text: self.document.unescape(&name) }
                }
            };
            self.document.note(opened, &mut names, &name);
            members.next_value_seed(self.member(name))?;
        }
        self.document.close_object(opened, &names);
        Ok(())
    }
}

/// Reads a member name, borrowed from the text unless it is written with escapes.
struct NameSeed;

impl<'a> DeserializeSeed<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Cow<'a, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> Option<Fault> {
        Document::parse(text).err()
    }

    #[test]
    fn only_one_well_formed_object_is_read() {
        for text in ["", "[]", "1", "null", "\"a\"", "{}x", "{} {}", "{", "\u{feff}{}", "{\"a\":}"]
        {
            assert_eq!(fault(text.as_bytes()), Some(Fault::Syntax), "{text}");
        }
        assert_eq!(fault(b"{\"a\":\"\xff\"}"), Some(Fault::Syntax), "invalid UTF-8");
        assert_eq!(fault(b"{\"a\":1e999}"), Some(Fault::Syntax), "not finite");
        assert_eq!(fault(b" {\"a\" : 1} \n"), None, "white space around is JSON");
    }

    #[test]
    fn a_name_written_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"sub":"a","s\u0075b":"b"}"#,
            r#"{"a":[{"b":{"c":1,"c":1}}]}"#,
        ] {
            assert_eq!(fault(text.as_bytes()), Some(Fault::Duplicate), "{text}");
        }
        let many: Vec<String> = (0..500).map(|n| format!("\"m{n}\":{n}")).collect();
        assert_eq!(fault(format!("{{{}}}", many.join(",")).as_bytes()), None);
        let twice = format!("{{{},\"m7\":0}}", many.join(","));
        assert_eq!(fault(twice.as_bytes()), Some(Fault::Duplicate));
        // The last name is that of the first, of one in the middle, or of its neighbour, in objects
        // on both sides of the border between two ways to look.
        for count in (1..5).chain(PAIRWISE as usize - 2..PAIRWISE as usize + 3) {
            for of in [0, count / 2, count - 1] {
                for text in [
                    format!("{{{},\"m{of}\":0}}", many[..count].join(",")),
                    format!("{{\"x\":{{{},\"m{of}\":0}}}}", many[..count].join(",")),
                    format!("{{{},\"\\u006d{of}\":0}}", many[..count].join(",")),
                ] {
                    assert_eq!(fault(text.as_bytes()), Some(Fault::Duplicate), "{text}");
                }
            }
            assert_eq!(fault(format!("{{{}}}", many[..=count].join(",")).as_bytes()), None);
        }
        let inside = r#"{"a":{"b":1},"b":{"a":1},"c":[{"a":1},{"a":1}]}"#;
        assert_eq!(fault(inside.as_bytes()), None, "the same name in different objects");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(fault(nested(MAX_DEPTH).as_bytes()), None);
        assert_eq!(fault(nested(MAX_DEPTH + 1).as_bytes()), Some(Fault::Syntax));
        assert_eq!(fault("[".repeat(100_000).as_bytes()), Some(Fault::Syntax));
    }

    #[test]
    fn values_are_found_by_name_and_by_pointer() {
        let text = br#"{"a":{"b":["x","y"],"c":null},"d":true,"e":1.5,"f":"\u0041"}"#;
        let document = Document::parse(text).unwrap();
        let root = document.root();
        let path: Vec<Box<str>> = ["a", "b", "1"].map(Box::from).into();
        assert_eq!(root.follow(&path).and_then(Value::as_str), Some("y"));
        assert_eq!(root.get("d").and_then(Value::as_bool), Some(true));
        assert_eq!(root.get("e").and_then(Value::as_f64), Some(1.5));
        assert_eq!(root.get("f").and_then(Value::as_str), Some("A"));
        assert!(root.get("a").and_then(|a| a.get("c")).is_some_and(Value::is_null));
        assert!(root.get("b").is_none(), "members of members are not members");
        assert_eq!(root.children().map(Value::name).collect::<Vec<_>>(), ["a", "d", "e", "f"]);
    }

    #[test]
    fn every_member_of_a_large_object_is_found() {
        // More than an octet counts, of all lengths, and many that look alike.
        let names: Vec<String> = (0..600).map(|n| format!("{}m{n}", "-".repeat(n % 7))).collect();
        let member = |(n, name): (usize, &String)| format!("\"{name}\":[{n}]");
        let members = names.iter().enumerate().map(member).collect::<Vec<_>>().join(",");
        let text = format!("{{{members},\"inside\":{{{members}}}}}");
        let document = Document::parse(text.as_bytes()).unwrap();
        for object in [document.root(), document.root().get("inside").unwrap()] {
            for (n, name) in names.iter().enumerate() {
                let first = object.get(name).and_then(|list| list.children().next());
                assert_eq!(first.and_then(Value::as_f64), Some(n as f64), "{name}");
            }
            assert!(object.get("m600").is_none() && object.get("").is_none());
        }
    }

    #[test]
    fn a_member_that_is_far_away_is_not_taken_for_one_inside_of_another() {
        // Somewhere around the distance that an octet can still tell.
        for padding in 230..260 {
            let inside = r#""a":0,"b":0,"c":0,"late":"inside","d":0"#;
            let text = format!(
                r#"{{"pad":[{}0],"in":{{{inside}}},"late":"outside"}}"#,
                "0,".repeat(padding)
            );
            let document = Document::parse(text.as_bytes()).unwrap();
            let late = document.root().get("late").and_then(Value::as_str);
            assert_eq!(late, Some("outside"), "{padding}");
        }
    }
}
