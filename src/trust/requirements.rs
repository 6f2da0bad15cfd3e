//! [`Requirements`]: the conditions on a token as a set of tokens, to compare with other conditions.

use super::pattern::{Pattern, SEPARATORS};
use super::rule::{Condition, Constant};
use crate::identity::ClaimPath;

/// The conditions of a rule or of a delegation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requirements<'r> {
    pub(super) subject: Option<&'r Pattern>,
    pub(super) claims: &'r [(ClaimPath, Condition)],
}

impl<'r> Requirements<'r> {
    /// Returns whether every token that meets these conditions also meets `wider`. Returns `false` if it is not
    /// certain: each condition of `wider` needs an equal or narrower one on the same claim.
    pub(super) fn imply(&self, wider: &Self) -> bool {
        let has_subject = wider.subject.is_none_or(|wider| {
            self.subject.is_some_and(|subject| wider.matches(subject.as_str()))
        });
        let has_claim = |(path, wider): &(ClaimPath, Condition)| {
            self.on(path).is_some_and(|condition| condition.implies(wider))
        };
        has_subject && wider.claims.iter().all(has_claim)
    }

    /// Returns whether no token meets both these conditions and `other`. Returns `false` if it is not certain: two
    /// conditions on the same claim must exclude each other.
    pub(super) fn exclude(&self, other: &Self) -> bool {
        let by_subject = self.subject.zip(other.subject);
        let by_subject = by_subject.is_some_and(|(one, other)| !patterns_intersect(one, other));
        by_subject
            || self.claims.iter().any(|(path, condition)| {
                other.on(path).is_some_and(|other| condition.excludes(other))
            })
    }

    pub(super) fn on(&self, path: &ClaimPath) -> Option<&'r Condition> {
        self.claims.iter().find(|(on, _)| on == path).map(|(_, condition)| condition)
    }
}

impl Condition {
    /// Returns whether every value for which this condition holds also meets `wider`.
    fn implies(&self, wider: &Self) -> bool {
        match (self, wider) {
            (Self::Contains(value), Self::Contains(wider)) => value == wider,
            (Self::Contains(_), _) | (_, Self::Contains(_)) => false,
            (Self::Glob(pattern), Self::Glob(wider)) => wider.matches(pattern.as_str()),
            _ => self.values().is_some_and(|mut values| values.all(|value| wider.accepts(&value))),
        }
    }

    /// Returns whether there is no value for which both conditions hold.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            // It could not be read, so nothing is known about it.
            (Self::OneOf(values), _) | (_, Self::OneOf(values)) if values.is_empty() => false,
            (Self::Contains(_), Self::Contains(_)) => false,
            // One requires a list, the other a single value.
            (Self::Contains(_), _) | (_, Self::Contains(_)) => true,
            (Self::Glob(one), Self::Glob(other)) => !patterns_intersect(one, other),
            (Self::Glob(_), _) => other.excludes(self),
            _ => self.values().is_some_and(|mut values| !values.any(|value| other.accepts(&value))),
        }
    }

    /// Returns the only values for which the condition holds, if it lists them. An empty list stands for a
    /// condition that could not be read, so nothing is known about it.
    fn values(&self) -> Option<impl Iterator<Item = Constant>> {
        let values = match self {
            Self::Eq(value) => vec![value.clone()],
            Self::OneOf(values) if !values.is_empty() => values.clone(),
            Self::Glob(pattern) if pattern.is_exact() => {
                vec![Constant::Text(pattern.as_str().to_owned())]
            }
            _ => return None,
        };
        Some(values.into_iter())
    }

    /// Returns whether the condition holds for a claim with this single value.
    fn accepts(&self, value: &Constant) -> bool {
        match (self, value) {
            (Self::Eq(expected), value) => expected == value,
            (Self::OneOf(expected), value) => expected.contains(value),
            (Self::Glob(pattern), Constant::Text(text)) => pattern.matches(text),
            (Self::Glob(_) | Self::Contains(_), _) => false,
        }
    }
}

/// Returns whether a string matches both patterns. A wildcard is a whole segment, so two patterns with the same
/// separators intersect if each pair of segments does.
fn patterns_intersect(one: &Pattern, other: &Pattern) -> bool {
    let (mut ones, mut others) = (segments(one), segments(other));
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if segments_intersect(one, other) => {}
            _ => return false,
        }
    }
}

/// Returns the segments, each with its separator; the last one has none.
fn segments(pattern: &Pattern) -> impl Iterator<Item = (&str, Option<char>)> {
    let text = pattern.as_str();
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(SEPARATORS) else {
            rest = None;
            return Some((text, None));
        };
        let (segment, after) = text.split_at_checked(at)?;
        let separator = after.chars().next();
        rest = after.get(1..);
        Some((segment, separator))
    })
}

fn segments_intersect(one: (&str, Option<char>), other: (&str, Option<char>)) -> bool {
    let ((one, after_one), (other, after_other)) = (one, other);
    let is_match = match (one, other) {
        ("*", segment) | (segment, "*") => !segment.is_empty(),
        _ => one == other,
    };
    is_match && after_one == after_other
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::support::json::Document;

    fn holds(requirements: &Requirements<'_>, token: &str) -> bool {
        let document = Document::parse(token.as_bytes()).unwrap();
        let claims = document.root();
        let subject = claims.get("sub").and_then(|subject| subject.as_str());
        requirements.subject.is_none_or(|pattern| subject.is_some_and(|it| pattern.matches(it)))
            && requirements.claims.iter().all(|(path, condition)| {
                claims.follow(path.steps()).is_some_and(|value| condition.holds(value))
            })
    }

    fn constant() -> impl Strategy<Value = Constant> {
        prop_oneof![
            "a|b|a:b|a:c|b/a".prop_map(Constant::Text),
            (0i64..2).prop_map(Constant::Integer),
            any::<bool>().prop_map(Constant::Bool),
        ]
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        "(a|b)([:/](a|b|\\*)){0,2}[:/]?".prop_map(|text| Pattern::parse(&text).unwrap())
    }

    fn condition() -> impl Strategy<Value = Condition> {
        prop_oneof![
            constant().prop_map(Condition::Eq),
            prop::collection::vec(constant(), 0..3).prop_map(Condition::OneOf),
            pattern().prop_map(Condition::Glob),
            constant().prop_map(Condition::Contains),
        ]
    }

    fn requirements() -> impl Strategy<Value = (Option<Pattern>, Vec<(ClaimPath, Condition)>)> {
        let claims = prop::collection::btree_map("x|y", condition(), 0..3);
        (prop::option::of(pattern()), claims).prop_map(|(subject, claims)| {
            let claims = claims.into_iter();
            (subject, claims.map(|(name, it)| (name.parse().unwrap(), it)).collect())
        })
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let single = || constant().prop_map(|constant| serde_json::to_value(constant).unwrap());
        prop_oneof![single(), prop::collection::vec(single(), 0..3).prop_map(Into::into)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn comparison_agrees_with_tokens(
            one in requirements(),
            other in requirements(),
            subject in "(a|b)([:/](a|b)){0,2}",
            x in value(),
            y in value(),
        ) {
            let token = serde_json::json!({ "sub": subject, "x": x, "y": y }).to_string();
            let sets = [&one, &other].map(|(subject, claims)| Requirements {
                subject: subject.as_ref(),
                claims,
            });
            let [holds_one, holds_other] = [&sets[0], &sets[1]].map(|set| holds(set, &token));
            if sets[0].imply(&sets[1]) {
                prop_assert!(!holds_one || holds_other, "{:?} in {:?}: {}", one, other, token);
            }
            if sets[0].exclude(&sets[1]) {
                prop_assert!(!(holds_one && holds_other), "{:?} and {:?}: {}", one, other, token);
            }
            prop_assert_eq!(sets[0].exclude(&sets[1]), sets[1].exclude(&sets[0]));
        }
    }

    #[test]
    fn narrower_conditions_imply_wider() {
        let text = |text: &str| Constant::Text(text.to_owned());
        let glob = |text: &str| Condition::Glob(Pattern::parse(text).unwrap());
        let eq = |value: &str| Condition::Eq(text(value));
        let one_of = |values: &[&str]| Condition::OneOf(values.iter().map(|it| text(it)).collect());
        let table = [
            (eq("a"), eq("a"), true),
            (eq("a"), eq("b"), false),
            (eq("a"), one_of(&["a", "b"]), true),
            (eq("c"), one_of(&["a", "b"]), false),
            (eq("a:b"), glob("a:*"), true),
            (eq("a:b:c"), glob("a:*"), false),
            (eq("a:*"), glob("a:*"), true),
            (Condition::Eq(Constant::Integer(1)), eq("1"), false),
            (one_of(&["a"]), eq("a"), true),
            (one_of(&["a", "b"]), eq("a"), false),
            (one_of(&["a", "b"]), one_of(&["b", "c", "a"]), true),
            (one_of(&["a:b", "a:c"]), glob("a:*"), true),
            (one_of(&["a:b", "c"]), glob("a:*"), false),
            (Condition::OneOf(Vec::new()), eq("a"), false),
            (Condition::OneOf(Vec::new()), Condition::OneOf(Vec::new()), false),
            (glob("a:*"), glob("a:*"), true),
            (glob("a:*:b"), glob("a:*:*"), true),
            (glob("a:*:*"), glob("a:*:b"), false),
            (glob("a:*"), glob("a/*"), false),
            (glob("a"), eq("a"), true),
            (glob("a:*"), eq("a:*"), false),
            (Condition::Contains(text("a")), Condition::Contains(text("a")), true),
            (Condition::Contains(text("a")), Condition::Contains(text("b")), false),
            (Condition::Contains(text("a")), eq("a"), false),
            (eq("a"), Condition::Contains(text("a")), false),
        ];
        for (narrow, wide, expected) in table {
            assert_eq!(narrow.implies(&wide), expected, "{narrow} in {wide}");
        }
    }

    #[test]
    fn different_literals_exclude_each_other() {
        let table = [
            ("a:*", "b:*", true),
            ("a:*", "a:b", false),
            ("a:*", "a:b:c", true),
            ("a:*:b", "a:c:*", false),
            ("a:*:b", "a:*:c", true),
            ("a:*", "a/*", true),
            ("a:*", "a:", true),
            ("a:*", "a", true),
        ];
        for (one, other, expected) in table {
            let [one, other] = [one, other].map(|text| Pattern::parse(text).unwrap());
            assert_eq!(!patterns_intersect(&one, &other), expected, "{one:?} {other:?}");
            assert_eq!(!patterns_intersect(&other, &one), expected, "{other:?} {one:?}");
        }
    }
}
