//! [`Pattern`]: a text whose `*` stands for one whole segment and cannot cross a separator.

use serde::Serialize;

/// What segments are separated by. A wildcard never stands for one of these.
pub(super) const SEPARATORS: [char; 2] = [':', '/'];

/// A text, or a pattern of segments: `system:serviceaccount:reports:*`.
///
/// `*` stands for one segment, whole and not empty; everything else stands for itself, letter for
/// letter. The pattern covers the whole text: `a:*` matches `a:b`, neither `a:b:c` nor `x:a:b`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Pattern(Box<str>);

impl Pattern {
    /// A text without `*` stands for itself.
    ///
    /// The error says what to do.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        if !pattern.contains('*') {
            return Ok(Self(pattern.into()));
        }
        let mut segments = pattern.split(SEPARATORS);
        if segments.next().is_none_or(|first| first.is_empty() || first.contains('*')) {
            return Err(
                "begins with a wildcard: begin with a segment that is written out, such as `repo:`"
                    .to_owned(),
            );
        }
        if pattern.contains("**") {
            return Err(
                "has `**`: a wildcard cannot cross `:` or `/`; write one `*` for each segment"
                    .to_owned(),
            );
        }
        match segments.find(|segment| segment.contains('*') && *segment != "*") {
            Some(partial) => Err(format!(
                "has `*` in a part of the segment `{partial}`, so that a name that begins alike would match; `*` must be a whole segment between `:` or `/`"
            )),
            None => Ok(Self(pattern.into())),
        }
    }

    /// Whether there is no wildcard in it.
    pub(super) fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, and whether it stands for itself alone.
    pub(super) fn look(&self) -> (&str, bool) {
        (&self.0, self.is_exact())
    }

    /// Whether the pattern covers `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut wanted = self.0.split_inclusive(SEPARATORS);
        let mut pieces = text.split_inclusive(SEPARATORS);
        loop {
            match (wanted.next(), pieces.next()) {
                (None, None) => return true,
                (Some(wanted), Some(piece)) if covers(wanted, piece) => {}
                _ => return false,
            }
        }
    }
}

/// Both end with their separator, unless they are the last.
fn covers(wanted: &str, piece: &str) -> bool {
    let Some(separator) = wanted.strip_prefix('*') else { return wanted == piece };
    let is_open_end = separator.is_empty() && piece.ends_with(SEPARATORS);
    piece.strip_suffix(separator).is_some_and(|segment| !segment.is_empty()) && !is_open_end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_must_be_anchored_and_made_of_whole_segments() {
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
    fn a_wildcard_stands_for_exactly_one_segment() {
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
        fn a_match_never_crosses_a_separator(
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
            // What the words above say, told in another way.
            let expected = separators(&pattern) == separators(&text)
                && segments(&pattern).iter().zip(&segments(&text)).all(|(wanted, segment)| {
                    wanted == segment || (wanted == "*" && !segment.is_empty())
                });
            prop_assert_eq!(parsed.matches(&text), expected);
        }

        #[test]
        fn what_a_pattern_is_filled_with_matches_unless_it_has_a_separator(
            filling in "[a-z:/@%*.]{1,6}",
        ) {
            let glob = Pattern::parse("repo:acme/*:ref:main").unwrap();
            let text = format!("repo:acme/{filling}:ref:main");
            prop_assert_eq!(glob.matches(&text), !filling.contains(SEPARATORS));
        }
    }
}
