//! [`FieldReader`]: reads the values of a parsed policy, and reports their faults.

use super::fault::{Faults, Position, shorten};
use super::tree::{Node, NodeValue};
use crate::config::nearest;

/// The limit of the items of `audiences` and `algorithms`. Each rule and each token may be compared with all.
const MAX_ITEMS: usize = 100;

/// The name of the whole policy in faults.
pub(super) const POLICY: &str = "the policy";

/// The field that names an item of each list.
const LABELS: [(&str, &str); 3] = [("trust", "id"), ("grant", "name"), ("delegation", "tenant")];

/// Visits each string of a policy, with its position and its name in faults.
pub(super) fn each_text(tree: &Node, visit: &mut impl FnMut(Position, &str, &dyn Fn() -> String)) {
    let faults = &Faults::default();
    FieldReader { node: tree, place: POLICY.to_owned(), faults }.each_text(visit);
}

/// Reads a value of the tree, and reports its faults under the path `place`.
pub(super) struct FieldReader<'r> {
    pub(super) node: &'r Node,
    pub(super) place: String,
    pub(super) faults: &'r Faults,
}

impl<'r> FieldReader<'r> {
    pub(super) fn report(&self, problem: impl Into<String>) {
        self.faults.report(self.node.at, &*self.place, problem);
    }

    /// Reports a fault and returns `None`.
    pub(super) fn report_none<T>(&self, problem: impl Into<String>) -> Option<T> {
        self.report(problem);
        None
    }

    pub(super) fn report_type<T>(&self, expected: &str) -> Option<T> {
        self.report_none(format!("is {}: give {expected}", self.node.value.kind()))
    }

    pub(super) fn members(&self) -> Option<&'r [(String, Node)]> {
        match &self.node.value {
            NodeValue::Table(members) => Some(members),
            _ => self.report_type("a table"),
        }
    }

    /// Reports a fault if the value is not a table, and one for each unknown field.
    pub(super) fn check_fields(&self, known: &str) -> Option<()> {
        for (name, member) in self.members()? {
            if !known.split(", ").any(|field| field == name) {
                let name = shorten(name);
                let problem = match nearest(&name, known.split(", ")) {
                    Some(field) => {
                        format!("is unknown: did you mean `{field}`? The fields are {known}")
                    }
                    None => format!("is unknown; the fields are {known}"),
                };
                self.faults.report(member.at, format!("{}.{name:?}", self.place), problem);
            }
        }
        Some(())
    }

    /// Returns a reader for `node` as the field `name`.
    pub(super) fn field(&self, name: &str, node: &'r Node) -> Self {
        let place = match self.place.as_str() {
            POLICY => name.to_owned(),
            place => format!("{place}.{name}"),
        };
        Self { node, place, faults: self.faults }
    }

    /// Returns a reader for an item of a list. Its `label` or its index names it.
    fn item(&self, label: Option<&str>, nth: usize, node: &'r Node) -> Self {
        let place = match label.map(|label| node.get(label)) {
            None => self.place.clone(),
            Some(Some(Node { value: NodeValue::Text(text), .. })) if is_label(text) => {
                format!("{}.{text}", self.place)
            }
            Some(_) => format!("{}[{nth}]", self.place),
        };
        Self { node, place, faults: self.faults }
    }

    pub(super) fn get(&self, name: &str) -> Option<Self> {
        self.node.get(name).map(|node| self.field(name, node))
    }

    fn each_text(&self, visit: &mut impl FnMut(Position, &str, &dyn Fn() -> String)) {
        let mut each = |node: &'r Node, reader: &dyn Fn() -> Self| match &node.value {
            NodeValue::Text(text) => visit(node.at, text, &|| reader().place),
            NodeValue::List(_) | NodeValue::Table(_) => reader().each_text(visit),
            _ => {}
        };
        match &self.node.value {
            NodeValue::Table(members) => members.iter().for_each(|(name, node)| {
                each(node, &|| self.field(&shorten(name).escape_debug().to_string(), node));
            }),
            NodeValue::List(items) => items.iter().enumerate().for_each(|(nth, node)| {
                let list = self.place.rsplit('.').next().unwrap_or_default();
                let label = LABELS.iter().find(|(name, _)| *name == list).map(|(_, label)| *label);
                each(node, &|| self.item(label, nth, node));
            }),
            _ => {}
        }
    }

    /// Returns a required field, or reports that it is missing.
    pub(super) fn required(&self, name: &str, missing: &str) -> Option<Self> {
        self.get(name).or_else(|| self.field(name, self.node).report_none(missing))
    }

    /// Reads an optional field.
    pub(super) fn read<T>(&self, name: &str, read: impl FnOnce(&Self) -> Option<T>) -> Option<T> {
        read(&self.get(name)?)
    }

    pub(super) fn parse<T, E: Into<String>>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match &self.node.value {
            NodeValue::Text(text) => parse(text).map_err(|problem| self.report(problem)).ok(),
            _ => self.report_type("a string"),
        }
    }

    /// Returns the readable items of a list of at most 100.
    pub(super) fn short_list<T>(&self, name: &str, read: impl Fn(&Self) -> Option<T>) -> Vec<T> {
        self.items(name, None, MAX_ITEMS, read)
    }

    /// Returns the readable items of a list. Faults name an item by its `label` or its index.
    pub(super) fn list<T>(
        &self,
        name: &str,
        label: Option<&str>,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Vec<T> {
        self.items(name, label, usize::MAX, read)
    }

    pub(super) fn items<T>(
        &self,
        name: &str,
        label: Option<&str>,
        limit: usize,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Vec<T> {
        let Some(list) = self.get(name) else { return Vec::new() };
        let items = match &list.node.value {
            NodeValue::List(items) => items.as_slice(),
            NodeValue::Table(_) => {
                let parent = if name == "trust" { "" } else { "trust." };
                list.report(format!("is a table: give a list; in TOML, write [[{parent}{name}]]"));
                &[]
            }
            _ => list.report_type("a list").unwrap_or_default(),
        };
        if let Some(item) = items.get(limit) {
            let problem = format!("has more than {limit} items: remove those without use");
            self.faults.report(item.at, &*list.place, problem);
        }
        let item = |(nth, node): (usize, &'r Node)| read(&list.item(label, nth, node));
        items.iter().take(limit).enumerate().filter_map(item).collect()
    }
}

/// Returns whether a name is safe in logs, metrics and identities.
pub(super) fn is_label(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}
