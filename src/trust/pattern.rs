//! [`Pattern`]: a pattern for strings (`glob` in a policy). Its `*` matches one whole segment.

use serde::Serialize;

use super::fault::shorten;

/// Characters that separate segments. A wildcard never matches one.
pub(super) const SEPARATORS: [char; 2] = [':', '/'];

/// An exact string, or a pattern of segments: `system:serviceaccount:reports:*`.
///
/// `*` matches one whole, non-empty segment. All other characters must match exactly. The pattern
/// must match the whole string: `a:*` matches `a:b`, but neither `a:b:c` nor `x:a:b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Pattern(Box<str>);

impl Pattern {
    /// Parses a pattern. The error says what to change.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        if !pattern.contains('*') {
            return Ok(Self(pattern.into()));
        }
        let mut segments = pattern.split(SEPARATORS);
        if segments.next().is_none_or(|first| first.is_empty() || first.contains('*')) {
            return Err(
                "begins with a wildcard: begin with a literal segment, such as `repo:`".to_owned()
            );
        }
        if pattern.contains("**") {
            return Err(
                "has `**`: a wildcard cannot match `:` or `/`; write one `*` for each segment"
                    .to_owned(),
            );
        }
        match segments.find(|segment| segment.contains('*') && *segment != "*") {
            Some(partial) => Err(format!(
                "has `*` inside the segment `{}`, which would also match other names with the same beginning: use `*` only as a whole segment between `:` or `/`",
                shorten(partial)
            )),
            None => Ok(Self(pattern.into())),
        }
    }

    /// Returns whether the pattern has no wildcard.
    pub(super) fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern matches the whole of `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        // Ten times as fast, for policies with thousands of rules.
        if self.is_exact() {
            return *self.0 == *text;
        }
        let mut expected = self.0.split_inclusive(SEPARATORS);
        let mut actual = text.split_inclusive(SEPARATORS);
        loop {
            match (expected.next(), actual.next()) {
                (None, None) => return true,
                (Some(expected), Some(actual)) if segment_matches(expected, actual) => {}
                _ => return false,
            }
        }
    }
}

/// Compares two segments, each with its trailing separator unless it is the last.
fn segment_matches(expected: &str, actual: &str) -> bool {
    let Some(separator) = expected.strip_prefix('*') else { return expected == actual };
    let continues = separator.is_empty() && actual.ends_with(SEPARATORS);
    actual.strip_suffix(separator).is_some_and(|segment| !segment.is_empty()) && !continues
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcard_must_be_whole_later_segment() {
        for pattern in ["a:*", "repo:acme/*:ref:refs/heads/main", "arn:aws:iam::1:role/*", "a:*:b"]
        {
            assert!(Pattern::parse(pattern).is_ok(), "{pattern}");
        }
        for pattern in ["*", "*:a", "/x/*", "repo:acme*", "repo:acme/**", "a:b*:c", "*a:b", "a*:b"]
        {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn wildcard_matches_exactly_one_segment() {
        let table = [
            ("repo:acme/*", "repo:acme/x", true),
            ("repo:acme/*", "repo:acme/x:ref:refs/heads/main", false),
            ("repo:acme/*", "repo:acme-evil/x", false),
            ("repo:acme/*", "repo:acme/", false),
            ("repo:acme/*", "repo:acme/x/", false),
            ("repo:acme/*", "repo:acme/x:", false),
            ("repo:acme/*", "xrepo:acme/x", false),
            ("repo:acme/*", "REPO:acme/x", false),
            ("a:*:b", "a:x:b", true),
            ("a:*:b", "a::b", false),
            ("a:*:b", "a:x/b", false),
            ("a:*:b", "a:x:y:b", false),
            ("system:serviceaccount:a:*", "system:serviceaccount:a:b:c", false),
            ("arn:aws:iam::1:role/*", "arn:aws:iam::1:role/A", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(text),
                expected,
                "{pattern} on {text}"
            );
        }
    }

    proptest! {
        #[test]
        fn match_never_crosses_a_separator(
            pattern in "[ab]{1,2}([:/]([ab]{1,2}|\\*)){0,4}[:/]?",
            text in "[ab]{1,2}([:/][ab*]{0,2}){0,5}",
        ) {
            let parsed = Pattern::parse(&pattern).unwrap();
            let separators = |text: &str| -> String {
                text.chars().filter(|c| SEPARATORS.contains(c)).collect()
            };
            let segments = |text: &str| -> Vec<String> {
                text.split(SEPARATORS).map(str::to_owned).collect()
            };
            // A second implementation of the same rule.
            let expected = separators(&pattern) == separators(&text)
                && segments(&pattern).iter().zip(&segments(&text)).all(|(expected, segment)| {
                    expected == segment || (expected == "*" && !segment.is_empty())
                });
            prop_assert_eq!(parsed.matches(&text), expected);
        }

        #[test]
        fn filled_wildcard_matches_unless_separator(
            filling in "[a-z:/@%*.]{1,6}",
        ) {
            let pattern = Pattern::parse("repo:acme/*:ref:main").unwrap();
            let text = format!("repo:acme/{filling}:ref:main");
            prop_assert_eq!(pattern.matches(&text), !filling.contains(SEPARATORS));
        }
    }
}
