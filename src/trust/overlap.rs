//! Whether two rules could make one identity of different workloads.

use std::collections::HashSet;

use super::glob::SEPARATORS;
use super::policy::Trust;
use super::rule::{Condition, Grant, Part, encoded};

/// A piece of the texts that a rule's template can be filled in to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    Exactly(char),
    /// At least one character, and no separator.
    Segment,
    /// At least one character.
    Anything,
}

/// What identities a rule can make.
pub(super) struct Identities {
    pieces: Vec<Piece>,
    /// Whether a token has a say in it.
    pub(super) is_open: bool,
}

impl Identities {
    pub(super) fn of(trust: &Trust, grant: &Grant) -> Self {
        let mut these = Self { pieces: Vec::new(), is_open: false };
        let is_alone = grant.map.identity.claims().count() < 2;
        let any = if is_alone { Piece::Anything } else { Piece::Segment };
        for part in &grant.map.identity.parts {
            match part {
                Part::Text(text) => these.text(text),
                Part::Trust => these.text(&trust.id),
                Part::Claim(path) => match grant.look_of(path) {
                    Some((text, true)) => these.text(&encoded(text, is_alone)),
                    Some((glob, false)) if is_alone => these.glob(glob),
                    _ if grant.conditions(|on| on == path).any(Condition::is_exact) => {
                        these.pieces.push(any)
                    }
                    _ => these.open(any),
                },
            }
        }
        these
    }

    fn text(&mut self, text: &str) {
        self.pieces.extend(text.chars().map(Piece::Exactly));
    }

    fn open(&mut self, piece: Piece) {
        self.pieces.push(piece);
        self.is_open = true;
    }

    fn glob(&mut self, glob: &str) {
        let mut literals = glob.split('*');
        self.text(&encoded(literals.next().unwrap_or_default(), true));
        for literal in literals {
            self.open(Piece::Segment);
            self.text(&encoded(literal, true));
        }
    }

    /// Whether some text is among both. Walks through both at once, as one would through two automata.
    pub(super) fn meet(&self, other: &Self) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![(0, 0)];
        while let Some((a, b)) = next.pop() {
            if !seen.insert((a, b)) {
                continue;
            }
            let (one, two) = (self.pieces.get(a).copied(), other.pieces.get(b).copied());
            let (Some(one), Some(two)) = (one, two) else {
                if one.is_none() && two.is_none() {
                    return true;
                }
                continue;
            };
            if !one.shares_a_character(two) {
                continue;
            }
            next.push((a + 1, b + 1));
            next.extend(one.repeats().then_some((a, b + 1)));
            next.extend(two.repeats().then_some((a + 1, b)));
        }
        false
    }
}

impl Piece {
    fn repeats(self) -> bool {
        !matches!(self, Self::Exactly(_))
    }

    fn shares_a_character(self, other: Self) -> bool {
        match (self, other) {
            (Self::Exactly(one), Self::Exactly(other)) => one == other,
            (Self::Exactly(one), Self::Segment) | (Self::Segment, Self::Exactly(one)) => {
                !SEPARATORS.contains(&one)
            }
            _ => true,
        }
    }
}
