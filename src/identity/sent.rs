//! [`Sent`]: the claims as they were sent. All that an identity says in words stands there.

use serde::de::DeserializeOwned;

use crate::json::{Document, Span};

/// Claims as sent, and behind them the strings that are written with escapes there, without.
#[derive(Clone)]
pub(super) struct Sent {
    text: Box<str>,
    /// How much of the text was sent.
    length: usize,
}

impl Sent {
    pub(super) fn of(document: Document) -> Self {
        let (text, length) = document.into_text();
        Self { text: text.into(), length }
    }

    /// `None` for a span that stands nowhere.
    pub(super) fn get(&self, span: Span) -> Option<&str> {
        self.text.get(span.range())
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text.get(..self.length).unwrap_or_default())
    }

    pub(super) fn footprint(&self) -> usize {
        self.text.len()
    }
}
