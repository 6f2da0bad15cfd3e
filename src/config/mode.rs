//! [`AuthMode`]: the mode of token verification, and the environments in which mock and hybrid mode are
//! allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{AuthConfig, Fault};

/// The mode of the service: which tokens it verifies, and which it accepts unverified.
///
/// The names are case-insensitive. The default is `scaikey`. An unknown name is an error.
///
/// ```
/// use scaikey_auth::{Auth, AuthMode};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // `Auth::from_env("SCAIWAVE")` reads this variable itself.
/// let mode = AuthMode::from_env("SCAIWAVE_AUTH_MODE")?;
/// let auth = Auth::builder().mode(mode).issuer("https://scaikey.example").audience("scaiwave").build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Every non-empty bearer token stands for the mock user; nothing is verified. This mode is for
    /// development, and needs the cargo feature `mock`. A debug build refuses to start if a variable such
    /// as `APP_ENV` is set to anything but `development`, `dev`, `test`, `testing`, `staging`, `stage` or
    /// `local`. A release build refuses to start unless a variable names one of them. Both refuse to start
    /// in Kubernetes. [`AuthConfig::insecure_allow_mock_in_kubernetes`] and
    /// [`AuthConfig::insecure_allow_mock_in_production`] lift these restrictions. See
    /// [modes](crate::manual::modes).
    Mock,
    /// Tokens of the configured issuers are verified. This is the default, and the only mode for production.
    #[default]
    ScaiKey,
    /// Every token with a dot, as all JWTs have, is verified as in `ScaiKey`. Only a token without a dot
    /// that begins with [`MockUser::token_prefix`](field@MockUser::token_prefix) stands for the mock user.
    /// This mode is for staging systems whose provider is not always available. It has the restrictions of
    /// `Mock`.
    Hybrid,
}

impl AuthMode {
    /// Returns `mock`, `scaikey` or `hybrid`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mock => "mock",
            Self::ScaiKey => "scaikey",
            Self::Hybrid => "hybrid",
        }
    }

    /// Reads the mode from an environment variable: `AuthMode::from_env("SCAIWAVE_AUTH_MODE")`. Returns the
    /// default if the variable is unset or empty.
    ///
    /// # Errors
    /// If the value of the variable is not a mode.
    pub fn from_env(name: &str) -> Result<Self, UnknownAuthMode> {
        match std::env::var_os(name) {
            Some(value) if !value.is_empty() => value.to_string_lossy().parse(),
            _ => Ok(Self::default()),
        }
    }

    /// Reports faults of mock and hybrid mode: the cargo feature is not enabled, the token prefix is empty,
    /// or the environment may be production.
    pub(super) fn check(self, config: &AuthConfig, faults: &mut Vec<Fault>) {
        if self == Self::ScaiKey {
            return;
        }
        if !MOCK_COMPILED {
            faults.push(Fault::new(
                "mode",
                format!("is `{self}`, which this build does not support: enable the cargo feature `mock` of scaikey-auth, or use `scaikey`"),
            ));
            return;
        }
        if self == Self::Hybrid && config.mock.token_prefix.is_empty() {
            let problem = "is empty: every token without a dot would stand for the mock user";
            faults.push(Fault::new("mock.token_prefix", problem));
        }
        if config.insecure_allow_mock_in_production {
            return;
        }
        // A value that is not UTF-8 must not be skipped: it may name a production environment.
        let variables = std::env::vars_os()
            .map(|(name, value)| [name, value].map(|text| text.to_string_lossy().into_owned()));
        let prefix = config.origin.prefix();
        let build = Build {
            is_debug: cfg!(debug_assertions),
            allows_kubernetes: config.insecure_allow_mock_in_kubernetes,
        };
        if let Some(why) = objection(prefix, variables, build) {
            let risk = match self {
                Self::Hybrid => "any caller can be the mock user",
                Self::Mock | Self::ScaiKey => "every caller is signed in",
            };
            let problem = format!("is `{self}`: {risk}. {why}");
            faults.push(Fault::new("mode", problem));
        }
    }
}

/// Whether this build of the crate contains the modes `mock` and `hybrid` (cargo feature `mock`).
///
/// Cargo unifies the features of one build: if another crate, or a dev-dependency of one, enables `mock`, a
/// binary of the same build can mock as well. With this constant, such a binary does not compile. See
/// [modes](crate::manual::modes#a-binary-that-cannot-mock).
///
/// ```
/// // In `main.rs`. Debug builds may mock.
/// #[cfg(not(debug_assertions))]
/// const _: () = assert!(!scaikey_auth::MOCK_COMPILED, "the cargo feature `mock` is on");
/// ```
pub const MOCK_COMPILED: bool = cfg!(feature = "mock");

/// Variables that name the environment, alone or with the service's own prefix.
const ENVIRONMENT_VARIABLES: [&str; 13] = [
    "APP_ENV",
    "APP_ENVIRONMENT",
    "ENV",
    "ENVIRONMENT",
    "STAGE",
    "DEPLOY_ENV",
    "DEPLOYMENT_ENV",
    "DEPLOYMENT_ENVIRONMENT",
    "RUST_ENV",
    "NODE_ENV",
    "RAILS_ENV",
    "RACK_ENV",
    "DOTNET_ENVIRONMENT",
];

/// The environments in which mock and hybrid mode are allowed.
const NON_PRODUCTION: [&str; 7] =
    ["development", "dev", "test", "testing", "staging", "stage", "local"];

/// A variable that is set in every container of a cluster.
const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";

/// The circumstances besides the variables on which mock and hybrid mode depend.
#[derive(Clone, Copy)]
struct Build {
    /// Whether this is a debug build, which may mock if no variable names the environment.
    is_debug: bool,
    /// [`AuthConfig::insecure_allow_mock_in_kubernetes`].
    allows_kubernetes: bool,
}

/// Returns the reason against mock and hybrid mode with these variables, and the remedy; `None` if the
/// modes are allowed. An unknown environment counts as production, because production has countless names
/// (`prod-eu`, `prd`, `live2`).
fn objection(
    prefix: Option<&str>,
    variables: impl IntoIterator<Item = [String; 2]>,
    build: Build,
) -> Option<String> {
    let names_environment = |name: &str| {
        let unprefixed = prefix.and_then(|prefix| name.strip_prefix(prefix)?.strip_prefix('_'));
        ENVIRONMENT_VARIABLES.contains(&name)
            || unprefixed.is_some_and(|name| ENVIRONMENT_VARIABLES.contains(&name))
    };
    let (mut is_named, mut is_kubernetes) = (false, false);
    for [name, value] in variables {
        let word = value.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        if name == KUBERNETES && !build.allows_kubernetes {
            return Some(format!(
                "This is Kubernetes ({KUBERNETES} is set): use `scaikey`, or, in a cluster that is only for development, call `insecure_allow_mock_in_kubernetes` in code and set a variable such as APP_ENV=development"
            ));
        }
        is_kubernetes |= name == KUBERNETES;
        // In shells, `ENV` names the start-up file.
        let is_file = name == "ENV" && word.starts_with(['/', '~', '$']);
        if !names_environment(&name) || word.is_empty() || is_file {
            continue;
        }
        if !NON_PRODUCTION.contains(&&*word.to_ascii_lowercase()) {
            return Some(format!(
                "{name}={value} does not name a development, test, staging or local environment: use `scaikey`, or correct {name}"
            ));
        }
        is_named = true;
    }
    let is_allowed = is_named || build.is_debug && !is_kubernetes;
    let place = if is_kubernetes { "Kubernetes" } else { "a release build" };
    (!is_allowed).then(|| format!("This is {place}, and no variable names a development, test, staging or local environment: use `scaikey`, or set a variable such as APP_ENV=local"))
}

/// The error for text that is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown authentication mode: use `scaikey`, `hybrid` or `mock`")]
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
///
/// ```
/// use scaikey_auth::Auth;
/// use scaikey_auth::config::MockUser;
///
/// let user = MockUser::default().claim("sub", "ada").claim("scope", "documents:read");
/// let builder = Auth::builder().mock_user(user.claim("roles", vec!["admin"]));
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[must_use]
#[non_exhaustive]
pub struct MockUser {
    /// The claims of the user, read with the default [`ClaimsMapping`](crate::identity::ClaimsMapping).
    /// `iss` (`urn:scaikey-auth:mock`), `iat` and `exp` (an hour after the request) are added. Default: the
    /// user `mock-user`, named `Mock User`, of the tenant `mock-tenant`, without roles and scopes.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// The prefix of mock tokens in hybrid mode. Default `mock`.
    pub token_prefix: String,
}

impl MockUser {
    /// Sets one of the [`claims`](field@Self::claims), and replaces an earlier or default value.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Sets [`claims`](field@Self::claims). None of the default claims remains.
    pub fn claims(mut self, claims: serde_json::Map<String, serde_json::Value>) -> Self {
        self.claims = claims;
        self
    }

    /// Sets [`token_prefix`](field@Self::token_prefix).
    pub fn token_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_prefix = prefix.into();
        self
    }
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
    fn mode_is_one_of_three_words() {
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
        assert_eq!(AuthMode::from_env("AN_UNSET_VARIABLE"), Ok(AuthMode::ScaiKey));
    }

    #[cfg(feature = "mock")]
    #[test]
    fn hybrid_mode_requires_a_token_prefix() {
        let mut config =
            AuthConfig { insecure_allow_mock_in_production: true, ..AuthConfig::default() };
        config.mock.token_prefix.clear();
        for (mode, expected) in [(AuthMode::Hybrid, 1), (AuthMode::Mock, 0)] {
            let mut faults = Vec::new();
            mode.check(&config, &mut faults);
            assert_eq!(faults.len(), expected, "{faults:?}");
        }
    }

    #[test]
    fn objections_name_the_remedy() {
        let objection = |name: &str, value: &str| {
            let build = Build { is_debug: false, allows_kubernetes: false };
            objection(None, [[name.to_owned(), value.to_owned()]], build).unwrap()
        };
        let why = "APP_ENV=prod-eu does not name a development, test, staging or local environment: \
                   use `scaikey`, or correct APP_ENV";
        assert_eq!(objection("APP_ENV", "prod-eu"), why);
        for (name, value) in [(KUBERNETES, "10.0.0.1"), ("PATH", "/bin")] {
            assert!(objection(name, value).contains(": use `scaikey`"), "{name}");
        }
        let in_cluster = objection(KUBERNETES, "10.0.0.1");
        assert!(in_cluster.contains("insecure_allow_mock_in_kubernetes"), "{in_cluster}");
    }

    #[test]
    fn mocking_needs_a_non_production_environment() {
        type Variables = &'static [(&'static str, &'static str)];
        let objection = |variables: Variables, is_debug| {
            let variables = variables.iter().map(|(n, v)| [(*n).to_owned(), (*v).to_owned()]);
            objection(Some("SCAIWAVE"), variables, Build { is_debug, allows_kubernetes: false })
        };
        // The variables, and whether a debug build and a release build may mock.
        let table: &[(Variables, bool, bool)] = &[
            (&[], true, false),
            (&[("PATH", "/bin"), ("OTHER_ENV", "prod"), ("APP", "prod")], true, false),
            (&[("APP_ENV", "")], true, false),
            (&[("APP_ENV", " \"\" ")], true, false),
            (&[("ENV", "/etc/shrc")], true, false),
            (&[("ENV", "$HOME/.shrc")], true, false),
            (&[("APP_ENV", "Development")], true, true),
            (&[("APP_ENV", "'test'\n")], true, true),
            (&[("SCAIWAVE_ENVIRONMENT", "staging")], true, true),
            (&[("STAGE", "local"), ("NODE_ENV", "dev")], true, true),
            (&[("APP_ENV", "production")], false, false),
            (&[("APP_ENV", "prod-eu")], false, false),
            (&[("APP_ENV", "\"production\"")], false, false),
            (&[("ENVIRONMENT", "prd")], false, false),
            (&[("STAGE", "prod")], false, false),
            (&[("SCAIWAVE_ENV", "live")], false, false),
            (&[("APP_ENV", "not-development")], false, false),
            (&[("APP_ENV", "/etc/production")], false, false),
            (&[("APP_ENV", "\u{fffd}")], false, false),
            (&[("APP_ENV", "local"), ("NODE_ENV", "production")], false, false),
            (&[("APP_ENV", "local"), (KUBERNETES, "10.0.0.1")], false, false),
            (&[(KUBERNETES, "")], false, false),
        ];
        for (variables, debug, release) in table {
            assert_eq!(objection(variables, true).is_none(), *debug, "{variables:?}, debug");
            assert_eq!(objection(variables, false).is_none(), *release, "{variables:?}, release");
        }
    }

    #[test]
    fn development_cluster_must_name_its_environment() {
        for (environment, may_mock) in [
            (None, false),
            (Some("development"), true),
            (Some("staging"), true),
            (Some("production"), false),
            (Some("eu-1"), false),
        ] {
            for is_debug in [true, false] {
                let variables =
                    [Some(("APP_ENV", environment)), Some((KUBERNETES, Some("10.0.0.1")))];
                let variables = variables
                    .into_iter()
                    .flatten()
                    .filter_map(|(name, value)| Some([name.to_owned(), value?.to_owned()]));
                let build = Build { is_debug, allows_kubernetes: true };
                let objection = objection(None, variables, build);
                assert_eq!(objection.is_none(), may_mock, "{environment:?}: {objection:?}");
            }
        }
    }
}
