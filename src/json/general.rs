//! Reads JSON as `serde_json` does, whatever there is to be read.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Kind, MAX_DEPTH, Name, Node, Span, Tree, fingerprint};

/// `None` for what is not one object.
pub(super) fn read(text: &str) -> Option<Box<Tree>> {
    let mut tree = Tree::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let seed = ValueSeed { text, tree: &mut tree, name: Name::NONE, depth: 0 };
    seed.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    matches!(tree.nodes.first(), Some(Node { kind: Kind::Object, .. })).then_some(tree)
}

/// Where a part of the text stands in it.
fn span(text: &str, part: &str) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    Span::between(start, start.wrapping_add(part.len()))
}

/// Appends one value and its descendants to the tree.
struct ValueSeed<'n, 'a> {
    text: &'a str,
    tree: &'n mut Tree,
    name: Name,
    depth: usize,
}

impl<'a> ValueSeed<'_, 'a> {
    fn leaf<E>(self, kind: Kind) -> Result<(), E> {
        self.tree.push(self.name, kind);
        Ok(())
    }

    fn open<E: Error>(&mut self, kind: Kind) -> Result<u32, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(self.tree.push(self.name, kind))
    }

    /// For the value of a member, or for an item.
    fn inside(&mut self, name: Name) -> ValueSeed<'_, 'a> {
        ValueSeed { text: self.text, tree: self.tree, name, depth: self.depth + 1 }
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
        let span = span(self.text, text);
        self.leaf(Kind::Text(span))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let span = self.tree.add_unescaped(self.text, text);
        self.leaf(Kind::Text(span))
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
        let opened = self.open(Kind::List)?;
        while items.next_element_seed(self.inside(Name::NONE))?.is_some() {}
        self.tree.close(opened);
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
        let opened = self.open(Kind::Object)?;
        let mut count = 0;
        while let Some(name) =
            members.next_key_seed(NameSeed { text: self.text, tree: self.tree })?
        {
            self.tree.note(self.text, opened, count, name);
            count += 1;
            members.next_value_seed(self.inside(name))?;
        }
        self.tree.close_object(self.text, opened, count);
        Ok(())
    }
}

/// Reads a member name.
struct NameSeed<'n, 'a> {
    text: &'a str,
    tree: &'n mut Tree,
}

impl<'a> DeserializeSeed<'a> for NameSeed<'_, 'a> {
    type Value = Name;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Name, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed<'_, 'a> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Name, E> {
        Ok(Name { span: span(self.text, name), tag: fingerprint(name.as_bytes()) })
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(Name {
            span: self.tree.add_unescaped(self.text, name),
            tag: fingerprint(name.as_bytes()),
        })
    }
}
