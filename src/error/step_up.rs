//! [`StepUp`]: the sign-in that a request needs (RFC 9470).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// The sign-in that a request needs: the content of [`AuthError::StepUpRequired`](super::AuthError::StepUpRequired),
/// and of its challenge (RFC 9470 §3). Default: nothing.
///
/// The guards [`acr`](crate::guard::acr), [`signed_in_within`](crate::guard::signed_in_within) and
/// [`mfa_within`](crate::guard::mfa_within) build one. A handler that decides by the body of the request does it
/// itself:
///
/// ```
/// use scaikey_auth::error::StepUp;
/// use scaikey_auth::{AuthError, Identity};
///
/// /// Requires the class `gold` for large transfers.
/// fn check(caller: &Identity, euros: u32) -> Result<(), AuthError> {
///     if euros <= 1000 || caller.acr() == Some("gold") {
///         return Ok(());
///     }
///     Err(StepUp::default().acr_values(["gold"]).into())
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepUp {
    /// The maximum age of the authentication; the challenge has whole seconds, rounded down. Default: any age.
    pub max_age: Option<Duration>,
    /// The accepted authentication context classes (`acr`), separated by spaces, the preferred one first.
    /// Default: any class.
    pub acr_values: Option<Arc<str>>,
    /// The scopes that the operation needs, separated by spaces. A token from a new sign-in must have them, too.
    /// Default: none.
    pub scope: Option<Arc<str>>,
}

impl StepUp {
    /// Sets [`max_age`](field@Self::max_age).
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Sets [`acr_values`](field@Self::acr_values), in order of preference. Values that no request can contain are
    /// left out: empty ones, and those with spaces or with characters outside printable ASCII.
    #[must_use]
    pub fn acr_values(mut self, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut text = String::new();
        for value in values {
            let value = value.as_ref();
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                continue;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(value);
        }
        self.acr_values = Some(text).filter(|text| !text.is_empty()).map(Arc::from);
        self
    }

    /// Sets [`scope`](field@Self::scope).
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = Some(scope).filter(|scope| !scope.is_empty()).map(Arc::from);
        self
    }

    /// Returns a step-up that satisfies both: the smaller age, the classes that both accept, and all scopes. If both
    /// accept no common class, no sign-in satisfies both, and the classes of `self` remain.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let max_age = self.max_age.into_iter().chain(other.max_age).min();
        let acr_values = both(self.acr_values.as_ref(), other.acr_values.as_ref(), |one, other| {
            let common = Self::default().acr_values(words(one).filter(|it| has(other, it)));
            common.acr_values.unwrap_or_else(|| one.clone())
        });
        let scope = both(self.scope.as_ref(), other.scope.as_ref(), |one, other| {
            let more = words(other).filter(|it| !has(one, it));
            more.fold(one.to_string(), |all, scope| format!("{all} {scope}")).into()
        });
        Self { max_age, acr_values, scope }
    }

    /// Returns whether a sign-in of this class at this time is enough, apart from the scopes.
    pub(crate) fn is_met_by(
        &self,
        acr: Option<&str>,
        authenticated_at: Option<SystemTime>,
        now: SystemTime,
    ) -> bool {
        let accepts = |values: &Arc<str>| acr.is_some_and(|acr| has(values, acr));
        let is_recent = |max_age| authenticated_at.is_some_and(|at| is_recent(at, now, max_age));
        self.acr_values.as_ref().is_none_or(accepts) && self.max_age.is_none_or(is_recent)
    }

    /// Returns whether a sign-in can change anything.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the members of a JSON body, each with a comma in front.
    pub(super) fn json_members(&self) -> String {
        let list = |text: &Arc<str>| words(text).map(Value::from).collect();
        let members: [(&str, Option<Value>); 3] = [
            ("acr_values", self.acr_values.as_ref().map(list)),
            ("max_age", self.max_age.map(|it| it.as_secs().into())),
            ("required_scope", self.scope.as_ref().map(|it| json!(**it))),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
        members.map(|(name, value)| format!(",\"{name}\":{value}")).collect()
    }
}

/// Combines two texts, or returns the one that is there.
fn both(
    one: Option<&Arc<str>>,
    other: Option<&Arc<str>>,
    combine: impl FnOnce(&Arc<str>, &Arc<str>) -> Arc<str>,
) -> Option<Arc<str>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(combine(one, other)),
        (one, other) => one.or(other).cloned(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

fn has(text: &str, word: &str) -> bool {
    words(text).any(|other| other == word)
}

/// Returns whether `time` is at most `max_age` ago. A time in the future is accepted only within
/// the clock skew of 60 s: otherwise the users of an issuer that writes milliseconds would stay
/// recently authenticated forever.
pub(crate) fn is_recent(time: SystemTime, now: SystemTime, max_age: Duration) -> bool {
    const SKEW: Duration = Duration::from_secs(60);
    match now.duration_since(time) {
        Ok(age) => age <= max_age,
        Err(ahead) => ahead.duration() <= SKEW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_up(max_age: Option<u64>, acr_values: &str, scope: &str) -> StepUp {
        let max_age = max_age.map(Duration::from_secs);
        StepUp { max_age, ..StepUp::default() }.acr_values(acr_values.split(' ')).scope(scope)
    }

    #[test]
    fn two_step_ups_combine() {
        for (one, other, both) in [
            ((None, "", ""), (None, "", ""), (None, "", "")),
            ((Some(60), "", ""), (Some(9), "", ""), (Some(9), "", "")),
            ((None, "gold", ""), (Some(9), "", "a"), (Some(9), "gold", "a")),
            ((None, "phr gold", ""), (None, "gold silver phr", ""), (None, "phr gold", "")),
            ((None, "gold", ""), (None, "silver", ""), (None, "gold", "")),
            ((None, "gold", ""), (None, "golden", ""), (None, "gold", "")),
            ((None, "", "b a"), (None, "", "a c"), (None, "", "b a c")),
        ] {
            let [one, other, both] = [one, other, both].map(|(age, acr, it)| step_up(age, acr, it));
            assert_eq!(one.clone().and(&other), both, "{one:?} {other:?}");
        }
    }

    #[test]
    fn values_outside_requests_are_left_out() {
        let values = ["", "a b", "gold", "g\u{f6}ld", "x\r\n", "urn:x:\"y\""];
        let step_up = StepUp::default().acr_values(values);
        assert_eq!(step_up.acr_values.as_deref(), Some("gold urn:x:\"y\""));
        assert!(StepUp::default().acr_values(["", " "]).scope("").is_empty());
    }
}
