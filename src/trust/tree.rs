//! [`Node`]: a parsed TOML or JSON text, with the place of every value.

use std::collections::HashSet;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, PolicyError, Position, shorten};
use super::policy::TrustPolicy;

/// The limit of nesting. A policy that uses every field has 6 levels.
const MAX_DEPTH: usize = 16;

/// The limit of a text in which every syntax error is reported, in bytes. Each takes memory.
const MAX_RECOVERY_BYTES: usize = 64 * 1024;

/// A value and the place where it begins.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: NodeValue,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum NodeValue {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    /// A number with a fraction or outside of `i64`.
    Float,
    Text(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl NodeValue {
    /// Returns the type of the value, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::Float => "a number that is not whole",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    /// Creates a tree without places.
    pub(super) fn from_value(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => NodeValue::Null,
            serde_json::Value::Bool(flag) => NodeValue::Bool(*flag),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or(NodeValue::Float, NodeValue::Integer)
            }
            serde_json::Value::String(text) => NodeValue::Text(text.clone()),
            serde_json::Value::Array(items) => {
                NodeValue::List(items.iter().map(Self::from_value).collect())
            }
            serde_json::Value::Object(members) => NodeValue::Table(
                members.iter().map(|(name, it)| (name.clone(), Self::from_value(it))).collect(),
            ),
        };
        Self { at: Position::default(), value }
    }

    /// Parses TOML. Reports every syntax error; of a long text only the first.
    pub(super) fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let text = without_bom(text);
        check_length(text)?;
        let index = PositionIndex::of(text);
        let faults = Faults::default();
        let report = |error: &toml::de::Error| {
            let at = error.span().map_or(Position::default(), |span| index.position(span.start));
            faults.report(at, "the text", format!("is not valid TOML: {}", error.message()));
        };
        let node = match DeTable::parse(text) {
            Ok(table) => {
                let root = toml::Spanned::new(table.span(), DeValue::Table(table.into_inner()));
                toml_node(&index, root, &faults)
            }
            Err(_) if text.len() <= MAX_RECOVERY_BYTES => {
                DeTable::parse_recoverable(text).1.iter().for_each(report);
                Node::default()
            }
            Err(error) => {
                report(&error);
                Node::default()
            }
        };
        PolicyError::check_none(faults)?;
        Ok(node)
    }

    /// Parses JSON. Reports only the first syntax error.
    pub(super) fn from_json(text: &str) -> Result<Self, PolicyError> {
        let text = without_bom(text);
        check_length(text)?;
        let index = PositionIndex::of(text);
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let reason = message.split(" at line ").next().unwrap_or_default();
            let at = index.position_of_error(text, &error);
            PolicyError::one(at, "the text", format!("is not valid JSON: {reason}"))
        })?;
        let faults = Faults::default();
        let node = json_node(&index, whole.get(), 0, &faults);
        PolicyError::check_none(faults)?;
        Ok(node)
    }

    /// Returns the member `name` of a table.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let NodeValue::Table(members) = &self.value else { return None };
        members.iter().find(|(member, _)| member == name).map(|(_, node)| node)
    }

    /// Returns the places of the value and its members.
    pub(super) fn positions(&self) -> Positions {
        let fields = match &self.value {
            NodeValue::Table(members) => {
                members.iter().map(|(name, node)| (name.clone(), node.at)).collect()
            }
            _ => Vec::new(),
        };
        Positions { own: self.at, fields }
    }
}

/// Serialises the tree as JSON.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            NodeValue::Null | NodeValue::Float => to.serialize_unit(),
            NodeValue::Bool(flag) => to.serialize_bool(*flag),
            NodeValue::Integer(number) => to.serialize_i64(*number),
            NodeValue::Text(text) => to.serialize_str(text),
            NodeValue::List(items) => to.collect_seq(items),
            NodeValue::Table(members) => {
                to.collect_map(members.iter().map(|(name, it)| (name, it)))
            }
        }
    }
}

/// The places of a table and of its fields.
#[derive(Debug, Clone)]
pub(super) struct Positions {
    pub(super) own: Position,
    fields: Vec<(String, Position)>,
}

impl Positions {
    /// Returns whether the table has this field, readable or not.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == field)
    }

    /// Returns the place of a field, or of the table if the field is missing.
    pub(super) fn of(&self, field: &str) -> Position {
        self.fields.iter().find(|(name, _)| name == field).map_or(self.own, |(_, at)| *at)
    }
}

/// Two policies that differ only in their layout are equal.
impl PartialEq for Positions {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The distance of the checkpoints of a [`PositionIndex`], in bytes.
const CHECKPOINT_BYTES: usize = 64;

/// An index of a text that converts byte offsets to positions, each in logarithmic time: a text
/// may have all of its values in one long line.
struct PositionIndex<'t> {
    text: &'t str,
    /// The offsets of the line ends.
    ends: Vec<usize>,
    /// The number of characters before each checkpoint.
    characters: Vec<usize>,
}

impl<'t> PositionIndex<'t> {
    fn of(text: &'t str) -> Self {
        let mut characters = vec![0];
        let mut count = 0;
        for piece in text.as_bytes().chunks(CHECKPOINT_BYTES) {
            count += count_characters(piece);
            characters.push(count);
        }
        Self { text, ends: memchr::memchr_iter(b'\n', text.as_bytes()).collect(), characters }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.ends.partition_point(|end| *end < offset);
        let end_before = line.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = end_before.map_or(0, |end| end + 1);
        let column = self.characters_before(offset).saturating_sub(self.characters_before(start));
        Position { line: line + 1, column: column + 1 }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let checkpoint = offset / CHECKPOINT_BYTES;
        let rest = self.text.as_bytes().get(checkpoint * CHECKPOINT_BYTES..offset);
        self.characters.get(checkpoint).copied().unwrap_or_default()
            + rest.map_or(0, count_characters)
    }

    /// Returns the position where a part of the text begins.
    fn position_of(&self, piece: &str) -> Position {
        self.position(self.offset_of(piece))
    }

    fn offset_of(&self, piece: &str) -> usize {
        (piece.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }

    /// Returns the position of an error in `piece`, a part of the text.
    fn position_of_error(&self, piece: &str, error: &serde_json::Error) -> Position {
        // Lines are counted from 1; columns in bytes, from 1 except at a line end.
        let line_ends = memchr::memchr_iter(b'\n', piece.as_bytes());
        let line_start = match error.line().checked_sub(2) {
            Some(nth) => line_ends.map(|end| end + 1).nth(nth).unwrap_or_default(),
            None => 0,
        };
        let offset = match error.is_eof() {
            true => piece.len(),
            false => line_start + error.column().saturating_sub(1),
        };
        self.position(self.offset_of(piece) + offset.min(piece.len()))
    }
}

/// Counts the bytes that begin a character of UTF-8.
fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

/// Removes the byte order mark that some editors write before UTF-8.
fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn check_length(text: &str) -> Result<(), PolicyError> {
    let limit = TrustPolicy::MAX_TEXT_BYTES;
    match text.len() {
        length if length <= limit => Ok(()),
        length => {
            let problem = format!("has {length} bytes: a policy has at most {limit}");
            Err(PolicyError::one(Position { line: 1, column: 1 }, "the text", problem))
        }
    }
}

fn report_depth(at: Position, faults: &Faults) {
    faults.report(at, "the text", format!("is nested too deeply: use at most {MAX_DEPTH} levels"));
}

/// Converts a parsed text. Its nesting is limited only after parsing, because dotted keys nest without
/// brackets.
fn toml_node(index: &PositionIndex<'_>, root: toml::Spanned<DeValue<'_>>, faults: &Faults) -> Node {
    let mut too_deep = Vec::new();
    let node = toml_level(index, root, 0, &mut too_deep);
    if let Some(first) = too_deep.iter().map(|node| index.position(node.span().start)).min() {
        report_depth(first, faults);
    }
    // Taken apart level by level, because dropping it whole is a recursion.
    while let Some(node) = too_deep.pop() {
        match node.into_inner() {
            DeValue::Array(items) => too_deep.extend(items),
            DeValue::Table(table) => too_deep.extend(table.into_iter().map(|(_, node)| node)),
            _ => {}
        }
    }
    node
}

/// Converts a value at a depth. Values below the limit are moved to `too_deep`.
fn toml_level<'t>(
    index: &PositionIndex<'_>,
    node: toml::Spanned<DeValue<'t>>,
    depth: usize,
    too_deep: &mut Vec<toml::Spanned<DeValue<'t>>>,
) -> Node {
    let at = index.position(node.span().start);
    if depth > MAX_DEPTH && matches!(node.get_ref(), DeValue::Array(_) | DeValue::Table(_)) {
        too_deep.push(node);
        return Node { at, value: NodeValue::Null };
    }
    let mut convert = |node| toml_level(index, node, depth + 1, too_deep);
    let value = match node.into_inner() {
        DeValue::String(text) => NodeValue::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or(NodeValue::Float, NodeValue::Integer)
        }
        DeValue::Float(_) => NodeValue::Float,
        DeValue::Boolean(flag) => NodeValue::Bool(flag),
        // A date may be written without quotation marks.
        DeValue::Datetime(date) => NodeValue::Text(date.to_string()),
        DeValue::Array(items) => NodeValue::List(items.into_iter().map(convert).collect()),
        DeValue::Table(table) => {
            let member = |(name, node): (toml::Spanned<_>, _)| {
                (std::borrow::Cow::into_owned(name.into_inner()), convert(node))
            };
            NodeValue::Table(table.into_iter().map(member).collect())
        }
    };
    Node { at, value }
}

/// Parses `piece`, a well-formed part of the text, one level at a time, to find the place of each
/// value.
fn json_node(index: &PositionIndex<'_>, piece: &str, depth: usize, faults: &Faults) -> Node {
    let at = index.position_of(piece);
    let value = match piece.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => {
            report_depth(at, faults);
            NodeValue::Null
        }
        Some(b'{') => {
            let Members(all) = json_piece(index, piece, faults);
            let mut names = HashSet::new();
            for (name, value) in all.iter().filter(|(name, _)| !names.insert(name)) {
                let at = index.position_of(value.get());
                faults.report(at, shorten(name), "is given twice: remove one");
            }
            let member = |(name, value): (String, &RawValue)| {
                (name, json_node(index, value.get(), depth + 1, faults))
            };
            NodeValue::Table(all.into_iter().map(member).collect())
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = json_piece(index, piece, faults);
            let node = |item: &&RawValue| json_node(index, item.get(), depth + 1, faults);
            NodeValue::List(items.iter().map(node).collect())
        }
        _ => Node::from_value(&json_piece(index, piece, faults)).value,
    };
    Node { at, value }
}

/// Reads a well-formed part of the text. A well-formed part may still have no value: an unpaired
/// surrogate (`"\ud800"`), or a number out of range.
fn json_piece<'t, T>(index: &PositionIndex<'_>, piece: &'t str, faults: &Faults) -> T
where
    T: serde::Deserialize<'t> + Default,
{
    serde_json::from_str(piece).unwrap_or_else(|error: serde_json::Error| {
        faults.report(
            index.position_of_error(piece, &error),
            "the text",
            "has a name or a value that cannot be read: an unpaired surrogate, or a number out of range",
        );
        T::default()
    })
}

/// The members of a JSON object, including repeated names.
#[derive(Default)]
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'t> serde::Deserialize<'t> for Members<'t> {
    fn deserialize<D: Deserializer<'t>>(from: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'t> Visitor<'t> for Collect {
            type Value = Members<'t>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Members<'t>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_give_same_tree() {
        let toml = Node::from_toml("a = 1\n\n[[t]]\nx = \"y\"\nl = [\n  true,\n]\n").unwrap();
        let json =
            Node::from_json("{\"a\": 1,\n\n\"t\": [{\n\"x\": \"y\", \"l\": [\n\ntrue]}]}").unwrap();
        let json_of = |node: &Node| serde_json::to_value(node).unwrap();
        assert_eq!(json_of(&toml), json_of(&json));
        let lines = |node: &Node| {
            let table = node.get("t").unwrap();
            let NodeValue::List(rows) = &table.value else { panic!("{table:?}") };
            let (x, list) = (rows[0].get("x").unwrap(), rows[0].get("l").unwrap());
            let NodeValue::List(items) = &list.value else { panic!("{list:?}") };
            [node.get("a").unwrap(), x, &items[0]].map(|node| node.at.line)
        };
        assert_eq!(lines(&toml), [1, 4, 6]);
        assert_eq!(lines(&json), [1, 4, 6]);
    }

    #[test]
    fn syntax_error_has_its_line() {
        let line = |result: Result<Node, PolicyError>| result.unwrap_err().faults()[0].line;
        assert_eq!(line(Node::from_toml("a = 1\nb = \n")), Some(2));
        assert_eq!(line(Node::from_toml("a = 1\na = 2\n")), Some(2));
        assert_eq!(line(Node::from_json("{\n\"a\": }")), Some(2));
        assert_eq!(line(Node::from_json("{\"a\": 1,\n\"a\": 2}")), Some(2));
        assert_eq!(line(Node::from_json("{\n\"a\": 1,\n\"\\ud800\": 2}")), Some(3));
        assert_eq!(line(Node::from_json("{\"a\": {\n\"b\":\n\"\\udfff\"}}")), Some(3));
        assert_eq!(line(Node::from_json("{\"a\":\n[1,\n1e999]}")), Some(3));
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(line(Node::from_json(&deep)), Some(1));
    }
}
