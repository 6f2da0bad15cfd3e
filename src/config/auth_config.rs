//! Configuration: [`AuthConfig`], the one type that builder, files and environment meet in.

use serde::Deserialize;

use super::{
    AuthMode, ClientConfig, ConfigError, EndpointsConfig, Fault, IssuerConfig, MockUser, env,
    issuer, resource,
};
use crate::identity::Scopes;
use crate::support::secret::Secret;

/// More is a slip of the pen; the part that is taken at once might not be there.
const MAX_VERIFIED_TOKENS_BYTES: u64 = 64 << 30;

/// What is said of per-tenant issuers whose tenants are anybody's.
const UNSAID_TENANTS: &str = "is empty, and there is no tenant store: every tenant of the provider would be accepted. List the tenants (tenants, `P_TENANTS`), set a tenant store (database_url, `P_DATABASE_URL`, or in code `AuthBuilder::tenants`), or say that all are meant (any_tenant, `P_ANY_TENANT=true`, or in code `tenants(AnyTenant)`)";

/// Everything that can be configured without writing code.
///
/// Three ways lead here: the setters of `AuthBuilder`, a file read with `serde` (unknown fields
/// are refused), and [`from_env`](Self::from_env). Nothing is checked before `build()`, which
/// reports all faults at once.
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
    /// Who is asked about tokens. Default [`AuthMode::ScaiKey`].
    pub mode: AuthMode,
    /// The issuers whose tokens are accepted. At least one, except in mock mode.
    pub issuers: Vec<IssuerConfig>,
    /// What this service is called in `aud`, for issuers that state no audience of their own. A
    /// token must name at least one. There is no way to switch the check off.
    pub audience: Vec<String>,
    /// The `realm` of challenges. Default: the first audience.
    pub realm: Option<String>,
    /// Whether a token without a tenant is refused. Default true; switch it off for services that
    /// platform-wide tokens may use.
    pub tenant_required: bool,
    /// Whether an unknown tenant is answered with 404 instead of 403. Default false.
    pub unknown_tenant_is_not_found: bool,
    /// The longest token read, in bytes. Default 16 KiB; longer ones cost more to refuse.
    pub max_token_bytes: usize,
    /// How much memory may be spent on [tokens verified before](crate::validator::VerifiedTokens), in bytes, so
    /// that each is verified once and not per request. Default 16 MiB, for some 15,000 tokens; at
    /// most 64 GiB. A twenty-fifth is taken at once, the rest as tokens come. 0 switches it off, and
    /// every request costs a verification: 20 to 70 µs.
    pub verified_tokens_bytes: usize,
    /// A tenant store: `postgres://…` (feature `postgres`) or `sqlite:…` (feature `sqlite`). The
    /// default, none, accepts every tenant that a verified token names.
    pub database_url: Option<Secret>,
    /// Accepts every tenant of per-tenant issuers (`{tenant_id}`) for which neither a list of
    /// [tenants](IssuerConfig::tenants) nor a tenant store nor a resolver says which there are.
    /// Default false: such a configuration is refused. Right where every tenant of the provider is
    /// a customer of this service, wrong where anybody can have one, as at Entra ID.
    pub any_tenant: bool,
    /// What the service is to the provider when it asks for tokens itself.
    pub client: ClientConfig,
    /// What the endpoints under `/v1/auth/` need to know.
    pub endpoints: EndpointsConfig,
    /// The public URL of this service, as clients know it (`resource`, RFC 9728 §1.2): challenges
    /// then say where its metadata is.
    pub resource: Option<String>,
    /// The scopes that this service knows, for clients to ask for: `scopes_supported` of its metadata
    /// (RFC 9728 §2). Default: none are published. What sign-ins ask for is not published.
    pub resource_scopes: Scopes,
    /// Who the mock user is, in mock and hybrid mode.
    pub mock: MockUser,
    /// Allows mock and hybrid mode wherever the service runs. Default false, and it should stay so. Set in
    /// code alone: neither a file nor a variable can.
    #[serde(skip)]
    pub insecure_allow_mock_in_production: bool,
    /// The prefix of the environment variables this came from, so that faults name them.
    #[serde(skip)]
    pub(crate) prefix: Option<String>,
    /// Variables that could not be read.
    #[serde(skip)]
    pub(crate) unreadable: Vec<Fault>,
    /// Things that are not wrong but look like mistakes; logged by `build()`.
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
            any_tenant: false,
            client: ClientConfig::default(),
            endpoints: EndpointsConfig::default(),
            resource: None,
            resource_scopes: Scopes::new(),
            mock: MockUser::default(),
            insecure_allow_mock_in_production: false,
            prefix: None,
            unreadable: Vec::new(),
            notices: Vec::new(),
        }
    }
}

impl AuthConfig {
    /// Reads the variables of [`ENVIRONMENT`](super::ENVIRONMENT), each behind `prefix` and an underscore:
    /// `AuthConfig::from_env("SCAIWAVE")` reads `SCAIWAVE_AUTH_MODE` and so on.
    ///
    /// Variables that are unset or empty leave the default. Those that cannot be read are reported
    /// by `build()`, with everything else that is wrong. One that looks like a misspelling is named
    /// in a warning.
    pub fn from_env(prefix: &str) -> Self {
        // A variable that is not UTF-8 can only be one of ours by mistake; it is read as broken
        // text, so that its parser names it.
        let all = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()));
        Self::from_vars(prefix, all)
    }

    /// [`from_env`](Self::from_env) on variables given as pairs.
    pub fn from_vars(prefix: &str, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        env::read(prefix, vars)
    }

    /// Things that look like mistakes though they are none, such as a variable with a name close
    /// to a known one, or with a setting that this build lacks the feature for. Those of a file or of code are
    /// in the log alone, when `build()` has it.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether this build has a feature that settings are for.
    pub(super) fn is_built_with(feature: &str) -> bool {
        match feature {
            "exchange" => cfg!(feature = "exchange"),
            "endpoints" => cfg!(feature = "endpoints"),
            "redis" => cfg!(feature = "redis"),
            _ => cfg!(feature = "trust"),
        }
    }

    /// Notices what is set for features that this build does not have.
    pub(crate) fn notice_unused(&mut self) {
        self.notices.extend(self.without_use(Self::is_built_with));
    }

    /// What is set for features that the build does not have, as notices say it.
    pub(super) fn without_use(&self, is_built_with: impl Fn(&str) -> bool) -> Vec<String> {
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
            ("exchange", "client.tenant_parameter", client.tenant_parameter.is_some()),
            ("exchange", "client.cache_keys", client.cache_keys.is_some()),
            ("redis", "client.redis_url", client.redis_url.is_some()),
            ("redis", "client.insecure_spend_without_lock", client.insecure_spend_without_lock),
            ("endpoints", "endpoints.redirect_uri", endpoints.redirect_uri.is_some()),
            ("endpoints", "endpoints.scopes", endpoints.scopes.is_some()),
            ("endpoints", "endpoints.session_keys", endpoints.session_keys.is_some()),
            ("endpoints", "endpoints.password_grant", endpoints.password_grant),
            ("trust", "endpoints.trust_file", endpoints.trust_file.is_some()),
            ("endpoints", "endpoints.trusted_proxies", !endpoints.trusted_proxies.is_empty()),
        ];
        let unused =
            settings.into_iter().filter(|(feature, _, set)| *set && !is_built_with(feature));
        let notice = |(feature, field, _)| {
            let variable = self.prefix.as_ref().zip(env::variable_for(field));
            let name = variable.map(|(prefix, variable)| format!("{prefix}_{variable}"));
            let name = name.unwrap_or_else(|| String::from(field));
            format!("{name} is not used: this build is without the feature `{feature}`")
        };
        unused.map(notice).collect()
    }

    /// The audiences a token of `issuer` may name.
    pub(crate) fn audience_of<'c>(&'c self, issuer: &'c IssuerConfig) -> &'c [String] {
        if issuer.audience.is_empty() { &self.audience } else { &issuer.audience }
    }

    /// The configuration of one issuer, to be checked by itself.
    pub(crate) fn of_issuer(issuer: &IssuerConfig, audience: &[String]) -> Self {
        Self { issuers: vec![issuer.clone()], audience: audience.to_vec(), ..Self::default() }
    }

    /// Whether something says which tenants of a per-tenant issuer count.
    fn says_which_tenants(&self, issuer: &IssuerConfig) -> bool {
        let has_store = self.database_url.is_some() || self.mode == AuthMode::Mock;
        !issuer.tenants.is_empty() || issuer.has_resolver || has_store || self.any_tenant
    }

    /// Everything that is wrong, not only the first thing.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut faults = self.unreadable.clone();
        let no_audience =
            || Fault::new("audience", "is missing: give the name this service has in `aud`");
        if self.issuers.is_empty() && self.mode != AuthMode::Mock {
            faults.push(Fault::new("issuer", issuer::MISSING_ISSUER));
            faults.extend(self.audience.is_empty().then(no_audience));
        }
        for (nth, issuer) in self.issuers.iter().enumerate() {
            issuer.check(nth, &mut faults);
            if self.audience_of(issuer).is_empty() {
                faults.push(no_audience());
            }
            if issuer.is_per_tenant() && !self.says_which_tenants(issuer) {
                faults.push(Fault::new(format!("issuers[{nth}].tenants"), UNSAID_TENANTS));
            }
            let expected = issuer.expected();
            if self.issuers.iter().take(nth).any(|earlier| earlier.expected() == expected) {
                faults.push(Fault::new(
                    format!("issuers[{nth}].issuer"),
                    "repeats an earlier one: tokens could not tell the two apart",
                ));
            }
        }
        if let Some(resource) = &self.resource {
            faults.extend(resource::check(resource).err());
        } else if !self.resource_scopes.is_empty() {
            let problem = "is of no use without resource, the URL whose metadata names them";
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
            faults.push(Fault::new("verified_tokens_bytes", "is above 64 GiB"));
        }
        self.mode.check(self, &mut faults);
        if !faults.is_empty() {
            // What is missing may be there under a misspelt name.
            let notices = self.notices.iter().filter_map(|notice| notice.split_once(' '));
            faults.extend(notices.map(|(variable, problem)| Fault::new(variable, problem)));
        }
        ConfigError::from_faults(faults).map_err(|error| error.named(self.prefix.as_deref()))
    }
}
