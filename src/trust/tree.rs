//! A policy's text as a tree in which every value knows its line, from TOML or JSON alike.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, PolicyError};

/// How deep a policy may nest. One that says all there is to say has 6 levels.
const MAX_DEPTH: usize = 16;

/// A value and the line it begins in; 0 when it came from no text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number with a fraction, or too large.
    Float,
    Text(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Value {
    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a number",
            Self::Float => "a number that is not whole",
            Self::Text(_) => "a text",
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
            Value::List(items) => items.iter().for_each(|item| item.each(visit)),
            Value::Table(members) => members.iter().for_each(|(_, member)| member.each(visit)),
            _ => {}
        }
    }

    /// A tree that came from no text.
    pub(super) fn from_value(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(truth) => Value::Bool(*truth),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or(Value::Float, Value::Integer)
            }
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Value::List(items.iter().map(Self::from_value).collect())
            }
            serde_json::Value::Object(members) => Value::Table(
                members.iter().map(|(name, it)| (name.clone(), Self::from_value(it))).collect(),
            ),
        };
        Self { line: 0, value }
    }

    /// Reads TOML. Every place that is no TOML is reported.
    pub(super) fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let source = Source::of(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let faults = Faults::default();
        for error in errors {
            let line = error.span().map_or(0, |span| source.line_at(span.start));
            faults.note(line, "the text", format!("is not TOML: {}", error.message()));
        }
        PolicyError::from_faults(faults)?;
        Ok(Self { line: 1, value: toml_table(&source, table.get_ref()) })
    }

    /// Reads JSON. The first place that is no JSON is reported.
    pub(super) fn from_json(text: &str) -> Result<Self, PolicyError> {
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
            let problem = format!("is not JSON (column {})", error.column());
            PolicyError::one(error.line(), "the text", problem)
        })?;
        let faults = Faults::default();
        let node = json_node(&Source::of(text), whole.get(), 0, &faults);
        PolicyError::from_faults(faults)?;
        Ok(node)
    }

    /// A member of a table.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let Value::Table(members) = &self.value else { return None };
        members.iter().find(|(member, _)| member == name).map(|(_, node)| node)
    }

    /// Where it and its members stand.
    pub(super) fn lines(&self) -> Lines {
        let fields = match &self.value {
            Value::Table(members) => {
                members.iter().map(|(name, node)| (name.clone(), node.line)).collect()
            }
            _ => Vec::new(),
        };
        Lines { own: self.line, fields }
    }
}

/// The same as JSON.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null | Value::Float => to.serialize_unit(),
            Value::Bool(truth) => to.serialize_bool(*truth),
            Value::Integer(number) => to.serialize_i64(*number),
            Value::Text(text) => to.serialize_str(text),
            Value::List(items) => to.collect_seq(items),
            Value::Table(members) => to.collect_map(members.iter().map(|(name, it)| (name, it))),
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
    /// The line of a field, or of the table if it is not there.
    pub(super) fn of(&self, field: &str) -> usize {
        self.fields.iter().find(|(name, _)| name == field).map_or(self.own, |(_, line)| *line)
    }
}

/// Where something stands in a text is no part of what it means.
impl PartialEq for Lines {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A text, and where its lines end: looked up for each value, so not counted anew for each.
struct Source<'t> {
    text: &'t str,
    ends: Vec<usize>,
}

impl<'t> Source<'t> {
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

fn toml_table(source: &Source<'_>, table: &DeTable<'_>) -> Value {
    let members = table.iter();
    Value::Table(members.map(|(name, it)| (name.to_string(), toml_node(source, it))).collect())
}

fn toml_node(source: &Source<'_>, node: &toml::Spanned<DeValue<'_>>) -> Node {
    let value = match node.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or(Value::Float, Value::Integer)
        }
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(truth) => Value::Bool(*truth),
        // A date is as good without quotation marks.
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| toml_node(source, item)).collect())
        }
        DeValue::Table(table) => toml_table(source, table),
    };
    Node { line: source.line_at(node.span().start), value }
}

/// Reads `piece`, a well-formed part of the text, level by level: so each value knows where it stands.
fn json_node(source: &Source<'_>, piece: &str, depth: usize, faults: &Faults) -> Node {
    let line = source.line_of(piece);
    let value = match piece.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => {
            faults.note(line, "the text", "is nested too deep");
            Value::Null
        }
        Some(b'{') => {
            let Members(sent) = json_piece(piece, line, faults);
            let mut members: Vec<(String, Node)> = Vec::new();
            for (name, value) in sent {
                let node = json_node(source, value.get(), depth + 1, faults);
                if members.iter().any(|(earlier, _)| *earlier == name) {
                    faults.note(node.line, &*name, "is given twice");
                }
                members.push((name, node));
            }
            Value::Table(members)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = json_piece(piece, line, faults);
            let node = |item: &&RawValue| json_node(source, item.get(), depth + 1, faults);
            Value::List(items.iter().map(node).collect())
        }
        _ => Node::from_value(&json_piece(piece, line, faults)).value,
    };
    Node { line, value }
}

/// Reads a well-formed part of the text, which begins in `line`. What is well-formed may still have no value:
/// half of a surrogate pair (`"\ud800"`), or a number beyond all.
fn json_piece<'t, T>(piece: &'t str, line: usize, faults: &Faults) -> T
where
    T: serde::Deserialize<'t> + Default,
{
    serde_json::from_str(piece).unwrap_or_else(|error: serde_json::Error| {
        let line = line + error.line().saturating_sub(1);
        faults.note(
            line,
            "the text",
            "has a name or a value that cannot be read: half a character, or a number too large",
        );
        T::default()
    })
}

/// The members of a JSON object, with repetitions.
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
    fn toml_and_json_become_the_same_tree_and_know_their_lines() {
        let toml = Node::from_toml("a = 1\n\n[[t]]\nx = \"y\"\nl = [\n  true,\n]\n").unwrap();
        let json =
            Node::from_json("{\"a\": 1,\n\n\"t\": [{\n\"x\": \"y\", \"l\": [\n\ntrue]}]}").unwrap();
        let json_of = |node: &Node| serde_json::to_value(node).unwrap();
        assert_eq!(json_of(&toml), json_of(&json));
        let lines = |node: &Node| {
            let mut lines = Vec::new();
            node.each(&mut |node| {
                if matches!(node.value, Value::Integer(_) | Value::Text(_) | Value::Bool(_)) {
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
    fn what_is_no_text_of_its_kind_is_refused_with_the_line() {
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
