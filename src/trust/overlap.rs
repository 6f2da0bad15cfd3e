//! [`IdentityPattern`]: the identities that a rule can give, to detect rules that could give
//! different workloads the same one.

use std::collections::HashSet;

use super::pattern::SEPARATORS;
use super::policy::Trust;
use super::rule::{Condition, Grant, Part, RequiredText, encoded};

/// A part of the identities that a rule can give.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Symbol {
    Exactly(char),
    /// At least one character, but no separator.
    Segment,
    /// At least one character.
    Anything,
}

/// The set of identities that a rule can give, as a pattern.
pub(super) struct IdentityPattern {
    symbols: Vec<Symbol>,
    /// Whether a part of the identity depends on a claim that the rule does not fix.
    pub(super) is_open: bool,
}

impl IdentityPattern {
    pub(super) fn of(trust: &Trust, grant: &Grant) -> Self {
        let mut identities = Self { symbols: Vec::new(), is_open: false };
        let keeps_separators = grant.map.identity.claims().count() < 2;
        let any = if keeps_separators { Symbol::Anything } else { Symbol::Segment };
        for part in &grant.map.identity.parts {
            match part {
                Part::Text(text) => identities.push_literal(text),
                Part::Trust => identities.push_literal(&trust.id),
                Part::Claim(path) => match grant.required_text(path) {
                    Some(RequiredText::Exact(text)) => {
                        identities.push_literal(&encoded(text, keeps_separators));
                    }
                    Some(RequiredText::Pattern(pattern)) if keeps_separators => {
                        identities.push_pattern(pattern)
                    }
                    _ if grant.conditions(|on| on == path).any(Condition::lists_values) => {
                        identities.symbols.push(any)
                    }
                    _ => identities.push_open(any),
                },
            }
        }
        identities
    }

    fn push_literal(&mut self, text: &str) {
        self.symbols.extend(text.chars().map(Symbol::Exactly));
    }

    fn push_open(&mut self, symbol: Symbol) {
        self.symbols.push(symbol);
        self.is_open = true;
    }

    fn push_pattern(&mut self, pattern: &str) {
        let mut literals = pattern.split('*');
        self.push_literal(&encoded(literals.next().unwrap_or_default(), true));
        for literal in literals {
            self.push_open(Symbol::Segment);
            self.push_literal(&encoded(literal, true));
        }
    }

    /// Returns whether the two sets share an identity. Searches the product automaton of the two
    /// patterns.
    pub(super) fn intersects(&self, other: &Self) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![(0, 0)];
        while let Some((a, b)) = next.pop() {
            if !seen.insert((a, b)) {
                continue;
            }
            let (one, two) = (self.symbols.get(a).copied(), other.symbols.get(b).copied());
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

impl Symbol {
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
