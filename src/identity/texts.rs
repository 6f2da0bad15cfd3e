//! [`Texts`]: everything an identity says in words, in one allocation.

/// Texts end to end. A [`Span`] finds one of them again.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    joined: Box<str>,
}

/// Where a text, or a list of names, stands. The default stands nowhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Default for Span {
    fn default() -> Self {
        Self { start: 1, end: 0 }
    }
}

/// A name contains a NUL, which stands behind each name of a list.
pub(super) struct InvalidName;

impl Texts {
    /// `None` for a span that stands nowhere.
    pub(super) fn get(&self, span: Span) -> Option<&str> {
        self.joined.get(span.start as usize..span.end as usize)
    }

    /// The names of a list.
    pub(super) fn names(&self, span: Span) -> impl Iterator<Item = &str> {
        self.get(span).unwrap_or_default().split_terminator('\0')
    }

    pub(super) fn footprint(&self) -> usize {
        self.joined.len()
    }
}

/// Puts texts together.
#[derive(Debug)]
pub(super) struct Writer {
    joined: String,
}

impl Writer {
    /// Room for what a usual token says.
    pub(super) fn new() -> Self {
        Self { joined: String::with_capacity(256) }
    }

    pub(super) fn add(&mut self, text: &str) -> Span {
        let start = self.joined.len();
        self.joined.push_str(text);
        self.since(start)
    }

    pub(super) fn add_if_any(&mut self, text: Option<&str>) -> Span {
        text.map_or_else(Span::default, |text| self.add(text))
    }

    /// Adds a list: distinct names in the order sent.
    pub(super) fn list(&mut self) -> List<'_> {
        let start = self.joined.len();
        List { writer: self, start }
    }

    pub(super) fn finish(self) -> Texts {
        Texts { joined: self.joined.into() }
    }

    /// Claims are shorter than 4 GiB.
    fn since(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.joined.len() as u32 }
    }
}

/// A list of names under way.
#[derive(Debug)]
pub(super) struct List<'w> {
    writer: &'w mut Writer,
    start: usize,
}

impl List<'_> {
    /// Adds `name`, unless it is there already.
    pub(super) fn insert(&mut self, name: &str) -> Result<(), InvalidName> {
        if memchr::memchr(0, name.as_bytes()).is_some() {
            return Err(InvalidName);
        }
        let held = self.writer.joined.get(self.start..).unwrap_or_default();
        if !held.split_terminator('\0').any(|held| held == name) {
            self.writer.joined.push_str(name);
            self.writer.joined.push('\0');
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Span {
        self.writer.since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_order_without_repeats() {
        let mut texts = Writer::new();
        texts.add("b\0");
        let mut list = texts.list();
        for name in ["b", "a b", "", "b", "é"] {
            assert!(list.insert(name).is_ok());
        }
        assert!(list.insert("a\0b").is_err());
        let (named, nobody) = (list.finish(), texts.list().finish());
        let texts = texts.finish();
        assert_eq!(texts.names(named).collect::<Vec<_>>(), ["b", "a b", "", "é"]);
        assert_eq!(texts.names(nobody).count(), 0);
        assert_eq!(texts.names(Span::default()).count(), 0);
    }

    #[test]
    fn an_empty_text_is_a_text_and_one_that_was_not_added_is_none() {
        let mut texts = Writer::new();
        let spans = [Some("subject"), Some(""), None, Some("é")].map(|it| texts.add_if_any(it));
        let texts = texts.finish();
        let read = spans.map(|span| texts.get(span));
        assert_eq!(read, [Some("subject"), Some(""), None, Some("é")]);
        assert_eq!(Texts::default().get(Span::default()), None);
    }
}
