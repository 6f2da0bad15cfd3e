//! A strict JSON reader for all external input: JOSE headers, claims, keys, key sets and provider metadata.
//!
//! It is stricter than RFC 8259, as RFC 8725 requires: the text is one object with nothing after it, no object
//! has two members of the same name, and nesting is bounded. The result is a flat list of nodes. Nodes refer to
//! strings by their place in the text. A node stores the end of its descendants, so that skipping it is cheap.
//!
//! `serde_json` is not used, because a feature that another crate of the program enables could change how it
//! reads numbers.

mod reader;

use std::ops::Range;

/// The maximum depth of nested objects and lists. Claims of real providers stay below 6.
const MAX_DEPTH: usize = 16;

/// The maximum number of members of an object. Real providers send dozens. An attacker chooses the number, and
/// each lookup may have to pass all of them.
const MAX_MEMBERS: u32 = 1024;

/// The number of members up to which duplicates are found by pairwise comparison. The members of a larger object
/// are sorted, so that a hostile object costs n·log n, not n².
const MAX_PAIRWISE: u32 = 32;

/// The reason for rejecting a text. It contains no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The text is not one JSON object.
    Syntax,
    /// The text exceeds [`MAX_DEPTH`], [`MAX_MEMBERS`] or 2 GiB, so the rest was not checked.
    Limit,
    /// A member name occurs twice in one object.
    Duplicate,
}

/// A parsed text: an object and everything in it.
#[derive(Debug)]
pub(crate) struct Document {
    text: String,
    tree: Tree,
}

/// The place of a string in the text. A string with escapes is stored unescaped after the end of the text,
/// and its span is there. The default span stands for no string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Default for Span {
    fn default() -> Self {
        Self { start: 1, end: 0 }
    }
}

impl Span {
    const EMPTY: Self = Self { start: 0, end: 0 };

    /// Creates a span. Its bounds fit into a u32, because texts are shorter than 2 GiB.
    #[inline]
    fn between(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// Appends `value` to `text` and returns its place, or `None` if the place does not fit into a span.
    pub(crate) fn append(text: &mut String, value: &str) -> Option<Self> {
        let start = u32::try_from(text.len()).ok()?;
        text.push_str(value);
        Some(Self { start, end: u32::try_from(text.len()).ok()? })
    }

    #[inline]
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The nodes of a parsed text.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    /// The unescaped form of all strings with escapes, concatenated.
    unescaped: String,
    /// Whether an object has two members of the same name.
    has_duplicates: bool,
}

/// The name of a member; list items and the root have none.
#[derive(Debug, Clone, Copy)]
struct Name {
    name: Span,
    name_hash: u8,
}

impl Name {
    const NONE: Self = Self { name: Span::EMPTY, name_hash: 0 };
}

/// Returns a one-byte hash of a name. Names are compared only if their hashes are equal, which saves 5 % of
/// the time for a token that is not cached.
#[inline]
fn name_hash(name: &str) -> u8 {
    let name = name.as_bytes();
    let outer = name.first().zip(name.last());
    let outer = outer.map_or(0, |(first, last)| first.wrapping_mul(5).wrapping_add(*last));
    outer.wrapping_add((name.len() as u8).wrapping_mul(11))
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// The member name; empty for list items and the root.
    name: Span,
    /// See [`name_hash`].
    name_hash: u8,
    /// The index after the last descendant.
    end: u32,
}

#[derive(Debug)]
enum Kind {
    Null,
    Bool(bool),
    /// An f64 suffices, because the crate reads numbers only as times below 2^53.
    Number(f64),
    Text(Span),
    List,
    /// The span is that of its text, with the braces.
    Object(Span),
}

impl Document {
    /// Parses one object.
    pub(crate) fn parse(text: impl Into<Vec<u8>>) -> Result<Self, Fault> {
        // UTF-8 is checked for the whole text, because a check per string takes five times as long.
        let text = String::from_utf8(text.into()).map_err(|_| Fault::Syntax)?;
        // A u32 must also hold the spans of unescaped strings after the text.
        if text.len() > i32::MAX as usize {
            return Err(Fault::Limit);
        }
        let tree = reader::read(&text)?;
        if tree.has_duplicates { Err(Fault::Duplicate) } else { Ok(Self { text, tree }) }
    }

    /// Returns the root object.
    pub(crate) fn root(&self) -> Value<'_> {
        Value { document: self, at: 0 }
    }

    /// Returns the length of the parsed text in bytes.
    pub(crate) fn length(&self) -> u32 {
        self.text.len() as u32
    }

    /// Returns the parsed text.
    #[cfg(feature = "trust")]
    pub(crate) fn into_source(self) -> String {
        self.text
    }

    /// Returns the text, followed by the unescaped strings, so that all [spans](Span) are places in it.
    pub(crate) fn into_text(self) -> Box<str> {
        let Self { mut text, tree } = self;
        text.push_str(&tree.unescaped);
        text.into()
    }

    #[inline]
    fn node(&self, at: u32) -> Option<&Node> {
        self.tree.nodes.get(at as usize)
    }
}

impl Tree {
    fn new() -> Self {
        Self {
            // 1 KiB suffices for a usual token. Larger blocks take allocators longer.
            nodes: Vec::with_capacity(1024 / size_of::<Node>()),
            unescaped: String::new(),
            has_duplicates: false,
        }
    }

    /// Returns the string at a span.
    #[inline]
    fn string<'t>(&'t self, text: &'t str, span: Span) -> &'t str {
        text.get(span.range()).unwrap_or_else(|| self.unescaped(text, span))
    }

    #[cold]
    fn unescaped(&self, text: &str, span: Span) -> &str {
        let Range { start, end } = span.range();
        let offset = text.len();
        let range = start.checked_sub(offset).zip(end.checked_sub(offset));
        range.and_then(|(start, end)| self.unescaped.get(start..end)).unwrap_or_default()
    }

    fn add_unescaped(&mut self, text: &str, string: &str) -> Span {
        let start = text.len() + self.unescaped.len();
        self.unescaped.push_str(string);
        Span::between(start, start + string.len())
    }

    /// Adds a node and returns its index, which fits into a u32, because a text has fewer nodes than bytes.
    #[inline]
    fn push(&mut self, Name { name, name_hash }: Name, kind: Kind) -> u32 {
        let at = self.nodes.len() as u32;
        self.nodes.push(Node { name, name_hash, kind, end: at + 1 });
        at
    }

    /// Ends a list or an object after its last descendant.
    fn close(&mut self, opened: u32, kind: Kind) {
        let end = self.nodes.len() as u32;
        if let Some(node) = self.nodes.get_mut(opened as usize) {
            (node.end, node.kind) = (end, kind);
        }
    }

    /// Returns the member called `name` among the siblings in a range of nodes.
    fn find(&self, text: &str, name: &str, siblings: Range<u32>) -> Option<u32> {
        let name_hash = name_hash(name);
        let mut at = siblings.start;
        while at < siblings.end {
            let node = self.nodes.get(at as usize)?;
            if node.name_hash == name_hash && self.string(text, node.name) == name {
                return Some(at);
            }
            at = node.end;
        }
        None
    }

    /// Returns whether two members of an object have the same name. Sorts the names, because an attacker can
    /// send many.
    fn has_duplicate_members(&self, text: &str, object: u32) -> bool {
        let members = self.children(object).filter_map(|at| self.nodes.get(at as usize));
        let mut names: Vec<&str> = members.map(|node| self.string(text, node.name)).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
    }

    /// Returns the indexes of the items of a list, or of the members of an object.
    fn children(&self, of: u32) -> impl Iterator<Item = u32> {
        let end = self.nodes.get(of as usize).map_or(of, |node| node.end);
        let mut next = of + 1;
        std::iter::from_fn(move || {
            let at = next;
            (at < end).then(|| {
                next = self.nodes.get(at as usize).map_or(end, |node| node.end);
                at
            })
        })
    }
}

/// One value inside a [`Document`].
#[derive(Clone, Copy)]
pub(crate) struct Value<'d> {
    document: &'d Document,
    at: u32,
}

impl<'d> Value<'d> {
    fn node(self) -> Option<&'d Node> {
        self.document.node(self.at)
    }

    fn kind(self) -> &'d Kind {
        self.node().map_or(&Kind::Null, |node| &node.kind)
    }

    fn string(self, span: Span) -> &'d str {
        self.document.tree.string(&self.document.text, span)
    }

    /// Returns the member called `name`, if this is an object with such a member.
    pub(crate) fn get(self, name: &str) -> Option<Value<'d>> {
        let Document { text, tree } = self.document;
        let object = self.node().filter(|node| matches!(node.kind, Kind::Object(_)))?;
        let at = tree.find(text, name, self.at + 1..object.end)?;
        Some(Value { at, ..self })
    }

    /// Returns the value at a JSON pointer (RFC 6901), given as its reference tokens.
    pub(crate) fn follow(self, path: &[Box<str>]) -> Option<Value<'d>> {
        path.iter().try_fold(self, |value, step| match value.kind() {
            Kind::Object(_) => value.get(step),
            Kind::List => value.children().nth(step.parse().ok()?),
            _ => None,
        })
    }

    /// Returns the items of a list or the members of an object, in the order of the text.
    pub(crate) fn children(self) -> impl Iterator<Item = Value<'d>> {
        let document = self.document;
        document.tree.children(self.at).map(move |at| Value { document, at })
    }

    /// Returns the number of values inside, at any depth.
    pub(crate) fn descendants(self) -> usize {
        self.node().map_or(0, |node| (node.end - self.at - 1) as usize)
    }

    /// Returns the name of this member; empty for list items and the root.
    pub(crate) fn name(self) -> &'d str {
        self.node().map_or("", |node| self.string(node.name))
    }

    /// Returns the span of the name of this member.
    pub(crate) fn name_span(self) -> Option<Span> {
        self.node().map(|node| node.name)
    }

    /// Returns the span, if this is a string.
    #[inline]
    pub(crate) fn span(self) -> Option<Span> {
        match self.kind() {
            Kind::Text(span) => Some(*span),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn as_str(self) -> Option<&'d str> {
        self.span().map(|span| self.string(span))
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
        matches!(self.kind(), Kind::Object(_))
    }

    /// Returns the text of this object, as it was read.
    pub(crate) fn object_text(self) -> Option<&'d str> {
        match self.kind() {
            Kind::Object(span) => self.document.text.get(span.range()),
            _ => None,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        matches!(self.kind(), Kind::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> Option<Fault> {
        Document::parse(text).err()
    }

    #[test]
    fn only_one_object_is_accepted() {
        for text in ["", "[]", "1", "null", "\"a\"", "{}x", "{} {}", "{", "\u{feff}{}", "{\"a\":}"]
        {
            assert_eq!(fault(text.as_bytes()), Some(Fault::Syntax), "{text}");
        }
        assert_eq!(fault(b"{\"a\":\"\xff\"}"), Some(Fault::Syntax), "invalid UTF-8");
        assert_eq!(fault(b"{\"a\":1e999}"), Some(Fault::Syntax), "not finite");
        assert_eq!(fault(b" {\"a\" : 1} \n"), None, "white space around is JSON");
    }

    #[test]
    fn duplicate_member_names_are_refused() {
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
        // The last member repeats the first, a middle or the previous name.
        for count in [1, 2, 3, 4, 30, 31, 32, 33, 34] {
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
        assert_eq!(fault(nested(MAX_DEPTH + 1).as_bytes()), Some(Fault::Limit));
        assert_eq!(fault("[".repeat(100_000).as_bytes()), Some(Fault::Syntax));
        assert_eq!(
            fault(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()),
            Some(Fault::Limit)
        );
    }

    #[test]
    fn values_are_found_by_name_and_pointer() {
        let text = br#"{"a":{"b":["x","y"],"c":null},"d":true,"e":1.5,"f":"\u0041"}"#;
        let document = Document::parse(text).unwrap();
        let root = document.root();
        let path = ["a", "b", "1"].map(Box::from);
        assert_eq!(root.follow(&path).and_then(Value::as_str), Some("y"));
        assert_eq!(root.get("d").and_then(Value::as_bool), Some(true));
        assert_eq!(root.get("e").and_then(Value::as_f64), Some(1.5));
        assert_eq!(root.get("f").and_then(Value::as_str), Some("A"));
        assert!(root.get("a").and_then(|a| a.get("c")).is_some_and(Value::is_null));
        assert!(root.get("b").is_none(), "members of members are not members");
        assert_eq!(root.children().map(Value::name).collect::<Vec<_>>(), ["a", "d", "e", "f"]);
    }

    #[test]
    fn number_of_members_is_limited() {
        let object = |count: u32| {
            let members: Vec<_> = (0..count).map(|nth| format!("\"{nth}\":[]")).collect();
            Document::parse(format!("{{\"a\":{{{}}}}}", members.join(",")))
        };
        assert!(object(MAX_MEMBERS).is_ok());
        assert_eq!(object(MAX_MEMBERS + 1).unwrap_err(), Fault::Limit);
    }

    #[test]
    fn members_of_large_objects_are_found() {
        // Similar names of different lengths.
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
}
