//! [`Grant`]: a rule that gives matching tokens an identity, and the comparison of tokens with it.

use std::fmt;

use serde::{Serialize, Serializer};

use super::fault::{Position, shorten};
use super::pattern::{Pattern, SEPARATORS};
use super::requirements::Requirements;
use super::tree::Positions;
use crate::identity::{ClaimPath, Scopes, TenantId};
use crate::support::json::Value;

/// The limit of an identity made from a template, in bytes.
pub(super) const MAX_IDENTITY_BYTES: usize = 255;

/// The limit of the placeholders in a template. Each is compared with all conditions of its rule.
const MAX_PLACEHOLDERS: usize = 16;

/// A rule: the conditions, and the identity, tenant and scopes of a match.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Grant {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Pattern>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_table")]
    pub(super) claims: Vec<(ClaimPath, Condition)>,
    pub(super) map: Mapping,
    #[serde(skip)]
    pub(super) positions: Positions,
    /// Whether all conditions could be read.
    #[serde(skip)]
    pub(super) is_complete: bool,
}

/// The identity, tenant and scopes of a match.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Mapping {
    pub(super) identity: Template,
    pub(super) tenant: TenantId,
    pub(super) scopes: Scopes,
    #[serde(skip)]
    pub(super) positions: Positions,
}

impl Grant {
    /// Returns the place of a field, such as `map.identity`.
    pub(super) fn position_of(&self, field: &str) -> Position {
        match field.strip_prefix("map.") {
            Some(field) => self.map.positions.of(field),
            None => self.positions.of(field),
        }
    }
}

pub(super) fn as_table<S: Serializer>(
    claims: &[(ClaimPath, Condition)],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_map(claims.iter().map(|(path, condition)| (path, condition)))
}

/// A value that a claim is compared with. It equals only a claim of the same type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub(super) enum Constant {
    Text(String),
    Integer(i64),
    Bool(bool),
}

impl Constant {
    fn equals(&self, value: Value<'_>) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            // The parser rejects integers that `f64` would round.
            Self::Integer(number) => value.as_f64() == Some(*number as f64),
            Self::Bool(flag) => value.as_bool() == Some(*flag),
        }
    }
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Bool(flag) => write!(f, "{flag}"),
        }
    }
}

/// A condition on a claim. It never holds for an absent claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Condition {
    Eq(Constant),
    OneOf(Vec<Constant>),
    Glob(Pattern),
    /// The claim is a list that contains this value.
    Contains(Constant),
}

impl Condition {
    pub(super) fn holds(&self, value: Value<'_>) -> bool {
        match self {
            Self::Eq(constant) => constant.equals(value),
            Self::OneOf(constants) => constants.iter().any(|constant| constant.equals(value)),
            Self::Glob(pattern) => value.as_str().is_some_and(|text| pattern.matches(text)),
            Self::Contains(constant) => {
                value.is_list() && value.children().any(|item| constant.equals(item))
            }
        }
    }

    /// Returns whether the condition can hold for a value that is not a string. Such a value cannot
    /// be part of an identity.
    pub(super) fn accepts_non_string(&self) -> bool {
        let is_text = |constant: &Constant| matches!(constant, Constant::Text(_));
        match self {
            Self::Eq(constant) => !is_text(constant),
            Self::OneOf(constants) => !constants.iter().all(is_text),
            Self::Glob(_) => false,
            Self::Contains(_) => true,
        }
    }

    /// Returns whether the condition lists the accepted values.
    pub(super) fn lists_values(&self) -> bool {
        matches!(self, Self::Eq(_) | Self::OneOf(_))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eq(constant) => write!(f, "{constant}"),
            Self::OneOf(constants) => {
                f.write_str("one of")?;
                constants.iter().try_for_each(|constant| write!(f, " {constant}"))
            }
            Self::Glob(pattern) => write!(f, "a string that matches {:?}", pattern.as_str()),
            Self::Contains(constant) => write!(f, "a list that contains {constant}"),
        }
    }
}

/// The template of an identity, with the placeholders `{trust}`, `{sub}` and `{/json/pointer}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Template {
    text: String,
    #[serde(skip)]
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    Trust,
    Claim(ClaimPath),
}

impl Template {
    /// Parses a template. The error says what to change.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.matches('{').count() > MAX_PLACEHOLDERS {
            return Err(format!("has more than {MAX_PLACEHOLDERS} placeholders"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err("has `{` without `}`".to_owned());
            };
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(match name {
                "trust" => Part::Trust,
                path => Part::Claim(path.parse().map_err(|_| {
                    format!("has the unknown placeholder `{{{}}}`: use {{trust}}, {{sub}} or a claim such as {{/kubernetes.io/namespace}}", shorten(path))
                })?),
            });
            rest = after;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        if parts.iter().any(|part| matches!(part, Part::Text(text) if !is_name(text))) {
            return Err("has white space, control characters, or `}` without `{`".to_owned());
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the claims that the template uses.
    pub(super) fn claims(&self) -> impl Iterator<Item = &ClaimPath> {
        self.parts.iter().filter_map(|part| match part {
            Part::Claim(path) => Some(path),
            _ => None,
        })
    }

    /// Returns whether different values always give different identities. This requires that
    /// `{trust}` is a whole segment, and that a separator stands between two claims (separators in
    /// their values are encoded).
    pub(super) fn is_unambiguous(&self) -> bool {
        let last = self.parts.iter().rposition(|part| !matches!(part, Part::Text(_)));
        self.parts.windows(2).enumerate().all(|(nth, pair)| match pair {
            [Part::Text(before), Part::Trust] => before.ends_with(SEPARATORS),
            [Part::Trust, Part::Text(after)] => after.starts_with(SEPARATORS),
            [Part::Claim(_), Part::Text(after)] => last == Some(nth) || after.contains(SEPARATORS),
            [Part::Text(_), _] => true,
            _ => false,
        })
    }

    /// Returns whether a claim stands before `{trust}`.
    pub(super) fn has_claim_before_trust(&self) -> bool {
        let trust = self.parts.iter().rposition(|part| *part == Part::Trust);
        let claim = self.parts.iter().position(|part| matches!(part, Part::Claim(_)));
        trust.zip(claim).is_some_and(|(trust, claim)| claim < trust)
    }

    /// Returns a template with the same placeholders, each in a segment of its own, to suggest in
    /// an error.
    pub(super) fn suggestion(&self) -> String {
        let kind = self.text.split(SEPARATORS).next().filter(|kind| !kind.contains('{'));
        let mut segments = vec![kind.unwrap_or("sa").to_owned()];
        segments.extend(self.parts.contains(&Part::Trust).then(|| "{trust}".to_owned()));
        segments.extend(self.claims().map(|path| format!("{{{path}}}")));
        segments.join(":")
    }

    /// Fills in the template. Returns `None` if a claim is missing, empty or not a string, or if
    /// the identity exceeds 255 bytes.
    ///
    /// Values are percent-encoded, including `%`, so that different values stay different. If there
    /// are several claims, separators in their values are encoded too.
    pub(super) fn fill(&self, trust: &str, claims: Value<'_>) -> Option<String> {
        let keeps_separators = self.claims().count() < 2;
        let mut identity = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => identity.push_str(text),
                Part::Trust => identity.push_str(trust),
                Part::Claim(path) => {
                    let value = claims.follow(path.steps())?.as_str();
                    let value = value.filter(|value| !value.is_empty())?;
                    identity.push_str(&encoded(value, keeps_separators));
                }
            }
        }
        (identity.len() <= MAX_IDENTITY_BYTES).then_some(identity)
    }
}

impl Template {
    /// Returns whether some claims would fill in the template as this identity.
    pub(super) fn may_give(&self, identity: &str, trust: &str) -> bool {
        let identity = identity.as_bytes();
        // Whether the parts so far can fill the first n bytes. Never exponential, as backtracking could be.
        let mut fills: Vec<bool> = (0..=identity.len()).map(|length| length == 0).collect();
        for part in &self.parts {
            let literal = match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Trust => Some(trust),
                Part::Claim(_) => None,
            };
            fills = match literal {
                Some(text) => after_literal(&fills, identity, text.as_bytes()),
                None => after_claim(&fills),
            };
        }
        fills.last() == Some(&true)
    }
}

/// Returns the lengths that are filled after a literal part.
fn after_literal(fills: &[bool], identity: &[u8], text: &[u8]) -> Vec<bool> {
    let is_filled = |end: usize| {
        let begin = end.checked_sub(text.len())?;
        let is_match = identity.get(begin..end) == Some(text);
        fills.get(begin).map(|is_filled| *is_filled && is_match)
    };
    (0..fills.len()).map(|end| is_filled(end).unwrap_or(false)).collect()
}

/// Returns the lengths that are filled after a claim, which has at least one byte.
fn after_claim(fills: &[bool]) -> Vec<bool> {
    let first = fills.iter().position(|is_filled| *is_filled);
    (0..fills.len()).map(|end| first.is_some_and(|begin| begin < end)).collect()
}

/// Percent-encodes a claim for an identity (RFC 3986 §2.1): all characters that could break a log
/// line, look like another character, or pass for a placeholder.
pub(super) fn encoded(value: &str, keeps_separators: bool) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        let character = char::from(byte);
        let is_kept = character.is_ascii_graphic() && !['%', '{', '}'].contains(&character);
        if is_kept && (keeps_separators || !SEPARATORS.contains(&character)) {
            text.push(character);
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Returns whether the literal part of a template is safe in a log line.
fn is_name(text: &str) -> bool {
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '{' || c == '}';
    !text.is_empty() && !text.chars().any(is_forbidden)
}

/// The first condition of a rule that a token does not meet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mismatch {
    Subject,
    /// The index of the condition.
    Claim(usize),
}

impl Grant {
    /// Returns the conditions, to compare them with others.
    pub(super) fn requirements(&self) -> Requirements<'_> {
        Requirements { subject: self.subject.as_ref(), claims: &self.claims }
    }

    /// Compares the claims of a verified token with the rule.
    pub(super) fn compare(&self, claims: Value<'_>) -> Result<(), Mismatch> {
        let subject = claims.get("sub").and_then(Value::as_str);
        if let Some(pattern) = &self.subject
            && !subject.is_some_and(|subject| pattern.matches(subject))
        {
            return Err(Mismatch::Subject);
        }
        let met = |(path, condition): &(ClaimPath, Condition)| {
            claims.follow(path.steps()).is_some_and(|value| condition.holds(value))
        };
        match self.claims.iter().position(|condition| !met(condition)) {
            Some(nth) => Err(Mismatch::Claim(nth)),
            None => Ok(()),
        }
    }

    /// Returns the requested scopes if the rule permits them, or all permitted scopes if none were
    /// requested.
    pub(super) fn permitted(&self, requested: &Scopes) -> Option<Scopes> {
        let permitted = &self.map.scopes;
        match requested.is_empty() {
            true => Some(permitted.clone()),
            false => permitted.contains_all(requested).then(|| requested.clone()),
        }
    }

    /// Describes a mismatch for administrators: the text quotes claims.
    pub(super) fn describe(&self, mismatch: &Mismatch, claims: Value<'_>) -> String {
        let (name, value, required) = match mismatch {
            Mismatch::Subject => {
                let subject = self.subject.as_ref().map_or("", Pattern::as_str);
                ("sub".to_owned(), claims.get("sub"), format!("{subject:?}"))
            }
            Mismatch::Claim(nth) => {
                let Some((path, condition)) = self.claims.get(*nth) else { return String::new() };
                (path.to_string(), claims.follow(path.steps()), condition.to_string())
            }
        };
        format!("`{name}` is {}, but the rule requires {required}", quote(value))
    }

    /// Returns the conditions on the claims that `is_selected` selects.
    pub(super) fn conditions(
        &self,
        is_selected: impl Fn(&ClaimPath) -> bool,
    ) -> impl Iterator<Item = &Condition> {
        self.claims
            .iter()
            .filter(move |(path, _)| is_selected(path))
            .map(|(_, condition)| condition)
    }

    /// Returns the exact string or the pattern that a claim must match, if there is one.
    pub(super) fn required_text(&self, path: &ClaimPath) -> Option<RequiredText<'_>> {
        if is_top_level(path, "sub") {
            return self.subject.as_ref().map(RequiredText::of);
        }
        self.conditions(|on| on == path).find_map(|condition| match condition {
            Condition::Eq(Constant::Text(text)) => Some(RequiredText::Exact(text)),
            Condition::Glob(pattern) => Some(RequiredText::of(pattern)),
            _ => None,
        })
    }
}

/// The string that a rule requires in a claim.
pub(super) enum RequiredText<'r> {
    Exact(&'r str),
    Pattern(&'r str),
}

impl<'r> RequiredText<'r> {
    fn of(pattern: &'r Pattern) -> Self {
        match pattern.is_exact() {
            true => Self::Exact(pattern.as_str()),
            false => Self::Pattern(pattern.as_str()),
        }
    }
}

/// Returns whether the path is that of the top-level claim `name`.
pub(super) fn is_top_level(path: &ClaimPath, name: &str) -> bool {
    matches!(path.steps(), [only] if **only == *name)
}

/// Formats a claim for administrators: escaped and shortened.
pub(super) fn quote(value: Option<Value<'_>>) -> String {
    let Some(value) = value else { return "absent".to_owned() };
    if let Some(text) = value.as_str() {
        let shown: String = text.chars().take(120).collect();
        let cut = if shown.len() < text.len() { " (cut)" } else { "" };
        return format!("{shown:?}{cut}");
    }
    match (value.as_f64(), value.as_bool()) {
        (Some(number), _) => number.to_string(),
        (_, Some(flag)) => flag.to_string(),
        _ if value.is_list() => {
            let items: Vec<String> =
                value.children().take(8).map(|item| quote(Some(item))).collect();
            format!("[{}]", items.join(", "))
        }
        _ if value.is_null() => "null".to_owned(),
        _ => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::support::json::Document;

    fn holds(condition: &Condition, claim: &str) -> bool {
        let text = format!(r#"{{"c":{claim}}}"#);
        let document = Document::parse(text.as_bytes()).unwrap();
        document.root().get("c").is_some_and(|value| condition.holds(value))
    }

    #[test]
    fn conditions_compare_type_and_value() {
        let text = |text: &str| Constant::Text(text.to_owned());
        let table = [
            (Condition::Eq(text("a")), "\"a\"", true),
            (Condition::Eq(text("a")), "\"A\"", false),
            (Condition::Eq(text("1")), "1", false),
            (Condition::Eq(text("true")), "true", false),
            (Condition::Eq(text("a")), "[\"a\"]", false),
            (Condition::Eq(text("a")), "null", false),
            (Condition::Eq(Constant::Integer(7)), "7", true),
            (Condition::Eq(Constant::Integer(7)), "7.5", false),
            (Condition::Eq(Constant::Integer(7)), "\"7\"", false),
            (Condition::Eq(Constant::Bool(true)), "true", true),
            (Condition::Eq(Constant::Bool(true)), "\"true\"", false),
            (Condition::OneOf(vec![text("a"), text("b")]), "\"b\"", true),
            (Condition::OneOf(vec![text("a"), text("b")]), "\"c\"", false),
            (Condition::OneOf(vec![]), "\"c\"", false),
            (Condition::Contains(text("a")), "[\"b\",\"a\"]", true),
            (Condition::Contains(text("a")), "\"a\"", false),
            (Condition::Contains(text("a")), "{\"x\":\"a\"}", false),
            (Condition::Glob(Pattern::parse("a/*").unwrap()), "\"a/b\"", true),
            (Condition::Glob(Pattern::parse("a/*").unwrap()), "\"a/b/c\"", false),
        ];
        for (condition, claim, expected) in table {
            assert_eq!(holds(&condition, claim), expected, "{condition} on {claim}");
        }
    }

    proptest! {
        #[test]
        fn different_values_give_different_identities(
            one in prop::array::uniform2("[a%23:/ {}-]{1,4}"),
            other in prop::array::uniform2("[a%23:/ {}-]{1,4}"),
            template in prop::sample::select(vec![
                "sa:{trust}:{a}:{b}", "sa:{a}-:x{b}", "sa:{trust}/{a}/-{b}/x", "sa:{trust}:{a}",
            ]),
        ) {
            let fill = |[a, b]: &[String; 2]| {
                let claims = serde_json::json!({ "a": a, "b": b }).to_string();
                let document = Document::parse(claims).unwrap();
                Template::parse(template).unwrap().fill("k8s", document.root()).unwrap()
            };
            let is_same = one[0] == other[0] && (one[1] == other[1] || !template.contains("{b}"));
            prop_assert!(Template::parse(template).unwrap().is_unambiguous());
            prop_assert_eq!(fill(&one) == fill(&other), is_same, "{} {}", fill(&one), fill(&other));
        }
    }

    #[test]
    fn template_knows_what_it_may_give() {
        for (template, identity, expected) in [
            ("sa:deploy", "sa:deploy", true),
            ("sa:deploy", "sa:deploy2", false),
            ("sa:deploy", "sa:deplo", false),
            ("sa:{trust}:{sub}", "sa:k8s:a:b", true),
            ("sa:{trust}:{sub}", "sa:k8s:", false),
            ("sa:{trust}:{sub}", "sa:k9s:a", false),
            ("sa:{trust}:{ns}:{name}", "sa:k8s:a:b", true),
            ("sa:{trust}:{ns}:{name}", "sa:k8s:a", false),
            ("sa:{trust}:{sub}:x", "sa:k8s:x:x:x", true),
            ("sa:{trust}:{sub}:x", "sa:k8s:x:x:y", false),
            ("sa:{trust}:{sub}", "", false),
            ("sa:{trust}:{sub}", "é", false),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(template.may_give(identity, "k8s"), expected, "{template:?}: {identity}");
        }
    }

    #[test]
    fn template_percent_encodes_claims() {
        let fill = |template: &str, claims: &str| {
            let document = Document::parse(claims.as_bytes()).unwrap();
            Template::parse(template).unwrap().fill("k8s", document.root())
        };
        assert_eq!(fill("sa:{trust}:{sub}", r#"{"sub":"a:b"}"#).as_deref(), Some("sa:k8s:a:b"));
        assert_eq!(fill("sa:{/k/n}", r#"{"k":{"n":"x"}}"#).as_deref(), Some("sa:x"));
        assert_eq!(fill("sa:{a}:{b}", r#"{"a":"x","b":"y"}"#).as_deref(), Some("sa:x:y"));
        let encoded = [
            ("sa:{a}:{b}", r#"{"a":"x:y","b":"z"}"#, "sa:x%3Ay:z"),
            ("sa:{a}:{b}", r#"{"a":"x","b":"y/z"}"#, "sa:x:y%2Fz"),
            ("sa:{sub}", r#"{"sub":"a b"}"#, "sa:a%20b"),
            ("sa:{sub}", r#"{"sub":"a%20b"}"#, "sa:a%2520b"),
            ("sa:{sub}", r#"{"sub":"a\u0000"}"#, "sa:a%00"),
            ("sa:{sub}", r#"{"sub":"{trust}"}"#, "sa:%7Btrust%7D"),
        ];
        for (template, claims, identity) in encoded {
            assert_eq!(fill(template, claims).as_deref(), Some(identity), "{template} on {claims}");
        }
        let incomplete =
            [("sa:{sub}", r#"{"sub":""}"#), ("sa:{sub}", r#"{"sub":7}"#), ("sa:{sub}", r#"{}"#)];
        for (template, claims) in incomplete {
            assert_eq!(fill(template, claims), None, "{template} on {claims}");
        }
        assert_eq!(fill("sa:{sub}", &format!(r#"{{"sub":"{}"}}"#, "x".repeat(300))), None);
        for template in ["sa:{sub", "sa:sub}", "sa: x", "sa:{}", "sa:{/a~2}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }
}
