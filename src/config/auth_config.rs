//! [`AuthConfig`]: the configuration that the builder, files and the environment produce.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::jwks::optional_seconds;
use super::{
    AuthMode, ClientConfig, ConfigError, EndpointsConfig, Fault, IssuerConfig, MockUser, Origin,
    RevocationLogKind, env, issuer, resource,
};
use crate::identity::Scopes;
use crate::support::secret::Secret;

/// The upper limit of `verified_tokens_bytes`. A larger value is a typing error: 4 % of the value is
/// allocated at the start, which could fail.
const MAX_VERIFIED_TOKENS_BYTES: u64 = 64 << 30;

/// The problem of a per-tenant issuer whose tenants are not restricted.
const UNRESTRICTED_TENANTS: &str = "is empty, and there is no tenant store: every tenant of the provider would be accepted. List the tenants here; or set a tenant store with database_url (`P_DATABASE_URL`) or, in code, `AuthBuilder::tenants`; or allow all tenants with any_tenant (`P_ANY_TENANT=true`) or, in code, `tenants(AnyTenant)`";

/// The settings that can be written as data, without a closure or a trait implementation.
///
/// They come from the setters of `AuthBuilder`, from a file read with `serde` (unknown fields are
/// rejected), from [`from_env`](Self::from_env), or from a file under the environment
/// ([`overlay_env`](Self::overlay_env)). Nothing is checked until the `Auth` or a validator is
/// built; the error then lists all faults.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: scaikey_auth::AuthConfig = serde_json::from_str(
///     r#"{ "audience": ["scaiwave"], "issuers": [{ "issuer": "https://scaikey.example" }] }"#,
/// )?;
/// let auth = scaikey_auth::Auth::from_config(config).build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AuthConfig {
    /// The mode of token verification. Default [`AuthMode::ScaiKey`].
    pub mode: AuthMode,
    /// The issuers whose tokens are accepted. At least one is required, except in mock mode.
    /// Default: none.
    pub issuers: Vec<IssuerConfig>,
    /// The names of this service in `aud`. An issuer with its own [audience](field@IssuerConfig::audience)
    /// does not use them. A token must have at least one of them. The check cannot be switched off.
    /// Default: none; at least one is required, except in mock mode.
    pub audience: Vec<String>,
    /// The `realm` of challenges. Default: the first audience.
    pub realm: Option<String>,
    /// Whether a token without a tenant is refused with 403. Default true. Set it to false if the provider's
    /// tokens have no tenant, or if the service accepts platform-wide tokens.
    pub tenant_required: bool,
    /// Whether an unknown tenant is answered with 404 instead of 403. Default false.
    pub unknown_tenant_is_not_found: bool,
    /// The maximum length of a token, in bytes. Default 16 KiB. A longer token is refused before it is
    /// decoded. With a higher limit, attackers can cause more work per request.
    pub max_token_bytes: usize,
    /// The memory for the cache of [verified tokens](crate::validator::VerifiedTokens), in bytes. Each
    /// token is then verified once, not per request. Default 16 MiB, for about 15,000 tokens; at most 64
    /// GiB. 4 % of it is allocated at the start, the rest when needed. 0 switches the cache off; every
    /// request then costs a verification of 20 to 70 µs.
    pub verified_tokens_bytes: usize,
    /// A store of tenants, participants and, with [`trust_store`](field@EndpointsConfig::trust_store), the trust
    /// policy: `postgres://…` (feature `postgres`) or `sqlite:…` (feature `sqlite`). Default: none.
    /// Then every tenant that a verified token names is accepted; for per-tenant issuers, see
    /// [`any_tenant`](Self::any_tenant).
    ///
    /// A database with the trust policy has no tenants if [`any_tenant`](Self::any_tenant) is true, or if each issuer
    /// has a list of [tenants](field@IssuerConfig::tenants): these decide, and no table of tenants is created or read.
    pub database_url: Option<Secret>,
    /// A file with `database_url`, instead of it. White space at its end is ignored. The file is read once, by
    /// `build()`: after its content was replaced, restart the service. Default: none.
    pub database_url_file: Option<PathBuf>,
    /// Whether a per-tenant issuer (`{tenant_id}`) without any restriction accepts every tenant of the
    /// provider. A restriction is a list of [tenants](field@IssuerConfig::tenants), a resolver, or a tenant
    /// store. Default false, which rejects a configuration without a restriction. Set it to true only if
    /// every tenant of the provider is a customer of this service. In Entra ID, for example, anyone can
    /// create a tenant. If the database has the trust policy
    /// ([`trust_store`](field@EndpointsConfig::trust_store)), true applies to every issuer.
    pub any_tenant: bool,
    /// The service as an OAuth client of the provider.
    pub client: ClientConfig,
    /// The settings of the endpoints under `/v1/auth/`.
    pub endpoints: EndpointsConfig,
    /// Where the processes of the service share [revocations](crate::revocation). Default: `None`; then a revocation
    /// counts in the process that is told of it. [`RevocationLogKind::Redis`] needs `client.redis_url` and
    /// `client.cache_keys`, under which the log is sealed; it needs no `client.id`. Mock mode does not use it.
    pub revocation_log: Option<RevocationLogKind>,
    /// The time without contact to this log after which all requests get 503, at least 5 s; see
    /// [`RevocationsBuilder::refuse_after`](crate::revocation::RevocationsBuilder::refuse_after) for the price.
    /// Default: `None`, never. In files, `revocation_refuse_after_seconds` is a number of seconds.
    #[serde(rename = "revocation_refuse_after_seconds", with = "optional_seconds")]
    pub revocation_refuse_after: Option<Duration>,
    /// The public URL of this service (`resource`, RFC 9728 §1.2). If it is set, challenges name the URL of
    /// the protected resource metadata, which `Auth::endpoints` serves. Default: none.
    pub resource: Option<String>,
    /// The scopes that clients may request: `scopes_supported` of this metadata (RFC 9728 §2). Default:
    /// none are published. The scopes in `endpoints.scopes` are not published.
    pub resource_scopes: Scopes,
    /// The mock user of mock and hybrid mode.
    pub mock: MockUser,
    /// Allows mock and hybrid mode in every environment. Default false. Do not set it in production. Only
    /// code can set it, neither a file nor a variable.
    #[serde(skip)]
    pub insecure_allow_mock_in_production: bool,
    /// Allows mock and hybrid mode in Kubernetes, if an environment variable such as `APP_ENV` names a
    /// development, test, staging or local environment. Default false. It is for clusters that only developers
    /// can reach. Only code can set it, neither a file nor a variable.
    #[serde(skip)]
    pub insecure_allow_mock_in_kubernetes: bool,
    /// Where the settings come from. Faults then name variables instead of fields.
    #[serde(skip)]
    pub(crate) origin: Origin,
    /// The faults of variables whose values could not be parsed.
    #[serde(skip)]
    pub(crate) unreadable: Vec<Fault>,
    /// Whether code sets the revocations.
    #[serde(skip)]
    pub(crate) has_own_revocations: bool,
    /// Settings that are valid but look like mistakes; `build()` logs them.
    #[serde(skip)]
    pub(crate) notices: Vec<String>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: AuthMode::default(),
            issuers: Vec::new(),
            audience: Vec::new(),
            realm: None,
            tenant_required: true,
            unknown_tenant_is_not_found: false,
            max_token_bytes: 16 * 1024,
            verified_tokens_bytes: 16 * 1024 * 1024,
            database_url: None,
            database_url_file: None,
            any_tenant: false,
            client: ClientConfig::default(),
            endpoints: EndpointsConfig::default(),
            revocation_log: None,
            revocation_refuse_after: None,
            resource: None,
            resource_scopes: Scopes::new(),
            mock: MockUser::default(),
            insecure_allow_mock_in_production: false,
            insecure_allow_mock_in_kubernetes: false,
            origin: Origin::default(),
            unreadable: Vec::new(),
            has_own_revocations: false,
            notices: Vec::new(),
        }
    }
}

impl AuthConfig {
    /// Reads the variables of [`ENVIRONMENT`](super::ENVIRONMENT), prefixed with `prefix` and an underscore:
    /// `AuthConfig::from_env("SCAIWAVE")` reads `SCAIWAVE_AUTH_MODE` and so on.
    ///
    /// An unset or empty variable means the default. `build()` reports values that cannot be parsed,
    /// together with all other faults. A variable that looks like a misspelling causes a warning.
    pub fn from_env(prefix: &str) -> Self {
        Self::from_vars(prefix, process_variables())
    }

    /// Reads the given variables as [`from_env`](Self::from_env) reads those of the process. The names
    /// include the prefix.
    pub fn from_vars(prefix: &str, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        env::read(Self::default(), false, prefix, vars)
    }

    /// Lays the variables of [`ENVIRONMENT`](super::ENVIRONMENT) over this configuration, which usually comes
    /// from a file. A variable that is set and not empty replaces the field; all other fields stay.
    ///
    /// ```
    /// use scaikey_auth::{Auth, AuthConfig};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let file = r#"{
    ///     "audience": ["scaiwave"],
    ///     "issuers": [{ "issuer": "https://scaikey.example", "leeway_seconds": 30 }],
    ///     "client": { "id": "scaiwave" }
    /// }"#;
    /// // `SCAIWAVE_CLIENT_SECRET_FILE`, for example, adds the secret that the file must not contain.
    /// let config = serde_json::from_str::<AuthConfig>(file)?.overlay_env("SCAIWAVE");
    /// let auth = Auth::from_config(config).build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// * Variables of an issuer, such as `P_JWKS_URI`, belong to the only issuer of the file; without one, to
    ///   a new issuer. If the file has several issuers, such a variable is a fault.
    /// * `P_PROVIDER` replaces all settings of the issuer in the file by those of the preset, except its URL and
    ///   its audience. If the file names the same preset, nothing changes.
    /// * `P_ISSUER` replaces the URL of the issuer, and the values that a preset took from it.
    /// * `P_KEYS_FILE` and `P_JWKS_URI` replace each other.
    /// * A secret and its file, such as `P_CLIENT_SECRET` and `client.secret_file`, are one setting: a variable
    ///   replaces either of them. Both variables together are a fault.
    /// * Faults name the variable if it is set, and otherwise the field.
    pub fn overlay_env(self, prefix: &str) -> Self {
        self.overlay_vars(prefix, process_variables())
    }

    /// Lays the given variables over this configuration, as [`overlay_env`](Self::overlay_env) does with
    /// those of the process. The names include the prefix.
    pub fn overlay_vars(
        self,
        prefix: &str,
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        env::read(self, true, prefix, vars)
    }

    /// Adds the issuer that the variables with another prefix describe, for a service with several providers.
    /// [`from_env`](Self::from_env) and [`overlay_env`](Self::overlay_env) read one issuer.
    ///
    /// ```no_run
    /// use scaikey_auth::{Auth, AuthConfig};
    ///
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// // `API_ISSUER`, `API_AUDIENCE` …, and for the other provider `LEGACY_ISSUER`, `LEGACY_TENANTS` …
    /// let config = AuthConfig::from_env("API").issuer_from_env("LEGACY");
    /// let auth = Auth::from_config(config).build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// With this prefix, only the variables of an issuer are read, and `P_AUDIENCE`, which is then the
    /// [audience](field@IssuerConfig::audience) of this issuer; default: that of the service. A notice names
    /// those that describe the service. Variables of a client are ignored, because a
    /// `TokenExchangeClient` may have the same prefix. Choose prefixes of which none begins with the other one.
    ///
    /// `build()` reports the faults of these variables by their names, and a missing `P_ISSUER`.
    pub fn issuer_from_env(self, prefix: &str) -> Self {
        self.issuer_from_vars(prefix, process_variables())
    }

    /// Adds the issuer that the given variables describe, as [`issuer_from_env`](Self::issuer_from_env) does
    /// with those of the process. The names include the prefix.
    pub fn issuer_from_vars(
        self,
        prefix: &str,
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        env::add_issuer(self, prefix, vars)
    }

    /// Returns notices about settings that are valid but look like mistakes: a variable whose name is close
    /// to that of a known one, or a setting whose cargo feature is not enabled. `build()` finds more, such as
    /// settings without effect, and logs all of them as warnings.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns the accepted audiences of all issuers, without duplicates.
    pub(crate) fn all_audiences(&self) -> Vec<&str> {
        let own = self.issuers.iter().flat_map(|issuer| self.audience_of(issuer));
        let mut all: Vec<&str> = Vec::new();
        for name in own {
            if !all.contains(&name.as_str()) {
                all.push(name);
            }
        }
        all
    }

    /// Returns the accepted audiences of tokens of `issuer`.
    pub(crate) fn audience_of<'c>(&'c self, issuer: &'c IssuerConfig) -> &'c [String] {
        if issuer.audience.is_empty() { &self.audience } else { &issuer.audience }
    }

    /// Returns a configuration with only this issuer, to check the issuer on its own.
    pub(crate) fn of_issuer(issuer: &IssuerConfig, audience: &[String]) -> Self {
        Self { issuers: vec![issuer.clone()], audience: audience.to_vec(), ..Self::default() }
    }

    /// Returns whether the configuration restricts the tenants of a per-tenant issuer, or allows all of them.
    fn decides_on_tenants(&self, issuer: &IssuerConfig) -> bool {
        let has_store = self.has_tenant_table() || self.mode == AuthMode::Mock;
        !issuer.tenants.is_empty() || issuer.has_resolver || has_store || self.any_tenant
    }

    /// Checks the configuration and reports all faults.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let no_audience = || {
            Fault::new(
                "audience",
                "is missing: name this service as it appears in the `aud` claim of its tokens",
            )
        };
        if self.issuers.is_empty() && self.mode != AuthMode::Mock {
            faults.push(Fault::new("issuer", issuer::MISSING_ISSUER));
            faults.extend(self.audience.is_empty().then(no_audience));
        }
        let mut with_keys: Vec<IssuerConfig> = Vec::new();
        for (nth, issuer) in self.issuers.iter().enumerate() {
            let mut faults_of_issuer = Vec::new();
            issuer.check(nth, &mut faults_of_issuer);
            // Mock mode runs on machines without secrets.
            if self.mode != AuthMode::Mock {
                match issuer.clone().with_decryption_keys(nth) {
                    Ok(issuer) => {
                        with_keys.push(issuer.clone());
                        let fault = |other| issuer.confusable_key(other, nth);
                        faults_of_issuer.extend(with_keys.iter().find_map(fault));
                    }
                    Err(fault) => faults_of_issuer.push(fault),
                }
            }
            if issuer.is_per_tenant() && !self.decides_on_tenants(issuer) {
                let field = format!("issuers[{nth}].tenants");
                faults_of_issuer.push(Fault::new(field, UNRESTRICTED_TENANTS));
            }
            let expected = issuer.expected();
            let is_same = |earlier: &IssuerConfig| earlier.expected() == expected;
            if !expected.is_empty() && self.issuers.iter().take(nth).any(is_same) {
                faults_of_issuer.push(Fault::new(
                    format!("issuers[{nth}].issuer"),
                    "has the same `iss` as an earlier issuer: their tokens could not be distinguished",
                ));
            }
            faults.extend(match issuer.origin.prefix() {
                Some(prefix) if self.origin.prefix() != Some(prefix) => {
                    issuer.faults_by_variable(nth, faults_of_issuer)
                }
                _ => faults_of_issuer,
            });
        }
        if self.issuers.iter().any(|issuer| self.audience_of(issuer).is_empty()) {
            faults.push(no_audience());
        }
        if let Some(resource) = &self.resource {
            faults.extend(resource::parse(resource).err());
        } else if !self.resource_scopes.is_empty() {
            let problem = "has no effect unless resource (`P_RESOURCE`) is set: its metadata publishes the scopes";
            faults.push(Fault::new("resource_scopes", problem));
        }
        if self.max_token_bytes == 0 {
            faults.push(Fault::new("max_token_bytes", "must not be 0"));
        }
        if self.audience.iter().any(|name| name.trim() != name || name.is_empty()) {
            let problem = "has an entry that is empty or begins or ends with white space";
            faults.push(Fault::new("audience", problem));
        }
        if self.verified_tokens_bytes as u64 > MAX_VERIFIED_TOKENS_BYTES {
            faults.push(Fault::new("verified_tokens_bytes", "must be at most 64 GiB"));
        }
        self.check_revocations(&mut faults);
        self.mode.check(self, &mut faults);
        let is_unreadable = |field: &str| self.unreadable.iter().any(|fault| fault.field == field);
        // A setting that cannot be read has its default, which may be a fault of its own.
        let faults = faults.into_iter().filter(|fault| !is_unreadable(&fault.field));
        let faults: Vec<_> = self.unreadable.iter().cloned().chain(faults).collect();
        ConfigError::from_faults(faults)
            .map_err(|error| error.named_by(&self.origin).explained_by(&self.notices))
    }
}

/// Returns a variable that the platform sets, unless it is empty. Such a variable has no prefix.
pub(crate) fn environment_variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// Returns the environment variables of the process. A value that is not UTF-8 is converted lossily, so that
/// its parser rejects and names it.
fn process_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Returns a valid configuration with changes: pairs of a JSON pointer and a value.
    fn changed(changes: &[(&str, Value)]) -> AuthConfig {
        let mut config = json!({
            "audience": ["wave"], "any_tenant": true,
            "issuers": [{ "issuer": "https://id.example", "jwks": {}, "claims": {} }],
            "client": {}, "endpoints": {},
        });
        for (pointer, value) in changes {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    }

    /// Checks that there is exactly one fault.
    #[track_caller]
    fn one_fault(changes: &[(&str, Value)], field: &str, problem: &str) {
        let error = changed(changes).check().expect_err(field);
        let [fault] = error.faults() else { panic!("one fault for one cause: {error}") };
        assert_eq!(fault.field, field, "{error}");
        assert!(fault.problem.contains(problem), "{error}");
    }

    #[test]
    fn foreign_and_unbalanced_braces_are_refused() {
        let paths = ["{tenantid}", "{tenant}", "x/{}", "{tenant_id", "tenant_id}", "{{tenant_id}}"];
        for field in ["issuer", "expected_issuer", "discovery_url", "jwks_uri"] {
            for path in paths {
                let url = json!(format!("https://id.example/{path}"));
                let field = format!("issuers[0].{field}");
                let pointer = field.replace("[0].", "/0/");
                one_fault(&[(&format!("/{pointer}"), url)], &field, "has braces");
            }
        }
        one_fault(
            &[("/issuers/0/issuer", json!("https://{x}.example"))],
            "issuers[0].issuer",
            "braces",
        );
        one_fault(&[("/resource", json!("https://wave.example/{x}"))], "resource", "braces");
    }

    #[test]
    fn url_of_another_document_is_refused() {
        for (url, issuer) in [
            ("https://id.example/.well-known/openid-configuration", "https://id.example"),
            (
                "https://id.example/realms/a/.well-known/openid-configuration",
                "https://id.example/realms/a",
            ),
            (
                "https://id.example/.well-known/oauth-authorization-server/realms/a",
                "https://id.example/realms/a",
            ),
            ("https://id.example/.well-known/jwks.json", "https://id.example"),
            (
                "https://id.example/{tenant_id}/.well-known/openid-configuration",
                "https://id.example/{tenant_id}",
            ),
        ] {
            let problem = format!(
                "is the URL of a document, not the issuer: give the value of `issuer` in the metadata, probably {issuer}"
            );
            one_fault(&[("/issuers/0/issuer", json!(url))], "issuers[0].issuer", &problem);
        }
        let metadata = json!("https://id.example/.well-known/openid-configuration");
        one_fault(&[("/issuers/0/jwks_uri", metadata)], "issuers[0].jwks_uri", "set discovery_url");
    }

    #[test]
    fn placeholder_where_nothing_fills_it() {
        let url = |url: &str| json!(url);
        for field in ["jwks_uri", "discovery_url"] {
            let (pointer, field) = (format!("/issuers/0/{field}"), format!("issuers[0].{field}"));
            one_fault(
                &[(&pointer, url("https://id.example/{tenant_id}"))],
                &field,
                "`iss` does not",
            );
            one_fault(
                &[(&pointer, url("https://{tenant_id}.example/"))],
                &field,
                "before its path",
            );
        }
        let host = url("https://{tenant_id}.example");
        one_fault(&[("/issuers/0/issuer", host)], "issuers[0].issuer", "before its path");
    }

    #[test]
    fn one_cause_is_one_fault() {
        one_fault(&[("/audience", json!([""]))], "audience", "has an entry that is empty");
        one_fault(&[("/issuers/0/audience", json!([""]))], "issuers[0].audience", "empty entry");
        let two = json!([{ "issuer": "https://a.example/{tenant_id}" }, { "issuer": "https://b.example" }]);
        one_fault(&[("/issuers", two), ("/audience", json!([]))], "audience", "is missing");
        let variables =
            [("P_ISSUER", "https://a/{tenant_id}"), ("P_AUDIENCE", "a"), ("P_TENANTS", "a\u{1}")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = AuthConfig::from_vars("P", variables).check().unwrap_err();
        assert_eq!(error.faults().len(), 1, "{error}");
    }

    #[test]
    fn pairs_of_faults_are_both_reported() {
        let faults = [
            ("/audience", json!([" a"])),
            ("/resource", json!("ftp://x")),
            ("/max_token_bytes", json!(0)),
            ("/verified_tokens_bytes", json!(1_u64 << 40)),
            ("/issuers/0/issuer", json!("https://id.example/.well-known/x")),
            ("/issuers/0/expected_issuer", json!("https://id.example/{x}")),
            ("/issuers/0/discovery_url", json!("https://{x}/")),
            ("/issuers/0/jwks_uri", json!("ftp://x")),
            ("/issuers/0/algorithms", json!([])),
            ("/issuers/0/leeway_seconds", json!(3600)),
            ("/issuers/0/max_token_lifetime_seconds", json!(0)),
            ("/issuers/0/jwks/wait_seconds", json!(0)),
            ("/issuers/0/claims/subject", json!([])),
            ("/issuers/0/audience", json!([""])),
        ];
        for (nth, one) in faults.iter().enumerate() {
            for other in &faults[nth + 1..] {
                let error = changed(&[one.clone(), other.clone()]).check().unwrap_err();
                assert_eq!(error.faults().len(), 2, "{one:?} {other:?}: {error}");
            }
        }
    }

    #[test]
    fn settings_without_the_meant_effect_are_told() {
        let none: &[(&str, Value)] = &[];
        assert!(changed(none).doubtful_settings().is_empty());
        let silent = json!([
            "/realm_access/roles",
            "https://a.example/roles",
            "a.example/x",
            "urn:x:a.b",
            "cognito:groups"
        ]);
        assert!(changed(&[("/issuers/0/claims/roles", silent)]).doubtful_settings().is_empty());
        for (changes, notice) in [
            (
                &[("/issuers/0/claims/roles", json!(["realm_access.roles"]))][..],
                "issuers[0].claims.roles has a dot, so it is the name of one claim: for a member of a claim, write a JSON pointer, /realm_access/roles",
            ),
            (&[("/issuers/0/claims/tenant_id", json!(["$.org.id"]))], "a JSON pointer, /org/id"),
            (&[("/issuers/0/audience", json!(["b"]))], "audience has no effect"),
            (
                &[("/client/redis_url", json!("redis://r"))],
                "client.redis_url has no effect without client.id",
            ),
            (
                &[("/client/secret", json!("s")), ("/client/auth", json!("none"))],
                "client.secret has no effect",
            ),
            (
                &[("/client/redis_url_file", json!("Cargo.toml"))],
                "client.redis_url_file has no effect without client.id",
            ),
            (
                &[("/client/secret_file", json!("Cargo.toml")), ("/client/auth", json!("none"))],
                "client.secret_file has no effect",
            ),
            (
                &[("/client/key_file", json!("/k"))],
                "client.key_file has no effect: set auth = private_key_jwt",
            ),
            (
                &[("/client/assertion_audience", json!("a")), ("/client/secret", json!("s"))],
                "client.assertion_audience has no effect: only a workload token",
            ),
            (
                &[("/endpoints/scopes", json!("a"))],
                "endpoints.scopes has no effect without endpoints.redirect_uri",
            ),
        ] {
            let config = changed(changes);
            config.check().unwrap();
            let told = config.doubtful_settings();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains(notice), "{told:?}");
        }
        let told = doubts_of(&[("P_ISSUER", "https://a"), ("P_ROLES_CLAIM", "a.b")]);
        assert!(told[0].starts_with("P_ROLES_CLAIM has a dot"), "{told:?}");
    }

    fn doubts_of(variables: &[(&str, &str)]) -> Vec<String> {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        AuthConfig::from_vars("P", variables.iter().map(owned)).doubtful_settings()
    }

    #[test]
    fn audience_of_every_client_is_told() {
        let realm = ("P_ISSUER", "https://sso.example/realms/main");
        let other = ("P_ISSUER", "https://id.example");
        let (preset, account) = (("P_PROVIDER", "keycloak"), ("P_AUDIENCE", "docs account"));
        for variables in [&[realm, account][..], &[preset, realm, account]] {
            let told = doubts_of(variables);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with("P_AUDIENCE has `account`, which"), "{told:?}");
        }
        let clients = ("P_AUDIENCE_CLAIMS", "azp");
        for variables in [
            &[realm, ("P_AUDIENCE", "docs")][..],
            &[realm, ("P_AUDIENCE", "accounts")],
            &[realm, account, clients],
            &[other, account],
        ] {
            assert!(doubts_of(variables).is_empty(), "{variables:?}");
        }
        let realms = ["a", "b"].map(|name| format!("https://sso.example/realms/{name}"));
        let realms = realms.map(|issuer| json!({ "issuer": issuer }));
        let changes = [("/issuers", json!(realms)), ("/audience", json!(["account"]))];
        assert_eq!(changed(&changes).doubtful_settings().len(), 1, "one notice for one setting");
        let changes = [
            ("/issuers/0/issuer", json!("https://sso.example/realms/a")),
            ("/issuers/0/audience", json!(["account"])),
            ("/audience", json!([])),
        ];
        let told = changed(&changes).doubtful_settings();
        assert!(told[0].starts_with("issuers[0].audience has `account`"), "{told:?}");
    }
}
