//! A policy's text as a tree in which every value knows its line, from TOML or JSON alike.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::fault::{PolicyError, PolicyFault};

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

    /// The same as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Float => serde_json::Value::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Integer(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(members) => {
                let members = members.iter().map(|(name, member)| (name.clone(), member.to_json()));
                serde_json::Value::Object(members.collect())
            }
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
        let lines = Lines::of(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let fault = |error: toml::de::Error| {
            let line = error.span().map_or(0, |span| lines.at(span.start));
            PolicyFault::new(line, "the text", format!("is not TOML: {}", error.message()))
        };
        PolicyError::from_faults(errors.into_iter().map(fault).collect())?;
        Ok(Self { line: 1, value: toml_table(table.get_ref(), &lines) })
    }

    /// Reads JSON. The first place that is no JSON is reported.
    pub(super) fn from_json(text: &str) -> Result<Self, PolicyError> {
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
            let problem = format!("is not JSON (column {})", error.column());
            PolicyError::one(PolicyFault::new(error.line(), "the text", problem))
        })?;
        let mut json = Json { text, lines: Lines::of(text), faults: Vec::new() };
        let node = json.node(whole.get(), 0);
        PolicyError::from_faults(json.faults)?;
        Ok(node)
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

fn toml_table(table: &DeTable<'_>, lines: &Lines) -> Value {
    let member = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = name.get_ref();
        (name.to_string(), toml_node(value, lines))
    };
    Value::Table(table.iter().map(member).collect())
}

fn toml_node(node: &toml::Spanned<DeValue<'_>>, lines: &Lines) -> Node {
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
            Value::List(items.iter().map(|item| toml_node(item, lines)).collect())
        }
        DeValue::Table(table) => toml_table(table, lines),
    };
    Node { line: lines.at(node.span().start), value }
}

/// Reads JSON level by level: each value is a piece of the text, and so knows where it stands.
struct Json<'t> {
    text: &'t str,
    lines: Lines,
    faults: Vec<PolicyFault>,
}

impl<'t> Json<'t> {
    /// `piece` is a well-formed part of the text.
    fn node(&mut self, piece: &'t str, depth: usize) -> Node {
        let offset = (piece.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let line = self.lines.at(offset);
        if depth > MAX_DEPTH {
            self.faults.push(PolicyFault::new(line, "the text", "is nested too deep"));
            return Node { line, value: Value::Null };
        }
        let value = match piece.as_bytes().first() {
            Some(b'{') => self.table(piece, depth),
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(piece).unwrap_or_default();
                Value::List(items.iter().map(|item| self.node(item.get(), depth + 1)).collect())
            }
            _ => {
                let leaf = serde_json::from_str(piece).unwrap_or_default();
                Node::from_value(&leaf).value
            }
        };
        Node { line, value }
    }

    fn table(&mut self, piece: &'t str, depth: usize) -> Value {
        let Members(sent) = serde_json::from_str(piece).unwrap_or_default();
        let mut members: Vec<(String, Node)> = Vec::new();
        for (name, value) in sent {
            let node = self.node(value.get(), depth + 1);
            if members.iter().any(|(earlier, _)| *earlier == name) {
                self.faults.push(PolicyFault::new(node.line, name, "is given twice"));
            } else {
                members.push((name, node));
            }
        }
        Value::Table(members)
    }
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
        assert_eq!(toml.to_json(), json.to_json());
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
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(line(Node::from_json(&deep)), Some(1));
    }
}
