//! [`IssuerConfig`]: one issuer, as configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Position, Url};

use super::{Algorithm, Fault};
use crate::identity::{ClaimsMapping, TenantId};

/// What is said when nobody is named to trust.
pub(super) const MISSING_ISSUER: &str =
    "is missing: give the provider's URL, such as https://scaikey.example";

/// What stands for the tenant's id in the URLs of per-tenant issuers.
pub(crate) const TENANT_PLACEHOLDER: &str = "{tenant_id}";

/// What is wrong with another one. It is not repeated: it may be a part of a password.
pub(crate) const OTHER_PLACEHOLDER: &str =
    "has another name in braces: the placeholder is {tenant_id}";

/// The longest tenant id that is put into a URL, in bytes.
const MAX_TENANT_IN_URL: usize = 128;

/// How much a token must say to be taken for an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TokenProfile {
    /// `typ` absent, `JWT` or `at+jwt`; `iss`, `aud`, `sub` and `exp` present; no signs of an ID
    /// token. What most providers issue. The default.
    #[default]
    Lenient,
    /// RFC 9068: `typ` is `at+jwt`, and `client_id`, `iat` and `jti` are present too.
    Rfc9068,
}

/// One issuer whose tokens are accepted.
///
/// `IssuerConfig::from("https://scaikey.example")` finds everything by discovery. The setters are
/// for issuers that are found under another URL or say things differently.
///
/// **Per-tenant issuers.** With `{tenant_id}` in the issuer, it stands for one issuer per tenant:
/// `https://scaikey.example/tenants/{tenant_id}`. The placeholder may also stand in
/// [`discovery_url`](Self::discovery_url) or [`jwks_uri`](Self::jwks_uri); where the provider uses
/// another name for the tenant there, see `AuthBuilder::tenant_issuers`. The tenant in `iss` must
/// be the one the token claims.
///
/// It may stand in paths and queries, and never in a host, port or user name, also not in a part of
/// one: an unverified token would choose whom this service asks. Which tenants count must be said:
/// by [`tenants`](Self::tenants), a tenant store, a resolver of issuers, or
/// [`AuthConfig::any_tenant`](super::AuthConfig::any_tenant).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[must_use]
#[non_exhaustive]
pub struct IssuerConfig {
    /// The issuer's URL: where discovery begins, and what `iss` says unless
    /// [`expected_issuer`](Self::expected_issuer) is set.
    pub issuer: String,
    /// What `iss`, and the discovery document, say when that is not [`issuer`](Self::issuer).
    /// Compared byte for byte.
    #[serde(default)]
    pub expected_issuer: Option<String>,
    /// The discovery document, where it is not at a well-known path under the issuer.
    #[serde(default)]
    pub discovery_url: Option<String>,
    /// The key set. When set, there is no discovery.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// What this service is called in `aud` by this issuer. Default: `AuthConfig::audience`.
    #[serde(default)]
    pub audience: Vec<String>,
    /// The algorithms its tokens may be signed with. Default RS256 and ES256.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How much a token must say. Default [`TokenProfile::Lenient`].
    #[serde(default)]
    pub profile: TokenProfile,
    /// How far clocks may differ, for `exp`, `nbf` and `iat`. Default 60 s, at most 10 min.
    #[serde(default = "default_leeway", rename = "leeway_seconds", with = "seconds")]
    pub leeway: Duration,
    /// Refuses tokens issued for longer than this (`exp - iat`). Default: no limit.
    #[serde(default, rename = "max_token_lifetime_seconds", with = "optional_seconds")]
    pub max_token_lifetime: Option<Duration>,
    /// Allows `http` for this issuer's URLs on loopback addresses, for tests and laptops. Default
    /// false: `https` only.
    #[serde(default)]
    pub allow_loopback_http: bool,
    /// The life cycle of its key set.
    #[serde(default)]
    pub jwks: JwksSettings,
    /// Which of its claims say what. The default is ScaiKey's.
    #[serde(default)]
    pub claims: ClaimsMapping,
    /// The tenants it may issue tokens for. Default, empty: any; for per-tenant issuers, see above.
    #[serde(default)]
    pub tenants: Vec<TenantId>,
    /// Takes `client_id` for `sub` in client-credentials tokens that have no `sub`, as ScaiKey
    /// issued them before 2026-05-16. Default false.
    #[serde(default)]
    pub legacy_service_tokens: bool,
    /// The key set itself. When set, nobody is asked for it.
    #[serde(skip)]
    pub(crate) inline_keys: Option<Arc<str>>,
    /// What it takes to fetch the key set, beside its URL.
    #[serde(skip)]
    pub(crate) key_access: KeyAccess,
    /// Whether a resolver says which tenants have an issuer.
    #[serde(skip)]
    pub(crate) has_resolver: bool,
}

/// Files that fetching a key set needs where the place is not open to everybody. They are read for
/// each fetch, since both kinds are exchanged while a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct KeyAccess {
    /// The certificates, in PEM, that alone vouch for the place.
    pub(crate) ca_file: Option<PathBuf>,
    /// The bearer token to show.
    pub(crate) bearer_file: Option<PathBuf>,
}

impl IssuerConfig {
    /// An issuer with everything at its default.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            expected_issuer: None,
            discovery_url: None,
            jwks_uri: None,
            audience: Vec::new(),
            algorithms: default_algorithms(),
            profile: TokenProfile::default(),
            leeway: default_leeway(),
            max_token_lifetime: None,
            allow_loopback_http: false,
            jwks: JwksSettings::default(),
            claims: ClaimsMapping::default(),
            tenants: Vec::new(),
            legacy_service_tokens: false,
            inline_keys: None,
            key_access: KeyAccess::default(),
            has_resolver: false,
        }
    }

    /// What `iss` must say.
    pub fn expected(&self) -> &str {
        self.expected_issuer.as_deref().unwrap_or(&self.issuer)
    }

    /// Adds a name this service has in `aud`.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience.push(audience.into());
        self
    }

    /// Sets [`expected_issuer`](field@Self::expected_issuer).
    pub fn expected_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.expected_issuer = Some(issuer.into());
        self
    }

    /// Sets [`discovery_url`](field@Self::discovery_url).
    pub fn discovery_url(mut self, url: impl Into<String>) -> Self {
        self.discovery_url = Some(url.into());
        self
    }

    /// Sets [`jwks_uri`](field@Self::jwks_uri).
    pub fn jwks_uri(mut self, url: impl Into<String>) -> Self {
        self.jwks_uri = Some(url.into());
        self
    }

    /// Gives the keys themselves: nobody is asked for them, and nothing replaces them while the
    /// service runs. They are a key set or one JWK (RFC 7517, JSON), or PEM (RFC 7468) with
    /// `PUBLIC KEY`, `RSA PUBLIC KEY` and `CERTIFICATE` blocks. Keys in PEM have no `kid`: they
    /// verify tokens whatever `kid` these name. *Not* checked: who issued a certificate, and when
    /// it expires.
    ///
    /// `build()` refuses a text without usable key, and one with private or symmetric keys.
    pub fn keys(mut self, keys: &str) -> Self {
        self.inline_keys = Some(keys.into());
        self
    }

    /// Sets [`algorithms`](field@Self::algorithms).
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets [`profile`](field@Self::profile).
    pub fn profile(mut self, profile: TokenProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Sets [`leeway`](field@Self::leeway).
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets [`allow_loopback_http`](field@Self::allow_loopback_http).
    pub fn allow_loopback_http(mut self, allow: bool) -> Self {
        self.allow_loopback_http = allow;
        self
    }

    /// Sets [`jwks`](field@Self::jwks).
    pub fn jwks(mut self, settings: JwksSettings) -> Self {
        self.jwks = settings;
        self
    }

    /// Sets [`claims`](field@Self::claims).
    pub fn claims(mut self, mapping: ClaimsMapping) -> Self {
        self.claims = mapping;
        self
    }

    /// Sets [`tenants`](field@Self::tenants).
    pub fn tenants(mut self, tenants: impl IntoIterator<Item = TenantId>) -> Self {
        self.tenants = tenants.into_iter().collect();
        self
    }

    /// Sets [`max_token_lifetime`](field@Self::max_token_lifetime).
    pub fn max_token_lifetime(mut self, limit: Duration) -> Self {
        self.max_token_lifetime = Some(limit);
        self
    }

    /// Sets [`legacy_service_tokens`](field@Self::legacy_service_tokens).
    pub fn legacy_service_tokens(mut self, accept: bool) -> Self {
        self.legacy_service_tokens = accept;
        self
    }

    /// Whether this stands for one issuer per tenant.
    pub(crate) fn is_per_tenant(&self) -> bool {
        self.expected().contains(TENANT_PLACEHOLDER)
    }

    pub(super) fn check(&self, nth: usize, faults: &mut Vec<Fault>) {
        let mut fault = |field: &str, problem: &str| {
            faults.push(Fault::new(format!("issuers[{nth}].{field}"), problem));
        };
        if self.issuer.is_empty() {
            fault("issuer", MISSING_ISSUER);
        } else if self.expected().is_empty() {
            fault("expected_issuer", "is empty: leave it out, or give what `iss` says");
        }
        let urls = [
            ("issuer", Some(&self.issuer).filter(|url| !url.is_empty())),
            ("discovery_url", self.discovery_url.as_ref()),
            ("jwks_uri", self.jwks_uri.as_ref()),
        ];
        for (field, url) in urls {
            if let Some(Err(problem)) = url.map(|url| self.check_url(url)) {
                fault(field, problem);
            }
        }
        self.check_placeholders(&mut fault);
        self.check_never(&mut fault);
        if let Ok(url) = Url::parse(&self.issuer)
            && (url.query().is_some() || url.fragment().is_some())
        {
            fault("issuer", "must have neither query nor fragment (RFC 8414 §2)");
        }
        if self.expected().matches(TENANT_PLACEHOLDER).count() > 1 {
            fault("issuer", &format!("has {TENANT_PLACEHOLDER} more than once"));
        }
        if self.algorithms.is_empty() {
            fault("algorithms", "is empty: name at least one, such as RS256");
        }
        if self.leeway > MAX_LEEWAY {
            fault(
                "leeway_seconds",
                &format!("is above {} s: fix the clocks instead", MAX_LEEWAY.as_secs()),
            );
        }
        if self.audience.iter().any(String::is_empty) {
            fault("audience", "has an empty entry");
        }
        self.jwks.check(&mut fault);
    }

    /// The URLs that have the placeholder, by their fields.
    fn templates(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.urls().filter(|(_, url)| url.contains(TENANT_PLACEHOLDER))
    }

    fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [
            ("issuer", Some(&self.issuer)),
            ("expected_issuer", self.expected_issuer.as_ref()),
            ("discovery_url", self.discovery_url.as_ref()),
            ("jwks_uri", self.jwks_uri.as_ref()),
        ];
        fields.into_iter().filter_map(|(field, url)| Some((field, url?.as_str())))
    }

    /// The field of a URL in which the tenant's id, which unverified tokens name, would decide
    /// which server is asked.
    pub(crate) fn server_by_tenant(&self) -> Option<&'static str> {
        let mut templates = self.templates();
        templates.find(|(_, url)| !is_same_server_for_all(url)).map(|(field, _)| field)
    }

    fn check_placeholders(&self, fault: &mut impl FnMut(&str, &str)) {
        for (field, url) in self.urls() {
            if has_other_placeholder(url) {
                fault(field, OTHER_PLACEHOLDER);
            }
        }
        let is_unfit = |tenant: &TenantId| self.is_per_tenant() && !fits_url(tenant.as_str());
        if let Some(before) = self.tenants.iter().position(is_unfit) {
            fault(
                "tenants",
                &format!(
                    "entry {} is a tenant of which no token would be accepted: where issuers have {TENANT_PLACEHOLDER}, a tenant's id has letters, digits and -_.~ only, and {MAX_TENANT_IN_URL} bytes at most",
                    before + 1
                ),
            );
        }
        if let Some(field) = self.server_by_tenant() {
            fault(
                field,
                &format!(
                    "has {TENANT_PLACEHOLDER} before its path: unverified tokens would choose the server that is asked for keys. Put it into the path, or list each tenant's issuer"
                ),
            );
        }
        let unfilled = self.templates().filter(|_| !self.is_per_tenant());
        for (field, _) in unfilled {
            fault(
                field,
                &format!(
                    "has {TENANT_PLACEHOLDER}, which nothing replaces: put it into what `iss` says, too (expected_issuer, where that is set, else issuer)"
                ),
            );
        }
    }

    /// Settings with which no token could ever be accepted.
    fn check_never(&self, fault: &mut impl FnMut(&str, &str)) {
        let has_outer_space = |text: &str| text.trim() != text;
        if has_outer_space(self.expected()) {
            fault("issuer", "begins or ends with white space, which `iss` does not");
        }
        if self.audience.iter().any(|name| has_outer_space(name)) {
            fault("audience", "begins or ends with white space, which `aud` does not");
        }
        if self.max_token_lifetime.is_some_and(|limit| limit.is_zero()) {
            fault("max_token_lifetime_seconds", "must not be 0");
        }
        if self.inline_keys.is_some() && self.jwks_uri.is_some() {
            fault("jwks_uri", "is given beside the keys themselves: leave one out");
        }
        if self.is_per_tenant() && self.claims.tenant_id.is_empty() {
            fault(
                "claims.tenant_id",
                "is empty: a tenant's issuer needs the claim with the tenant",
            );
        }
        for (field, url) in [("discovery_url", &self.discovery_url), ("jwks_uri", &self.jwks_uri)] {
            let url = url.as_deref().and_then(|url| Url::parse(url).ok());
            if url.is_some_and(|url| url.fragment().is_some()) {
                fault(field, "has a fragment, which is never sent: remove it");
            }
        }
    }

    /// `https`, or `http` on loopback where allowed; no user information.
    fn check_url(&self, url: &str) -> Result<(), &'static str> {
        let url = Url::parse(url).map_err(|_| "is not a URL: write it as https://host/path")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user name or password in it: remove it");
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if !is_loopback(&url) => Err("must be https"),
            "http" if self.allow_loopback_http => Ok(()),
            "http" => Err(
                "must be https; for a provider on this machine, allow http on loopback (allow_loopback_http, or the variable …_ALLOW_LOOPBACK_HTTP=true)",
            ),
            _ => Err("must be https"),
        }
    }
}

impl From<&str> for IssuerConfig {
    fn from(issuer: &str) -> Self {
        Self::new(issuer)
    }
}

impl From<String> for IssuerConfig {
    fn from(issuer: String) -> Self {
        Self::new(issuer)
    }
}

/// Whether something stands in braces in a URL and is not the placeholder.
pub(crate) fn has_other_placeholder(url: &str) -> bool {
    url.match_indices('{')
        .filter_map(|(start, _)| url[start..].find('}').map(|end| &url[start..=start + end]))
        .any(|found| found != TENANT_PLACEHOLDER)
}

/// Whether a tenant's id means the same in a URL as outside of it.
pub(crate) fn fits_url(tenant: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    tenant.len() <= MAX_TENANT_IN_URL
        && tenant.bytes().all(plain)
        && !tenant.bytes().all(|byte| byte == b'.')
}

/// Whether scheme, user, host and port of a URL are the same whatever stands for the placeholder.
fn is_same_server_for_all(url: &str) -> bool {
    // Digits, because only they may stand in a port.
    let server = |tenant: &str| {
        let url = Url::parse(&url.replace(TENANT_PLACEHOLDER, tenant)).ok()?;
        Some(url[..Position::BeforePath].to_owned())
    };
    let one = server("1");
    one.is_some() && one == server("2")
}

/// Whether the URL's host is an address of this machine, or `localhost`.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The life cycle of a key set. Every default is meant for production.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct JwksSettings {
    /// How old a key set becomes before it is fetched anew in the background, when the provider's
    /// `Cache-Control` does not say. Default 5 min, ±10 % so that replicas spread; what the provider
    /// says is held between 1 min and 1 h. Shorter sees withdrawals sooner and asks more often.
    #[serde(rename = "ttl_seconds", with = "seconds")]
    pub ttl: Duration,
    /// How often an unknown key id, or a bad signature under a known one, may cause a fetch of the
    /// set, beyond a burst of two. Default 5 s, which is also how long good tokens are refused when
    /// the provider changes its key in the middle of an attack. Longer spares the provider.
    #[serde(rename = "cooldown_seconds", with = "seconds")]
    pub cooldown: Duration,
    /// How long keys are used after they were last fetched, while the provider cannot be reached.
    /// Default 24 h. Longer survives longer outages and trusts withdrawn keys longer. Also the
    /// longest TTL, whatever the provider says.
    #[serde(rename = "max_stale_seconds", with = "seconds")]
    pub max_stale: Duration,
    /// How long a request waits for keys it cannot do without. Default 2 s; then 503.
    #[serde(rename = "wait_seconds", with = "seconds")]
    pub wait: Duration,
    /// The deadline of one fetch, connecting included (of which connecting may take 2 s). Default 5 s.
    #[serde(rename = "timeout_seconds", with = "seconds")]
    pub timeout: Duration,
    /// The largest answer read. Default 256 KiB.
    pub max_bytes: usize,
    /// The most keys taken from a set. Default 100; a larger set is refused whole.
    pub max_keys: usize,
}

impl Default for JwksSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            cooldown: Duration::from_secs(5),
            max_stale: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            max_bytes: 256 * 1024,
            max_keys: 100,
        }
    }
}

impl JwksSettings {
    fn check(&self, fault: &mut impl FnMut(&str, &str)) {
        let durations = [
            ("jwks.ttl_seconds", self.ttl),
            ("jwks.cooldown_seconds", self.cooldown),
            ("jwks.wait_seconds", self.wait),
            ("jwks.timeout_seconds", self.timeout),
        ];
        for (field, duration) in durations {
            if duration.is_zero() {
                fault(field, "must not be 0");
            }
        }
        if self.max_stale < self.ttl {
            fault(
                "jwks.max_stale_seconds",
                "is shorter than the TTL: keys would die before they are renewed",
            );
        }
        if self.max_bytes == 0 || self.max_keys == 0 {
            fault("jwks", "allows no bytes or no keys: leave the limits at their defaults");
        }
    }
}

const MAX_LEEWAY: Duration = Duration::from_secs(600);

fn default_leeway() -> Duration {
    Duration::from_secs(60)
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

/// Durations as seconds, fractions allowed.
mod seconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

mod optional_seconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(from)?
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom))
            .transpose()
    }
}
