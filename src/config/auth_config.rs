//! [`AuthConfig`]: the configuration that the builder, files and the environment produce.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    AuthMode, ClientConfig, ConfigError, EndpointsConfig, Fault, IssuerConfig, MockUser, Origin,
    env, issuer, resource,
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
    pub issuers: Vec<IssuerConfig>,
    /// The names of this service in `aud`. An issuer with its own [audience](field@IssuerConfig::audience)
    /// does not use them. A token must have at least one of them. The check cannot be switched off.
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
    /// A tenant store: `postgres://…` (feature `postgres`) or `sqlite:…` (feature `sqlite`). Default: none.
    /// Then every tenant that a verified token names is accepted; for per-tenant issuers, see
    /// [`any_tenant`](Self::any_tenant).
    pub database_url: Option<Secret>,
    /// A file with `database_url`, instead of it. White space at its end is ignored. The file is read once, by
    /// `build()`: after its content was replaced, restart the service. Default: none.
    pub database_url_file: Option<PathBuf>,
    /// Whether a per-tenant issuer (`{tenant_id}`) without any restriction accepts every tenant of the
    /// provider. A restriction is a list of [tenants](field@IssuerConfig::tenants), a resolver, or a tenant
    /// store. Default false, which rejects a configuration without a restriction. Set it to true only if
    /// every tenant of the provider is a customer of this service. In Entra ID, for example, anyone can
    /// create a tenant.
    pub any_tenant: bool,
    /// The service as an OAuth client of the provider.
    pub client: ClientConfig,
    /// The settings of the endpoints under `/v1/auth/`.
    pub endpoints: EndpointsConfig,
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
    /// Where the settings come from. Faults then name variables instead of fields.
    #[serde(skip)]
    pub(crate) origin: Origin,
    /// The faults of variables whose values could not be parsed.
    #[serde(skip)]
    pub(crate) unreadable: Vec<Fault>,
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
            resource: None,
            resource_scopes: Scopes::new(),
            mock: MockUser::default(),
            insecure_allow_mock_in_production: false,
            origin: Origin::default(),
            unreadable: Vec::new(),
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

    /// Returns notices about settings that are valid but look like mistakes: a variable whose name is close
    /// to that of a known one, or a setting whose cargo feature is not enabled. After `from_env` they are
    /// complete. For a configuration from a file or from code, `build()` finds the notices and only logs
    /// them.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns whether this build has `feature`.
    pub(super) fn is_built_with(feature: &str) -> bool {
        [
            ("exchange", cfg!(feature = "exchange")),
            ("endpoints", cfg!(feature = "endpoints")),
            ("redis", cfg!(feature = "redis")),
            ("trust", cfg!(feature = "trust")),
        ]
        .contains(&(feature, true))
    }

    /// Adds notices about settings whose cargo feature is not enabled.
    pub(crate) fn add_notices_of_unused_settings(&mut self) {
        for notice in self.unused_settings(Self::is_built_with) {
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        }
    }

    /// Returns notices about settings whose cargo feature is not enabled.
    pub(super) fn unused_settings(&self, is_built_with: impl Fn(&str) -> bool) -> Vec<String> {
        let (client, endpoints) = (&self.client, &self.endpoints);
        let settings = [
            ("exchange", "client.id", client.id.is_some()),
            ("exchange", "client.secret", client.secret.is_some()),
            ("exchange", "client.secret_file", client.secret_file.is_some()),
            ("exchange", "client.auth", client.auth != ClientConfig::default().auth),
            ("exchange", "client.key_file", client.key_file.is_some()),
            ("exchange", "client.key_id", client.key_id.is_some()),
            ("exchange", "client.token_url", client.token_url.is_some()),
            ("exchange", "client.authorization_url", client.authorization_url.is_some()),
            ("exchange", "client.revocation_url", client.revocation_url.is_some()),
            ("exchange", "client.tenant_parameter", client.tenant_parameter.is_some()),
            (
                "exchange",
                "client.exchange_grant",
                client.exchange_grant != ClientConfig::default().exchange_grant,
            ),
            ("exchange", "client.requested_token_type", client.requested_token_type.is_some()),
            ("exchange", "client.default_lifetime_seconds", client.default_lifetime.is_some()),
            ("endpoints", "client.trusted_audiences", !client.trusted_audiences.is_empty()),
            ("exchange", "client.accept_extra_scopes", !client.accept_extra_scopes.is_empty()),
            ("exchange", "client.accept_untyped_tokens", client.accept_untyped_tokens),
            ("exchange", "client.accept_non_bearer_tokens", client.accept_non_bearer_tokens),
            ("exchange", "client.insecure_any_audience", client.insecure_any_audience),
            ("exchange", "client.insecure_any_subject", client.insecure_any_subject),
            ("exchange", "client.insecure_any_service_tenant", client.insecure_any_service_tenant),
            ("exchange", "client.insecure_unreadable_claims", client.insecure_unreadable_claims),
            ("exchange", "client.insecure_outlive_subject", client.insecure_outlive_subject),
            ("exchange", "client.cache_keys", client.cache_keys.is_some()),
            ("exchange", "client.cache_keys_file", client.cache_keys_file.is_some()),
            ("redis", "client.redis_url", client.redis_url.is_some()),
            ("redis", "client.redis_url_file", client.redis_url_file.is_some()),
            ("redis", "client.insecure_spend_without_lock", client.insecure_spend_without_lock),
            ("endpoints", "endpoints.redirect_uri", endpoints.redirect_uri.is_some()),
            ("endpoints", "endpoints.scopes", endpoints.scopes.is_some()),
            ("endpoints", "endpoints.sign_in_parameters", !endpoints.sign_in_parameters.is_empty()),
            ("endpoints", "endpoints.session_keys", endpoints.session_keys.is_some()),
            ("endpoints", "endpoints.session_keys_file", endpoints.session_keys_file.is_some()),
            ("endpoints", "endpoints.password_grant", endpoints.password_grant),
            ("trust", "endpoints.trust_file", endpoints.trust_file.is_some()),
            ("endpoints", "endpoints.trusted_proxies", !endpoints.trusted_proxies.is_empty()),
        ];
        let unused =
            settings.into_iter().filter(|(feature, _, set)| *set && !is_built_with(feature));
        let notice = |(feature, field, _)| {
            let name = self.origin.variable(field).unwrap_or_else(|| String::from(field));
            format!("{name} has no effect: enable the cargo feature `{feature}` of scaikey-auth")
        };
        unused.map(notice).collect()
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
        let has_store = self.has_database() || self.mode == AuthMode::Mock;
        !issuer.tenants.is_empty() || issuer.has_resolver || has_store || self.any_tenant
    }

    /// Checks the configuration and reports all faults.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut faults = self.unreadable.clone();
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
        for (nth, issuer) in self.issuers.iter().enumerate() {
            issuer.check(nth, &mut faults);
            if self.audience_of(issuer).is_empty() {
                faults.push(no_audience());
            }
            if issuer.is_per_tenant() && !self.decides_on_tenants(issuer) {
                faults.push(Fault::new(format!("issuers[{nth}].tenants"), UNRESTRICTED_TENANTS));
            }
            let expected = issuer.expected();
            if self.issuers.iter().take(nth).any(|earlier| earlier.expected() == expected) {
                faults.push(Fault::new(
                    format!("issuers[{nth}].issuer"),
                    "has the same `iss` as an earlier issuer: their tokens could not be distinguished",
                ));
            }
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
        self.mode.check(self, &mut faults);
        ConfigError::from_faults(faults)
            .map_err(|error| error.named_by(&self.origin).explained_by(&self.notices))
    }
}

/// Returns the environment variables of the process. A value that is not UTF-8 is converted lossily, so that
/// its parser rejects and names it.
fn process_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
}
