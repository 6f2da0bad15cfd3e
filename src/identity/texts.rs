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
        terminated(self.get(span).unwrap_or_default())
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
    /// Room for so many octets: if that is what it takes, nothing is moved in the end.
    pub(super) fn with_room(octets: usize) -> Self {
        Self { joined: String::with_capacity(octets) }
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

/// What stands before each NUL.
fn terminated(names: &str) -> impl Iterator<Item = &str> {
    names.strip_suffix('\0').into_iter().flat_map(|names| pieces(names, 0))
}

/// The text split at an ASCII character, as `str::split` does it, but octet by octet: scopes and roles
/// are so short that to call `memchr` for each takes longer.
pub(super) fn pieces(text: &str, at: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (piece, behind) = match text.bytes().position(|octet| octet == at) {
            Some(end) => (text.get(..end), text.get(end + 1..)),
            None => (Some(text), None),
        };
        rest = behind;
        piece
    })
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
        if name.bytes().any(|octet| octet == 0) {
            return Err(InvalidName);
        }
        let held = self.writer.joined.get(self.start..).unwrap_or_default();
        if !terminated(held).any(|held| held == name) {
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
        let mut texts = Writer::with_room(0);
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
    fn pieces_are_what_the_standard_library_splits_into() {
        assert_eq!(terminated("").count(), 0);
        for text in ["", " ", "a", "a b", " a", "a ", "  ", "a  b", "é è", "é ", "a b c d"] {
            assert!(pieces(text, b' ').eq(text.split(' ')), "{text:?}");
            let names = text.replace(' ', "\0") + "\0";
            assert!(terminated(&names).eq(names.split_terminator('\0')), "{text:?}");
        }
    }

    #[test]
    fn an_empty_text_is_a_text_and_one_that_was_not_added_is_none() {
        let mut texts = Writer::with_room(0);
        let spans = [Some("subject"), Some(""), None, Some("é")].map(|it| texts.add_if_any(it));
        let texts = texts.finish();
        let read = spans.map(|span| texts.get(span));
        assert_eq!(read, [Some("subject"), Some(""), None, Some("é")]);
        assert_eq!(Texts::default().get(Span::default()), None);
    }
}
