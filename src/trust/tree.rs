//! [`Node`]: a parsed TOML or JSON text, with the line number of every value.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, PolicyError};

/// The limit of nesting. A policy that uses every field has 6 levels.
const MAX_DEPTH: usize = 16;

/// A value and the line where it begins; line 0 if it was not read from a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: NodeValue,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeValue {
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
    /// Visits this value and everything in it.
    pub(super) fn each(&self, visit: &mut impl FnMut(&Node)) {
        visit(self);
        match &self.value {
            NodeValue::List(items) => items.iter().for_each(|item| item.each(visit)),
            NodeValue::Table(members) => members.iter().for_each(|(_, member)| member.each(visit)),
            _ => {}
        }
    }

    /// Creates a tree without line numbers.
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
        Self { line: 0, value }
    }

    /// Parses TOML. Reports every syntax error.
    pub(super) fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let line_index = LineIndex::of(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let faults = Faults::default();
        for error in errors {
            let line = error.span().map_or(0, |span| line_index.line_at(span.start));
            faults.report(line, "the text", format!("is not valid TOML: {}", error.message()));
        }
        PolicyError::check_none(faults)?;
        Ok(Self { line: 1, value: toml_table(&line_index, table.get_ref()) })
    }

    /// Parses JSON. Reports only the first syntax error.
    pub(super) fn from_json(text: &str) -> Result<Self, PolicyError> {
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
            let problem = format!("is not valid JSON (column {})", error.column());
            PolicyError::one(error.line(), "the text", problem)
        })?;
        let faults = Faults::default();
        let node = json_node(&LineIndex::of(text), whole.get(), 0, &faults);
        PolicyError::check_none(faults)?;
        Ok(node)
    }

    /// Returns the member `name` of a table.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let NodeValue::Table(members) = &self.value else { return None };
        members.iter().find(|(member, _)| member == name).map(|(_, node)| node)
    }

    /// Returns the lines of the value and its members.
    pub(super) fn lines(&self) -> Lines {
        let fields = match &self.value {
            NodeValue::Table(members) => {
                members.iter().map(|(name, node)| (name.clone(), node.line)).collect()
            }
            _ => Vec::new(),
        };
        Lines { own: self.line, fields }
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

/// The lines of a table and of its fields.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pub(super) own: usize,
    fields: Vec<(String, usize)>,
}

impl Lines {
    /// Returns whether the table has this field, readable or not.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == field)
    }

    /// Returns the line of a field, or of the table if the field is missing.
    pub(super) fn of(&self, field: &str) -> usize {
        self.fields.iter().find(|(name, _)| name == field).map_or(self.own, |(_, line)| *line)
    }
}

/// Two policies that differ only in their layout are equal.
impl PartialEq for Lines {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// An index of the line ends of a text, to find the line of each value by binary search.
struct LineIndex<'t> {
    text: &'t str,
    ends: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, ends: memchr::memchr_iter(b'\n', text.as_bytes()).collect() }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.ends.partition_point(|end| *end < offset) + 1
    }

    /// Returns the line in which a part of the text begins.
    fn line_of(&self, piece: &str) -> usize {
        self.line_at((piece.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }
}

fn toml_table(line_index: &LineIndex<'_>, table: &DeTable<'_>) -> NodeValue {
    let members = table.iter();
    NodeValue::Table(
        members.map(|(name, it)| (name.to_string(), toml_node(line_index, it))).collect(),
    )
}

fn toml_node(line_index: &LineIndex<'_>, node: &toml::Spanned<DeValue<'_>>) -> Node {
    let value = match node.get_ref() {
        DeValue::String(text) => NodeValue::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or(NodeValue::Float, NodeValue::Integer)
        }
        DeValue::Float(_) => NodeValue::Float,
        DeValue::Boolean(flag) => NodeValue::Bool(*flag),
        // A date may be written without quotation marks.
        DeValue::Datetime(date) => NodeValue::Text(date.to_string()),
        DeValue::Array(items) => {
            NodeValue::List(items.iter().map(|item| toml_node(line_index, item)).collect())
        }
        DeValue::Table(table) => toml_table(line_index, table),
    };
    Node { line: line_index.line_at(node.span().start), value }
}

/// Parses `piece`, a well-formed part of the text, one level at a time, to find the line of each
/// value.
fn json_node(line_index: &LineIndex<'_>, piece: &str, depth: usize, faults: &Faults) -> Node {
    let line = line_index.line_of(piece);
    let value = match piece.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => {
            faults.report(
                line,
                "the text",
                format!("is nested too deeply: use at most {MAX_DEPTH} levels"),
            );
            NodeValue::Null
        }
        Some(b'{') => {
            let Members(all) = json_piece(piece, line, faults);
            let mut members: Vec<(String, Node)> = Vec::new();
            for (name, value) in all {
                let node = json_node(line_index, value.get(), depth + 1, faults);
                if members.iter().any(|(earlier, _)| *earlier == name) {
                    faults.report(node.line, &*name, "is given twice: remove one");
                }
                members.push((name, node));
            }
            NodeValue::Table(members)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = json_piece(piece, line, faults);
            let node = |item: &&RawValue| json_node(line_index, item.get(), depth + 1, faults);
            NodeValue::List(items.iter().map(node).collect())
        }
        _ => Node::from_value(&json_piece(piece, line, faults)).value,
    };
    Node { line, value }
}

/// Reads a well-formed part of the text, which begins in `line`. A well-formed part may still have
/// no value: an unpaired surrogate (`"\ud800"`), or a number out of range.
fn json_piece<'t, T>(piece: &'t str, line: usize, faults: &Faults) -> T
where
    T: serde::Deserialize<'t> + Default,
{
    serde_json::from_str(piece).unwrap_or_else(|error: serde_json::Error| {
        let line = line + error.line().saturating_sub(1);
        faults.report(
            line,
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
            let mut lines = Vec::new();
            node.each(&mut |node| {
                if matches!(
                    node.value,
                    NodeValue::Integer(_) | NodeValue::Text(_) | NodeValue::Bool(_)
                ) {
                    lines.push(node.line);
                }
            });
            lines.sort_unstable();
            lines
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
