//! [`ClaimTest`]: a condition on the claims of a token.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ClaimPath;
use crate::support::json::Value;

/// The member of an object in a list that [`ClaimTest::contains`] compares: Supabase's `amr` is
/// `[{"method": "totp", "timestamp": 1700000000}]`.
const METHOD: &str = "method";

/// A test of one claim, or of several claims that must all pass.
///
/// [`ClaimsMapping`](super::ClaimsMapping) uses tests to tell service accounts from users, and to recognise
/// multi-factor authentication; [`IssuerConfig::access_token`](field@crate::IssuerConfig::access_token), to tell
/// access tokens from ID tokens. A claim is a name or a JSON pointer, as in [`ClaimPath`]. Values are compared
/// exactly, and case matters. A claim that is absent, `null` or of another type fails the test, except
/// [`is_absent`](Self::is_absent).
///
/// A test with an invalid path or an empty value always fails, and `build()` reports it.
///
/// | in code | in files | in a variable |
/// |---|---|---|
/// | `ClaimTest::is_present("cid")` | `{ claim = "cid" }` | `cid` |
/// | `ClaimTest::is_absent("scp")` | `{ claim = "scp", absent = true }` | `!scp` |
/// | `ClaimTest::equals("idtyp", "app")` | `{ claim = "idtyp", equals = "app" }` | `idtyp=app` |
/// | `ClaimTest::starts_with("sub", "svc-")` | `{ claim = "sub", starts_with = "svc-" }` | `sub^=svc-` |
/// | `ClaimTest::ends_with("sub", "@clients")` | `{ claim = "sub", ends_with = "@clients" }` | `sub$=@clients` |
/// | `ClaimTest::contains("amr", "otp")` | `{ claim = "amr", contains = "otp" }` | `amr*=otp` |
/// | `one.and(other)` | a list: `[{ claim = "a" }, { claim = "b" }]` | `a+b` |
///
/// In a variable, commas and spaces separate tests, and `+` joins them, so a value with one of these characters
/// needs a file or code.
///
/// ```
/// use scaikey_auth::identity::{ClaimTest, ClaimsMapping};
///
/// // A password and a one-time code together are multi-factor authentication.
/// let code = ClaimTest::contains("amr", "pwd").and(ClaimTest::contains("amr", "otp"));
/// assert_eq!("amr*=pwd+amr*=otp".parse(), Ok(code.clone()));
/// let mapping = ClaimsMapping::default().mfa([ClaimTest::equals("acr", "gold"), code]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ClaimTest {
    conditions: Vec<Condition>,
    /// Whether a path or a value cannot be used. Such a test always fails.
    is_invalid: bool,
}

/// The error for a test with an invalid path, an empty value, or an unknown form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write `claim`, `!claim`, `claim=value`, `claim^=start`, `claim$=end` or `claim*=item`, and join tests that must all pass with `+`; the claim is a name or a JSON pointer, and the value is not empty"
)]
pub struct InvalidClaimTest;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    claim: ClaimPath,
    expected: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Present,
    Absent,
    Equals(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
}

impl ClaimTest {
    /// Creates a test that passes if the claim has a value other than `null`.
    pub fn is_present(claim: impl AsRef<str>) -> Self {
        Self::new(claim.as_ref(), Expected::Present)
    }

    /// Creates a test that passes if the claim has no value: it is absent or `null`. Use it only for a claim that
    /// the provider always adds to the other tokens.
    pub fn is_absent(claim: impl AsRef<str>) -> Self {
        Self::new(claim.as_ref(), Expected::Absent)
    }

    /// Creates a test that passes if the claim is this string. `"true"` and `"false"` also equal the booleans.
    pub fn equals(claim: impl AsRef<str>, value: impl Into<String>) -> Self {
        Self::new(claim.as_ref(), Expected::Equals(value.into().into()))
    }

    /// Creates a test that passes if the claim is a string with this start.
    pub fn starts_with(claim: impl AsRef<str>, start: impl Into<String>) -> Self {
        Self::new(claim.as_ref(), Expected::StartsWith(start.into().into()))
    }

    /// Creates a test that passes if the claim is a string with this end.
    pub fn ends_with(claim: impl AsRef<str>, end: impl Into<String>) -> Self {
        Self::new(claim.as_ref(), Expected::EndsWith(end.into().into()))
    }

    /// Creates a test that passes if the claim is a list with this string, a list with an object whose member
    /// `method` is this string, or an object with a member of this name whose value is `true` or an object.
    ///
    /// *Not* searched: a string. Use [`equals`](Self::equals) for a provider whose `amr` is one string.
    pub fn contains(claim: impl AsRef<str>, item: impl Into<String>) -> Self {
        Self::new(claim.as_ref(), Expected::Contains(item.into().into()))
    }

    /// Adds the conditions of `other`. The test then passes only if both pass.
    pub fn and(mut self, other: Self) -> Self {
        self.conditions.extend(other.conditions);
        self.is_invalid |= other.is_invalid;
        self
    }

    fn new(claim: &str, expected: Expected) -> Self {
        Self::try_new(claim, expected).unwrap_or(Self { conditions: Vec::new(), is_invalid: true })
    }

    fn try_new(claim: &str, expected: Expected) -> Result<Self, InvalidClaimTest> {
        let claim = claim.parse().map_err(|_| InvalidClaimTest)?;
        if expected.text() == Some("") {
            return Err(InvalidClaimTest);
        }
        Ok(Self { conditions: vec![Condition { claim, expected }], is_invalid: false })
    }

    pub(crate) fn is_invalid(&self) -> bool {
        self.is_invalid
    }

    pub(crate) fn passes(&self, claims: Value<'_>) -> bool {
        !self.is_invalid && self.conditions.iter().all(|one| one.holds(claims))
    }

    /// Returns the values that the conditions found: the items of lists for `contains`, otherwise the claims.
    pub(super) fn found<'v>(&'v self, claims: Value<'v>) -> impl Iterator<Item = Value<'v>> {
        self.conditions.iter().filter_map(move |one| one.find(claims))
    }
}

impl Expected {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Present | Self::Absent => None,
            Self::Equals(text)
            | Self::StartsWith(text)
            | Self::EndsWith(text)
            | Self::Contains(text) => Some(text),
        }
    }
}

impl Condition {
    fn holds(&self, claims: Value<'_>) -> bool {
        match self.expected {
            Expected::Absent => self.value(claims).is_none(),
            _ => self.find(claims).is_some(),
        }
    }

    fn value<'v>(&self, claims: Value<'v>) -> Option<Value<'v>> {
        claims.follow(self.claim.steps()).filter(|value| !value.is_null())
    }

    /// Returns the value that meets the condition: the claim, or the item or member of it that is contained.
    fn find<'v>(&self, claims: Value<'v>) -> Option<Value<'v>> {
        let value = self.value(claims)?;
        match &self.expected {
            Expected::Present => Some(value),
            Expected::Absent => None,
            Expected::Equals(text) => Some(value).filter(|value| is_text(*value, text)),
            Expected::StartsWith(start) => {
                Some(value).filter(|it| it.as_str().is_some_and(|it| it.starts_with(&**start)))
            }
            Expected::EndsWith(end) => {
                Some(value).filter(|it| it.as_str().is_some_and(|it| it.ends_with(&**end)))
            }
            Expected::Contains(name) if value.is_object() => {
                value.get(name).filter(|member| is_set(*member))
            }
            Expected::Contains(item) => {
                let is_item = |text: Option<&str>| text == Some(&**item);
                value.children().find(|it| {
                    is_item(it.as_str()) || is_item(it.get(METHOD).and_then(Value::as_str))
                })
            }
        }
    }
}

fn is_text(value: Value<'_>, text: &str) -> bool {
    value.as_str() == Some(text) || value.as_bool().is_some_and(|truth| truth.to_string() == text)
}

/// Returns whether the member of an object counts as a name in it: its value is `true` or an object. Other
/// values, such as `false`, `0` and `"no"`, may mean the opposite.
pub(super) fn is_set(member: Value<'_>) -> bool {
    member.is_object() || member.as_bool() == Some(true)
}

impl FromStr for ClaimTest {
    type Err = InvalidClaimTest;

    fn from_str(text: &str) -> Result<Self, InvalidClaimTest> {
        let mut all = text.split('+').map(|one| {
            let Some((claim, value)) = one.split_once('=') else {
                return match one.strip_prefix('!') {
                    Some(claim) => Self::try_new(claim, Expected::Absent),
                    None => Self::try_new(one, Expected::Present),
                };
            };
            // It looks like the opposite of a comparison, which does not exist.
            if claim.starts_with('!') {
                return Err(InvalidClaimTest);
            }
            if let Some(claim) = claim.strip_suffix('^') {
                return Self::try_new(claim, Expected::StartsWith(value.into()));
            }
            if let Some(claim) = claim.strip_suffix('$') {
                return Self::try_new(claim, Expected::EndsWith(value.into()));
            }
            match claim.strip_suffix('*') {
                Some(claim) => Self::try_new(claim, Expected::Contains(value.into())),
                None => Self::try_new(claim, Expected::Equals(value.into())),
            }
        });
        let first = all.next().ok_or(InvalidClaimTest)??;
        all.try_fold(first, |test, next| Ok(test.and(next?)))
    }
}

/// A condition in files.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    claim: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equals: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    starts_with: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_with: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contains: Option<String>,
}

/// A test in files: one condition, or a list of conditions that must all hold.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a table such as { claim = \"idtyp\", equals = \"app\" }, with `claim` and at most one of `absent = true`, `equals`, `starts_with`, `ends_with` and `contains`, or a list of such tables"
)]
enum Tables {
    One(Table),
    All(Vec<Table>),
}

impl TryFrom<Table> for ClaimTest {
    type Error = InvalidClaimTest;

    fn try_from(table: Table) -> Result<Self, InvalidClaimTest> {
        if table.absent == Some(false) {
            return Err(InvalidClaimTest);
        }
        let conditions = [
            table.absent.map(|_| Expected::Absent),
            table.equals.map(|value| Expected::Equals(value.into())),
            table.starts_with.map(|start| Expected::StartsWith(start.into())),
            table.ends_with.map(|end| Expected::EndsWith(end.into())),
            table.contains.map(|item| Expected::Contains(item.into())),
        ];
        let mut given = conditions.into_iter().flatten();
        match (given.next(), given.next()) {
            (_, Some(_)) => Err(InvalidClaimTest),
            (one, None) => Self::try_new(&table.claim, one.unwrap_or(Expected::Present)),
        }
    }
}

impl From<&Condition> for Table {
    fn from(Condition { claim, expected }: &Condition) -> Self {
        let mut table = Self { claim: claim.to_string(), ..Self::default() };
        let text = expected.text().map(str::to_owned);
        match expected {
            Expected::Present => {}
            Expected::Absent => table.absent = Some(true),
            Expected::Equals(_) => table.equals = text,
            Expected::StartsWith(_) => table.starts_with = text,
            Expected::EndsWith(_) => table.ends_with = text,
            Expected::Contains(_) => table.contains = text,
        }
        table
    }
}

impl<'de> Deserialize<'de> for ClaimTest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let invalid = |_| {
            serde::de::Error::custom(
                "a test has `claim`, a name or a JSON pointer, and at most one of `absent = true`, `equals`, `starts_with`, `ends_with` and `contains`, which is not empty",
            )
        };
        let tables = match Tables::deserialize(from)? {
            Tables::One(table) => vec![table],
            Tables::All(tables) => tables,
        };
        let tests = tables.into_iter().map(Self::try_from);
        let all = tests.reduce(|test, next| Ok(test?.and(next?)));
        all.unwrap_or(Err(InvalidClaimTest)).map_err(invalid)
    }
}

/// A test from code that is [invalid](ClaimTest) is written as an empty list, which cannot be read.
impl Serialize for ClaimTest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut all: Vec<Table> = self.conditions.iter().map(Table::from).collect();
        match (all.len(), all.pop()) {
            _ if self.is_invalid => Tables::All(Vec::new()).serialize(to),
            (1, Some(table)) => Tables::One(table).serialize(to),
            (_, last) => {
                all.extend(last);
                Tables::All(all).serialize(to)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::json::Document;

    #[test]
    fn test_has_three_equal_forms() {
        let table = [
            (ClaimTest::is_present("cid"), "cid", r#"{"claim":"cid"}"#),
            (ClaimTest::is_absent("scp"), "!scp", r#"{"claim":"scp","absent":true}"#),
            (ClaimTest::equals("idtyp", "app"), "idtyp=app", r#"{"claim":"idtyp","equals":"app"}"#),
            (ClaimTest::equals("a", "b=c"), "a=b=c", r#"{"claim":"a","equals":"b=c"}"#),
            (
                ClaimTest::starts_with("/a/b", "svc-"),
                "/a/b^=svc-",
                r#"{"claim":"/a/b","starts_with":"svc-"}"#,
            ),
            (
                ClaimTest::ends_with("sub", "@clients"),
                "sub$=@clients",
                r#"{"claim":"sub","ends_with":"@clients"}"#,
            ),
            (
                ClaimTest::contains("amr", "pwd").and(ClaimTest::contains("amr", "otp")),
                "amr*=pwd+amr*=otp",
                r#"[{"claim":"amr","contains":"pwd"},{"claim":"amr","contains":"otp"}]"#,
            ),
        ];
        for (test, text, json) in table {
            assert_eq!(text.parse(), Ok(test.clone()), "{text}");
            assert_eq!(serde_json::from_str::<ClaimTest>(json).unwrap(), test, "{json}");
            assert_eq!(serde_json::to_string(&test).unwrap(), json);
        }
    }

    #[test]
    fn invalid_test_is_refused_or_fails() {
        for text in ["", "+", "a+", "=b", "a=", "a^=", "/~2", "amr*=pwd++amr*=otp", "!", "!a=b"] {
            assert_eq!(text.parse::<ClaimTest>(), Err(InvalidClaimTest), "{text:?}");
        }
        for json in [
            "[]",
            "7",
            r#""a=b""#,
            r#"{"equals":"b"}"#,
            r#"{"claim":""}"#,
            r#"{"claim":"a","equals":""}"#,
            r#"{"claim":"a","equals":7}"#,
            r#"{"claim":"a","is":"b"}"#,
            r#"{"claim":"a","absent":false}"#,
            r#"{"claim":"a","absent":true,"equals":"b"}"#,
            r#"{"claim":"a","equals":"b","contains":"b"}"#,
        ] {
            assert!(serde_json::from_str::<ClaimTest>(json).is_err(), "{json}");
        }
        let claims = Document::parse(r#"{"a":"b"}"#).unwrap();
        let good = ClaimTest::equals("a", "b");
        assert!(good.passes(claims.root()));
        for bad in
            [ClaimTest::is_present(""), ClaimTest::is_absent(""), ClaimTest::starts_with("a", "")]
        {
            let joined = good.clone().and(bad.clone());
            for test in [bad, joined] {
                assert!(test.is_invalid() && !test.passes(claims.root()));
            }
        }
    }

    #[test]
    fn test_compares_type_and_value() {
        let table = [
            ("a", r#"{"a":false}"#, true),
            ("a", r#"{"a":null}"#, false),
            ("a", r#"{}"#, false),
            ("!a", r#"{"b":"c"}"#, true),
            ("!a", r#"{"a":null}"#, true),
            ("!a", r#"{"a":""}"#, false),
            ("!/a/b", r#"{"a":"b"}"#, true),
            ("!a+b", r#"{"a":1,"b":1}"#, false),
            ("a=b", r#"{"a":"b"}"#, true),
            ("a=b", r#"{"a":"B"}"#, false),
            ("a=b", r#"{"a":["b"]}"#, false),
            ("a=true", r#"{"a":true}"#, true),
            ("a=true", r#"{"a":false}"#, false),
            ("a=1", r#"{"a":1}"#, false),
            ("a^=b-", r#"{"a":"b-c"}"#, true),
            ("a^=b-", r#"{"a":"b"}"#, false),
            ("a^=b-", r#"{"a":["b-c"]}"#, false),
            ("a$=-c", r#"{"a":"b-c"}"#, true),
            ("a$=-c", r#"{"a":"c"}"#, false),
            ("a$=-c", r#"{"a":["b-c"]}"#, false),
            ("a*=b", r#"{"a":["c","b"]}"#, true),
            ("a*=b", r#"{"a":["bb",["b"],7,null]}"#, false),
            ("a*=b", r#"{"a":"b"}"#, false),
            ("a*=b", r#"{"a":[{"method":"b","timestamp":1}]}"#, true),
            ("a*=b", r#"{"a":[{"name":"b"},{"method":["b"]}]}"#, false),
            ("a*=b", r#"{"a":{"b":{"org":"x"}}}"#, true),
            ("a*=b", r#"{"a":{"b":false,"method":"b"}}"#, false),
            ("/a/0=b", r#"{"a":["b"]}"#, true),
            ("a=b+c", r#"{"a":"b","c":1}"#, true),
            ("a=b+c", r#"{"a":"b"}"#, false),
        ];
        for (test, json, expected) in table {
            let (test, claims) =
                (test.parse::<ClaimTest>().unwrap(), Document::parse(json).unwrap());
            assert_eq!(test.passes(claims.root()), expected, "{test:?} {json}");
        }
    }
}
