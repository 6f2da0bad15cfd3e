//! [`AuthMode`]: who is asked about tokens, and the guards around the modes that ask nobody.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{AuthConfig, Fault};

/// Who is asked about tokens.
///
/// Read from text in any case; unset means `scaikey`; an unknown value is an error, never a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Nobody: every non-empty bearer token is the mock user. For laptops. Needs the cargo feature
    /// `mock`, and refuses to start where the environment says production.
    Mock,
    /// The configured issuers. The default, and the only mode for production.
    #[default]
    ScaiKey,
    /// The issuers for every token that contains a dot, as all JWTs do; their refusal is final.
    /// Only a dotless token that begins with [`MockUser::token_prefix`] is the mock user. For
    /// staging where the provider is not always there. Guarded like `Mock`.
    Hybrid,
}

impl AuthMode {
    /// `mock`, `scaikey` or `hybrid`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mock => "mock",
            Self::ScaiKey => "scaikey",
            Self::Hybrid => "hybrid",
        }
    }

    /// Reads one environment variable: `AuthMode::from_env("SCAIWAVE_AUTH_MODE")`.
    ///
    /// # Errors
    /// When the variable is set to something that is no mode.
    pub fn from_env(variable: &str) -> Result<Self, UnknownAuthMode> {
        match std::env::var_os(variable) {
            Some(value) if !value.is_empty() => value.to_string_lossy().parse(),
            _ => Ok(Self::default()),
        }
    }

    /// The guards: mocking must be compiled in, and this must not be production.
    pub(super) fn check(self, config: &AuthConfig, faults: &mut Vec<Fault>) {
        if self == Self::ScaiKey {
            return;
        }
        if !cfg!(feature = "mock") {
            faults.push(Fault::new(
                "mode",
                format!("is `{self}`, which this build cannot do: enable the cargo feature `mock` of scaikey-auth, or use `scaikey`"),
            ));
        }
        if self == Self::Hybrid && config.mock.token_prefix.is_empty() {
            let problem = "is empty: every token without a dot would be the mock user";
            faults.push(Fault::new("mock.token_prefix", problem));
        }
        if config.dangerous_allow_mock_in_production {
            return;
        }
        let variables = std::env::vars_os()
            .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        if let Some(marker) = production_marker(config.prefix.as_deref(), variables) {
            faults.push(Fault::new(
                "mode",
                format!("is `{self}`, but {marker} says this is production, where everybody could sign in: use `scaikey`"),
            ));
        }
    }
}

/// The variable, with its value, that says this is production.
fn production_marker(
    prefix: Option<&str>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Option<String> {
    const MARKERS: [&str; 8] = [
        "APP_ENV",
        "ENV",
        "ENVIRONMENT",
        "DEPLOY_ENV",
        "DEPLOYMENT_ENVIRONMENT",
        "RUST_ENV",
        "NODE_ENV",
        "RAILS_ENV",
    ];
    let is_marker = |name: &str| {
        let own = prefix.and_then(|prefix| name.strip_prefix(prefix)?.strip_prefix('_'));
        MARKERS.contains(&name) || own.is_some_and(|name| MARKERS.contains(&name))
    };
    let is_production = |value: &str| {
        let value = value.trim().to_ascii_lowercase();
        ["production", "prod", "live"].contains(&value.as_str())
    };
    variables
        .into_iter()
        .find(|(name, value)| is_marker(name) && is_production(value))
        .map(|(name, value)| format!("{name}={value}"))
}

/// The text names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no authentication mode: use `scaikey`, `hybrid` or `mock`")]
pub struct UnknownAuthMode;

impl FromStr for AuthMode {
    type Err = UnknownAuthMode;

    fn from_str(text: &str) -> Result<Self, UnknownAuthMode> {
        match text.trim().to_ascii_lowercase().as_str() {
            "mock" => Ok(Self::Mock),
            "scaikey" => Ok(Self::ScaiKey),
            "hybrid" => Ok(Self::Hybrid),
            _ => Err(UnknownAuthMode),
        }
    }
}

impl fmt::Display for AuthMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AuthMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The user of mock mode, and of mock tokens in hybrid mode.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct MockUser {
    /// The claims the identity is read from, with ScaiKey's mapping. `iss` (`urn:scaikey-auth:mock`),
    /// `iat` and `exp` (an hour from the request) are added. Default: the user `mock-user` named
    /// `Mock User` of the tenant `mock-tenant`, without roles and scopes.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// In hybrid mode, what a mock token begins with. Default `mock`.
    pub token_prefix: String,
}

impl Default for MockUser {
    fn default() -> Self {
        let claims = [
            ("sub", "mock-user"),
            ("tenant_id", "mock-tenant"),
            ("preferred_username", "mock"),
            ("name", "Mock User"),
            ("email", "mock@example.test"),
        ];
        let claims = claims.map(|(name, value)| (name.to_owned(), value.into()));
        Self { claims: claims.into_iter().collect(), token_prefix: "mock".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_one_of_three_words() {
        for (text, mode) in [
            ("mock", Ok(AuthMode::Mock)),
            (" ScaiKey\n", Ok(AuthMode::ScaiKey)),
            ("HYBRID", Ok(AuthMode::Hybrid)),
            ("", Err(UnknownAuthMode)),
            ("off", Err(UnknownAuthMode)),
            ("mock,scaikey", Err(UnknownAuthMode)),
        ] {
            assert_eq!(text.parse(), mode, "{text:?}");
        }
        assert_eq!(AuthMode::from_env("A_VARIABLE_NOBODY_SETS"), Ok(AuthMode::ScaiKey));
    }

    #[cfg(feature = "mock")]
    #[test]
    fn hybrid_needs_a_word_that_asks_for_the_mock_user() {
        let mut config = AuthConfig::default();
        config.mock.token_prefix.clear();
        for (mode, expected) in [(AuthMode::Hybrid, 1), (AuthMode::Mock, 0)] {
            let mut faults = Vec::new();
            mode.check(&config, &mut faults);
            assert_eq!(faults.len(), expected, "{faults:?}");
        }
    }

    #[test]
    fn production_is_recognised_by_the_usual_variables() {
        let marker = |name: &str, value: &str| {
            production_marker(Some("SCAIWAVE"), [(name.to_owned(), value.to_owned())])
        };
        assert_eq!(marker("APP_ENV", "Production").as_deref(), Some("APP_ENV=Production"));
        assert!(marker("SCAIWAVE_ENV", "prod").is_some());
        assert!(marker("ENVIRONMENT", "live").is_some());
        for (name, value) in [("APP_ENV", "staging"), ("OTHER_ENV", "prod"), ("APP", "prod")] {
            assert_eq!(marker(name, value), None, "{name}={value}");
        }
    }
}
