//! [`IssuerConfig`]: the settings of one issuer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::{Host, Position, Url};

#[cfg(feature = "jwe")]
use super::DecryptionKeys;
use super::jwks::JwksSettings;
use super::providers::Provider;
use super::{Algorithm, ConfigError, Fault, IntrospectionSettings, MESH_REMEDY, Origin, PlainHttp};
use crate::identity::{
    ClaimPath, ClaimTest, ClaimsMapping, InvalidClaimPath, InvalidClaimTest, TenantId,
};
use crate::support::secret::Secret;

/// The problem of a configuration without an issuer.
pub(crate) const MISSING_ISSUER: &str =
    "is missing: give the provider's URL, such as https://scaikey.example";

/// The placeholder for the tenant's id in the URLs of per-tenant issuers.
pub(crate) const TENANT_PLACEHOLDER: &str = "{tenant_id}";

/// The problem of a URL with another placeholder. It does not quote the placeholder, which may be part of a
/// password.
pub(crate) const OTHER_PLACEHOLDER: &str =
    "has braces other than those of {tenant_id}, the only placeholder that is supported";

/// The maximum length of a tenant's id in a URL, in bytes.
const MAX_TENANT_IN_URL: usize = 128;

/// The header members and claims that an access token must have.
///
/// ```
/// use scaikey_auth::IssuerConfig;
/// use scaikey_auth::config::TokenProfile;
///
/// // This provider issues tokens of RFC 9068 only. So no ID token can pass.
/// let issuer = IssuerConfig::new("https://id.example").profile(TokenProfile::Rfc9068);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TokenProfile {
    /// `typ` is absent, `JWT` or `at+jwt`; `iss`, `aud`, `sub` and `exp` are present; no claim, such as
    /// `at_hash`, marks an ID, refresh or logout token. Access tokens of most providers fit. The default.
    #[default]
    Lenient,
    /// RFC 9068: `typ` is `at+jwt`, and `client_id`, `iat` and `jti` are present too.
    Rfc9068,
}

/// One issuer whose tokens are accepted.
///
/// `IssuerConfig::from("https://scaikey.example")` is enough if the provider has a discovery document at a
/// well-known path. The setters are for issuers whose metadata is elsewhere or whose claims have other
/// names.
///
/// **Per-tenant issuers.** If the URL contains `{tenant_id}`, the configuration stands for one issuer per
/// tenant: `https://scaikey.example/tenants/{tenant_id}`. The placeholder may also be in
/// [`discovery_url`](Self::discovery_url) or [`jwks_uri`](Self::jwks_uri). If these URLs name the tenant in
/// another way, for example by a slug, see `AuthBuilder::tenant_issuers`. The tenant in `iss` must equal
/// the tenant claim.
///
/// The placeholder may be in paths and queries, but in no part of a host, port or user name; otherwise an
/// unverified token could choose the server that this service calls. The configuration must also say which
/// tenants are accepted: by [`tenants`](Self::tenants), a tenant store, a resolver of issuers, or
/// [`AuthConfig::any_tenant`](super::AuthConfig::any_tenant).
///
/// **Opaque tokens.** A service can also accept tokens without readable claims. In files, the table
/// `introspection` of the issuer switches it on, with the members `url`, `prefixes`, `cache_seconds`,
/// `signed_answers`, `timeout_seconds`, `serve_while_unavailable_seconds`, `unknown_tokens` and
/// `insecure_accept_missing_audience`, all of them optional. The credentials are those of
/// [`client`](super::ClientConfig), so only the first issuer can have this table. In code, use
/// [`AuthBuilder::opaque_tokens`](crate::AuthBuilder::opaque_tokens), whose settings
/// [`OpaqueTokens`](crate::validator::OpaqueTokens) explains.
///
/// **Presets.** For well-known providers, a constructor such as [`keycloak`](Self::keycloak) knows the form of
/// the issuer and the claims. [`map_claims`](Self::map_claims) changes single claims of it. In files,
/// `provider = "keycloak"` selects the preset; every other field, and each single member of `claims`, is laid
/// over it. A setting that excludes one of the preset replaces it: keys, a file with keys or a URL of the
/// metadata replace the preset's URL of the key set, and a [`kind`](field@ClaimsMapping::kind) replaces its
/// tests.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::config::Algorithm;
/// use scaikey_auth::{Auth, IssuerConfig};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// // A provider that this crate does not know: its tokens are signed with EdDSA, and name roles elsewhere.
/// let other = IssuerConfig::new("https://id.example")
///     .algorithms([Algorithm::Ed25519])
///     .map_claims(|claims| claims.roles(["/access/roles"]).tenant_id(["customer"]))
///     .max_token_lifetime(Duration::from_secs(3600));
/// let auth = Auth::builder()
///     .issuer(IssuerConfig::keycloak("https://keycloak.example/realms/main"))
///     .issuer(other)
///     .audience("docs")
///     .build()?;
/// # Ok(()) }
/// ```
// The form in files is in `issuer_file.rs`.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct IssuerConfig {
    /// The issuer's URL: the base of discovery, and the value of `iss` unless
    /// [`expected_issuer`](Self::expected_issuer) is set.
    pub issuer: String,
    /// The issuer in `iss` and in the discovery document, if it differs from [`issuer`](Self::issuer). It is
    /// compared byte by byte.
    pub expected_issuer: Option<String>,
    /// The URL of the discovery document, if it is not at a well-known path under the issuer.
    pub discovery_url: Option<String>,
    /// The URL of the key set. If it is set, there is no discovery. Default: from discovery.
    pub jwks_uri: Option<String>,
    /// The names of this service in this issuer's `aud`, or in the claim that
    /// [`audience_claims`](field@Self::audience_claims) names. Default: `AuthConfig::audience`.
    pub audience: Vec<String>,
    /// The claims that name the audience of a token, as claim names or JSON pointers. The first one that the
    /// token has is compared with [`audience`](field@Self::audience), as a string or a list of strings; the
    /// others do not count. A token with none of them is refused. Errors call each of them `aud`. Default
    /// `aud` only. [`TokenProfile::Rfc9068`] allows nothing else, because its tokens have `aud`.
    ///
    /// Set it for a provider whose `aud` does not name this service. The audience is then the id of the client
    /// (for Clerk, the origin of its pages).
    ///
    /// * `["azp"]` or `["client_id"]`, if `aud` names something else, or is never there: Keycloak without an
    ///   audience mapper, whose `aud: account` would be compared otherwise, and refused.
    /// * `["aud", "azp"]`, if some tokens have the right `aud`, and all others have none: Clerk, whose tokens
    ///   have `aud` only if you add it. The presets for Clerk and Amazon Cognito contain such a list.
    ///
    /// **What it costs.** `client_id` and `azp` say who got the token, not which service it is for. Every
    /// service that the client calls receives such tokens and can use them here, and a token that the client
    /// got for another service is accepted. Prefer a provider setting that adds this service to `aud`.
    pub audience_claims: Vec<ClaimPath>,
    /// Whether ID tokens are accepted as bearer tokens. Default false: they are refused
    /// (RFC 9068 §5, RFC 8725 §3.12).
    ///
    /// Set it for a provider whose access tokens only the provider itself can read: Apple, Dex, Google. `aud`
    /// is still compared; in an ID token it is the client's id, so add that to
    /// [`audience`](field@Self::audience). Refresh and logout tokens are still refused. It cannot be combined
    /// with [`TokenProfile::Rfc9068`].
    ///
    /// **What it costs.** An ID token proves to the client that a user signed in. It has no scopes, and it
    /// does not show that the user allowed the client to call this service. Pages, logs and services that
    /// receive it as a proof of sign-in can call this service as the user until it expires. The start of the
    /// service logs a warning.
    pub insecure_accept_id_tokens: bool,
    /// The tests that tell access tokens from the other tokens of this issuer. A token must pass one of them.
    /// Default: none, so every token is accepted that no claim marks as an ID, refresh or logout token. The
    /// presets for Entra ID and Cognito have tests.
    ///
    /// Set it for a provider whose ID tokens have none of these marks, if a client and this service have the
    /// same id there: an ID token of this client then has the `aud` of this service. Name a claim that only
    /// access tokens have. With [`insecure_accept_id_tokens`](field@Self::insecure_accept_id_tokens), the tests
    /// of a preset are not applied, and other tests are a fault of `build()`.
    pub access_token: Vec<ClaimTest>,
    /// The accepted signature algorithms. Default RS256 and ES256.
    pub algorithms: Vec<Algorithm>,
    /// The header members and claims that a token must have. Default [`TokenProfile::Lenient`].
    pub profile: TokenProfile,
    /// The accepted clock difference, for `exp`, `nbf` and `iat`. Default 60 s, at most 10 min. In files:
    /// `leeway_seconds`, a number that may have a fraction.
    pub leeway: Duration,
    /// The maximum lifetime of a token (`exp` − `iat`). If it is set, tokens without `iat` are refused.
    /// Default: no limit. In files: `max_token_lifetime_seconds`, a number that may have a fraction.
    pub max_token_lifetime: Option<Duration>,
    /// Allows `http` for this issuer's URLs on loopback addresses, `localhost` and names under it, such as
    /// `keycloak.localhost`, for tests and development. Default false: `https` only. An issuer whose keys are in
    /// the configuration or a file is not requested, so its URL may be `http` without this.
    pub allow_loopback_http: bool,
    /// The hosts of this issuer's URLs that may be `http`: exactly these, each as `host` or `host:port`. Use
    /// it only where the network encrypts and authenticates all traffic, such as a service mesh: otherwise
    /// an attacker in the network can replace the keys, and sign in as any user. Such URLs are requested
    /// without a proxy. It covers the configured URLs and those in the issuer's metadata. Default: none.
    pub insecure_http_hosts: Vec<String>,
    /// The file with the CA certificates (PEM) for this issuer's metadata and keys. No other CA is then
    /// trusted for them, not even those of the system. The file is read for each request, so certificates
    /// can be replaced while the service runs. `build()` fails if it cannot be read or has no certificate.
    /// Default: the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// The file with the keys, instead of a key set at a URL: a key set or one JWK in JSON, or PEM, as for
    /// [`keys`](Self::keys). It is read again where a published set is fetched again: after
    /// [`jwks.ttl`](JwksSettings::ttl), and for an unknown key id or a bad signature. If it cannot be used
    /// then, the previous keys stay in use up to `jwks.max_stale`, as while a provider is unavailable.
    /// `build()` fails if the file has no usable key, or a private one. Default: none.
    pub keys_file: Option<PathBuf>,
    /// The private keys that open encrypted tokens, as [`DecryptionKeys`](super::DecryptionKeys) reads them: a JWK Set
    /// or one JWK. Default: none. In code, use `decrypt`, which says how tokens are opened (feature `jwe`).
    pub decryption_keys: Option<Secret>,
    /// The file with [`decryption_keys`](field@Self::decryption_keys). It is read again while tokens are opened, at
    /// most every 10 seconds. Default: none.
    pub decryption_keys_file: Option<PathBuf>,
    /// Whether unencrypted tokens are accepted although there are decryption keys. Default false. See the setter of
    /// this name for its price.
    pub also_unencrypted: bool,
    /// The settings for fetching and caching the key set.
    pub jwks: JwksSettings,
    /// The names of the claims. By default, those of ScaiKey.
    pub claims: ClaimsMapping,
    /// The tenants that this issuer may issue tokens for. With a list, a token without a tenant is refused,
    /// even if the service does not require a tenant. Default: empty, which accepts every tenant. A
    /// per-tenant issuer needs this list or another [restriction](Self).
    pub tenants: Vec<TenantId>,
    /// Whether `client_id` is the subject of a client-credentials token without `sub`. ScaiKey issued such
    /// tokens before 2026-05-16. Default false.
    pub legacy_service_tokens: bool,
    /// The settings of the introspection endpoint, for opaque tokens. In code, `AuthBuilder::opaque_tokens` sets
    /// them.
    pub(crate) introspection: Option<IntrospectionSettings>,
    /// The number of the first invalid path that the setter of `audience_claims` got.
    pub(crate) invalid_audience_claim: Option<usize>,
    /// The preset that this configuration began with.
    pub(super) provider: Option<Provider>,
    /// Whether the issuer does not have the form that its preset needs.
    pub(super) issuer_has_wrong_form: bool,
    /// The keys in the configuration, if any. Then no key set is fetched.
    pub(crate) inline_keys: Option<Arc<str>>,
    /// The files for fetching the key set.
    pub(crate) key_access: KeyAccess,
    /// The form of the key set.
    pub(crate) key_set_form: KeySetForm,
    /// Whether this is a SPIFFE trust domain, and [`issuer`](Self::issuer) its name (`spiffe://prod.example`). Its
    /// tokens are JWT-SVIDs, which are found by the trust domain of `sub`, not by `iss`.
    pub(crate) is_trust_domain: bool,
    /// Whether a resolver decides which tenants have an issuer.
    pub(crate) has_resolver: bool,
    /// The variables that this issuer comes from, so that its faults name them in any configuration.
    pub(super) origin: Origin,
    /// The faults of these variables whose values could not be parsed. They stay with the issuer if it is moved
    /// into another configuration, which must not use it with the default of a rule that was set.
    pub(super) unreadable: Vec<Fault>,
    /// The keys for encrypted tokens. Those of the configuration are added when the issuer is.
    #[cfg(feature = "jwe")]
    pub(crate) decryption: Vec<DecryptionKeys>,
}

/// The way to a server. The file is read for each request, because CA certificates are replaced while the
/// service runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Route {
    /// The file with the CA certificates, in PEM. No other CA is trusted.
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether the proxy variables of the environment are ignored.
    pub(crate) ignores_proxies: bool,
}

/// The way to a key set, and the credentials that its server requires.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct KeyAccess {
    pub(crate) route: Route,
    /// The file with the bearer token to send.
    pub(crate) bearer_file: Option<PathBuf>,
}

/// The form of a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum KeySetForm {
    /// A key set (RFC 7517). Keys in the configuration or a file may also be one JWK, or PEM.
    #[default]
    Jwks,
    /// A SPIFFE bundle: a key set whose keys are for JWT-SVIDs if their `use` is `jwt-svid`.
    #[cfg_attr(not(feature = "trust"), allow(dead_code))]
    SpiffeBundle,
}

impl IssuerConfig {
    /// Returns an issuer with default settings.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            expected_issuer: None,
            discovery_url: None,
            jwks_uri: None,
            audience: Vec::new(),
            audience_claims: default_audience_claims(),
            insecure_accept_id_tokens: false,
            access_token: Vec::new(),
            algorithms: default_algorithms(),
            profile: TokenProfile::default(),
            leeway: default_leeway(),
            max_token_lifetime: None,
            allow_loopback_http: false,
            insecure_http_hosts: Vec::new(),
            ca_file: None,
            keys_file: None,
            decryption_keys: None,
            decryption_keys_file: None,
            also_unencrypted: false,
            jwks: JwksSettings::default(),
            claims: ClaimsMapping::default(),
            tenants: Vec::new(),
            legacy_service_tokens: false,
            introspection: None,
            invalid_audience_claim: None,
            provider: None,
            issuer_has_wrong_form: false,
            inline_keys: None,
            key_access: KeyAccess::default(),
            key_set_form: KeySetForm::default(),
            is_trust_domain: false,
            has_resolver: false,
            origin: Origin::default(),
            unreadable: Vec::new(),
            #[cfg(feature = "jwe")]
            decryption: Vec::new(),
        }
    }

    /// Returns the expected value of `iss`.
    pub fn expected(&self) -> &str {
        self.expected_issuer.as_deref().unwrap_or(&self.issuer)
    }

    /// Adds a name of this service in `aud`.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience.push(audience.into());
        self
    }

    /// Sets [`audience_claims`](field@Self::audience_claims). `build()` reports an invalid path.
    ///
    /// ```
    /// use scaikey_auth::IssuerConfig;
    ///
    /// let cognito = IssuerConfig::new("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_example")
    ///     .audience_claims(["client_id"])
    ///     .audience("the-id-of-the-app-client");
    /// ```
    pub fn audience_claims(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.audience_claims.clear();
        self.invalid_audience_claim = None;
        for (path, nth) in paths.into_iter().zip(1..) {
            match path.as_ref().parse() {
                Ok(path) => self.audience_claims.push(path),
                Err(_) => self.invalid_audience_claim = self.invalid_audience_claim.or(Some(nth)),
            }
        }
        self
    }

    /// Sets [`insecure_accept_id_tokens`](field@Self::insecure_accept_id_tokens).
    pub fn insecure_accept_id_tokens(mut self, accept: bool) -> Self {
        self.insecure_accept_id_tokens = accept;
        self
    }

    /// Sets [`access_token`](field@Self::access_token). `build()` reports an invalid test.
    ///
    /// ```
    /// use scaikey_auth::IssuerConfig;
    /// use scaikey_auth::identity::ClaimTest;
    ///
    /// let issuer = IssuerConfig::new("https://id.example")
    ///     .access_token([ClaimTest::is_present("client_id")]);
    /// ```
    pub fn access_token(mut self, tests: impl IntoIterator<Item = ClaimTest>) -> Self {
        self.access_token = tests.into_iter().collect();
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
        self.lay_over_preset();
        self
    }

    /// Sets [`jwks_uri`](field@Self::jwks_uri).
    pub fn jwks_uri(mut self, url: impl Into<String>) -> Self {
        self.jwks_uri = Some(url.into());
        self
    }

    /// Sets the keys directly. They are not fetched, and they stay the same while the service runs.
    ///
    /// The text is a key set or one JWK (RFC 7517, JSON), or PEM (RFC 7468) with `PUBLIC KEY`,
    /// `RSA PUBLIC KEY` and `CERTIFICATE` blocks. Keys in PEM have no `kid` and verify tokens with any `kid`.
    /// *Not* checked: the issuer and the expiry of a certificate.
    ///
    /// `build()` rejects a text without a usable key, and a text with a private or symmetric key.
    pub fn keys(mut self, keys: &str) -> Self {
        self.inline_keys = Some(keys.into());
        self.lay_over_preset();
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

    /// Adds a host to [`insecure_http_hosts`](field@Self::insecure_http_hosts): `host` or `host:port`.
    ///
    /// ```
    /// use scaikey_auth::IssuerConfig;
    ///
    /// let issuer = IssuerConfig::new("http://keycloak.auth.svc:8080/realms/wave")
    ///     .insecure_http_host("keycloak.auth.svc:8080");
    /// ```
    pub fn insecure_http_host(mut self, host: impl Into<String>) -> Self {
        self.insecure_http_hosts.push(host.into());
        self
    }

    /// Sets [`ca_file`](field@Self::ca_file).
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Sets [`keys_file`](field@Self::keys_file). *Not* checked: that only trusted users can write to the
    /// file. Replace it atomically, as Kubernetes does: a half-written file is refused, and read again after
    /// a pause.
    pub fn keys_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.keys_file = Some(file.into());
        self.lay_over_preset();
        self
    }

    /// Sets [`jwks`](field@Self::jwks).
    pub fn jwks(mut self, settings: JwksSettings) -> Self {
        self.jwks = settings;
        self
    }

    /// Sets [`claims`](field@Self::claims), all of them: a mapping from [`ClaimsMapping::default`] removes what
    /// a preset knows, such as its tests for service accounts. To change single claims, use
    /// [`map_claims`](Self::map_claims).
    pub fn claims(mut self, mapping: ClaimsMapping) -> Self {
        self.claims = mapping;
        self
    }

    /// Changes single [`claims`](field@Self::claims), for example of a preset. The others stay.
    ///
    /// ```
    /// use scaikey_auth::IssuerConfig;
    ///
    /// let realm = IssuerConfig::keycloak("https://keycloak.example/realms/main")
    ///     .map_claims(|claims| claims.roles(["/realm_access/roles", "/resource_access/docs/roles"]));
    /// ```
    pub fn map_claims(mut self, change: impl FnOnce(ClaimsMapping) -> ClaimsMapping) -> Self {
        self.claims = change(self.claims);
        self
    }

    /// Sets [`tenants`](field@Self::tenants).
    pub fn tenants(mut self, tenants: impl IntoIterator<Item = TenantId>) -> Self {
        self.tenants = tenants.into_iter().collect();
        self.lay_over_preset();
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

    /// Adds private keys with which tokens of this issuer are opened that the provider encrypts to this service
    /// (nested JWT, RFC 7519 §2). Unencrypted tokens of the issuer are then refused, unless
    /// [allowed](Self::also_unencrypted).
    ///
    /// An encrypted token has five parts (RFC 7516 §3.1) and `cty: JWT`. Inside is one signed JWT, which must pass
    /// every rule as if it had come alone, and whose issuer must be one that has the key. `enc` may be `A128GCM`,
    /// `A256GCM`, `A128CBC-HS256` or `A256CBC-HS512`. Compression (`zip`), `crit` and all other algorithms are
    /// refused. A token with `kid` is opened with the key of that name; for one without, at most two keys are
    /// tried. It may be twice as long as [`max_token_bytes`](field@crate::AuthConfig::max_token_bytes).
    ///
    /// A token that was verified stays in the [cache](crate::validator::VerifiedTokens) until it expires, even if
    /// its decryption key is removed: the provider's signature proves it, not the encryption.
    ///
    /// For an issuer with `{tenant_id}`, set the keys on the template: the tenant is known only after decryption.
    ///
    /// ```
    /// use scaikey_auth::config::DecryptionKeys;
    /// use scaikey_auth::{Auth, ConfigError, IssuerConfig};
    ///
    /// fn auth(keys: DecryptionKeys) -> Result<Auth, ConfigError> {
    ///     let issuer = IssuerConfig::new("https://scaikey.example").decrypt(keys);
    ///     Auth::builder().issuer(issuer).audience("scaivault").build()
    /// }
    /// ```
    #[cfg(feature = "jwe")]
    pub fn decrypt(mut self, keys: DecryptionKeys) -> Self {
        self.decryption.push(keys);
        self
    }

    /// Also accepts unencrypted tokens of an issuer with [decryption keys](Self::decrypt), for the time in which
    /// the provider begins to encrypt. Default: they are refused, as RFC 9068 §4 recommends.
    ///
    /// **What it costs.** A client that gets an unencrypted token can read its claims, and this service does not
    /// notice that the provider has stopped encrypting.
    #[cfg(feature = "jwe")]
    pub fn also_unencrypted(mut self) -> Self {
        self.also_unencrypted = true;
        self
    }

    /// Returns the name of the field with the expected value of `iss`.
    fn expected_field(&self) -> &'static str {
        if self.expected_issuer.is_some() { "expected_issuer" } else { "issuer" }
    }

    /// Returns whether this configuration stands for one issuer per tenant.
    pub(crate) fn is_per_tenant(&self) -> bool {
        self.expected().contains(TENANT_PLACEHOLDER)
    }

    /// Returns whether the audience is in `aud` and in no other claim.
    pub(crate) fn compares_only_aud(&self) -> bool {
        matches!(&*self.audience_claims, [path] if path.is_claim("aud"))
    }

    /// Returns whether the keys or their URL are configured, so that there is no discovery.
    pub(crate) fn has_key_source(&self) -> bool {
        self.inline_keys.is_some() || self.keys_file.is_some() || self.jwks_uri.is_some()
    }

    /// Returns whether unencrypted tokens are refused.
    #[cfg(feature = "jwe")]
    pub(crate) fn requires_encryption(&self) -> bool {
        self.has_decryption_keys() && !self.also_unencrypted
    }

    fn has_decryption_keys(&self) -> bool {
        #[cfg(feature = "jwe")]
        if !self.decryption.is_empty() {
            return true;
        }
        self.decryption_keys.is_some() || self.decryption_keys_file.is_some()
    }

    /// Returns the settings that allow `http` URLs.
    pub(crate) fn plain_http(&self) -> PlainHttp {
        let (loopback, hosts) = (self.allow_loopback_http, self.insecure_http_hosts.clone());
        PlainHttp { loopback, hosts }
    }

    /// Returns the way to the key set.
    pub(crate) fn key_access(&self) -> KeyAccess {
        let mut access = self.key_access.clone();
        if let Some(file) = &self.ca_file {
            access.route.ca_file = Some(file.clone());
        }
        access
    }

    /// Returns the faults of this issuer, which is the `nth` of a configuration with another origin: `faults`,
    /// and those of its variables, all by the names of its variables.
    pub(super) fn faults_by_variable(&self, nth: usize, faults: Vec<Fault>) -> Vec<Fault> {
        let by_table = |fault: Fault| {
            let member = fault.field.strip_prefix(&format!("issuers[{nth}]."));
            let field = member.map(|member| format!("issuers[0].{member}"));
            match field.filter(|field| self.origin.variable(field).is_some()) {
                Some(field) => Fault { field, ..fault },
                None => fault,
            }
        };
        let is_unreadable =
            |fault: &Fault| self.unreadable.iter().any(|it| it.field == fault.field);
        let faults = faults.into_iter().map(by_table).filter(|fault| !is_unreadable(fault));
        let faults = self.unreadable.iter().cloned().chain(faults).collect();
        let named = ConfigError::from_faults(faults).map_err(|error| error.named_by(&self.origin));
        named.err().map_or_else(Vec::new, |error| error.faults().to_vec())
    }

    pub(super) fn check(&self, nth: usize, faults: &mut Vec<Fault>) {
        let mut fault = |field: &str, problem: &str| {
            faults.push(Fault::new(format!("issuers[{nth}].{field}"), problem));
        };
        let issuer_fault = self.issuer_fault();
        if let Some(problem) = &issuer_fault {
            fault("issuer", problem);
        } else if self.expected().is_empty() {
            fault("expected_issuer", "is empty: leave it out, or give the value of `iss`");
        }
        let urls = [
            ("issuer", Some(&self.issuer).filter(|_| issuer_fault.is_none())),
            ("discovery_url", self.discovery_url.as_ref()),
            ("jwks_uri", self.jwks_uri.as_ref()),
        ];
        let hosts = self.plain_http().problem_of_hosts();
        for (field, url) in urls {
            // A URL with a host that is named in the wrong form is no further fault.
            let check = |url| match field {
                "issuer" => self.check_issuer_url(url),
                _ => self.check_url(url),
            };
            match url.map(|url| check(url)) {
                Some(Err(problem)) if hosts.is_none() || !problem.ends_with(MESH_REMEDY) => {
                    fault(field, &problem);
                }
                _ => {}
            }
            if let Some(problem) = url.and_then(|url| problem_of_document(field, url)) {
                fault(field, &problem);
            }
        }
        if let Some(problem) = hosts {
            fault("insecure_http_hosts", &problem);
        }
        self.check_placeholders(&mut fault);
        self.check_unsatisfiable(&mut fault);
        if let Ok(url) = Url::parse(&self.issuer)
            && !has_other_placeholder(&self.issuer)
            && (url.query().is_some() || url.fragment().is_some())
        {
            fault("issuer", "must have neither query nor fragment (RFC 8414 §2)");
        }
        if self.expected().matches(TENANT_PLACEHOLDER).count() > 1 {
            fault(self.expected_field(), &format!("has {TENANT_PLACEHOLDER} more than once"));
        }
        if self.algorithms.is_empty() {
            fault("algorithms", "is empty: name at least one, such as RS256");
        }
        if self.leeway > MAX_LEEWAY {
            fault(
                "leeway_seconds",
                &format!(
                    "must be at most {} s: synchronise the clocks instead",
                    MAX_LEEWAY.as_secs()
                ),
            );
        }
        if self.audience.iter().any(String::is_empty) {
            fault("audience", "has an empty entry");
        }
        self.check_token_rules(&mut fault);
        if self.also_unencrypted && !self.has_decryption_keys() {
            fault(
                "also_unencrypted",
                "has no effect without decryption keys: give them, or remove it",
            );
        }
        self.jwks.check(&mut fault);
        for (field, problem) in self.claims_to_check().faults() {
            fault(&format!("claims.{field}"), &problem);
        }
    }

    /// Checks the settings that relax the rules for tokens.
    fn check_token_rules(&self, fault: &mut impl FnMut(&str, &str)) {
        if let Some(nth) = self.invalid_audience_claim {
            fault("audience_claims", &format!("entry {nth}: {InvalidClaimPath}"));
        } else if self.audience_claims.is_empty() {
            fault("audience_claims", "is empty: name the claim, such as `aud`");
        }
        let invalid = self.access_token.iter().position(ClaimTest::is_invalid);
        if let Some(before) = invalid {
            fault("access_token", &format!("entry {}: {InvalidClaimTest}", before + 1));
        }
        let of_preset = self.provider.map(Provider::access_token).unwrap_or_default();
        if self.insecure_accept_id_tokens
            && !self.access_token.is_empty()
            && self.access_token != of_preset
        {
            fault(
                "access_token",
                "has no effect with insecure_accept_id_tokens (`P_INSECURE_ACCEPT_ID_TOKENS`): remove one of the settings",
            );
        }
        if self.profile != TokenProfile::Rfc9068 {
            return;
        }
        if !self.compares_only_aud() {
            fault(
                "audience_claims",
                "must be `aud` with the profile `rfc9068`, whose tokens have this claim: remove one of the settings",
            );
        }
        if self.insecure_accept_id_tokens {
            fault(
                "insecure_accept_id_tokens",
                "has no effect with the profile `rfc9068`, which accepts only `typ: at+jwt`: remove one of the settings",
            );
        }
    }

    /// Returns the URLs that contain the placeholder, each with the name of its field.
    fn urls_with_placeholder(&self) -> impl Iterator<Item = (&'static str, &str)> {
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

    /// Returns the field of a URL whose server depends on the tenant's id. With such a URL, an unverified
    /// token could choose the server that keys come from.
    pub(crate) fn field_with_server_by_tenant(&self) -> Option<&'static str> {
        let mut urls = self.urls_with_placeholder();
        urls.find(|(_, url)| !is_same_server_for_all(url)).map(|(field, _)| field)
    }

    fn check_placeholders(&self, fault: &mut impl FnMut(&str, &str)) {
        if self.expected_issuer.as_deref().is_some_and(has_other_placeholder) {
            fault("expected_issuer", OTHER_PLACEHOLDER);
        }
        let is_unusable = |tenant: &TenantId| self.is_per_tenant() && !fits_url(tenant.as_str());
        if let Some(before) = self.tenants.iter().position(is_unusable) {
            fault(
                "tenants",
                &format!(
                    "entry {} is not a tenant id that can be in the URL of an issuer with {TENANT_PLACEHOLDER}: use at most {MAX_TENANT_IN_URL} letters, digits and -_.~, not only dots",
                    before + 1
                ),
            );
        }
        if let Some(field) = self.field_with_server_by_tenant() {
            fault(
                field,
                &format!(
                    "has {TENANT_PLACEHOLDER} before its path, so unverified tokens would choose the server that keys come from: put it into the path, or configure one issuer for each tenant"
                ),
            );
        }
        let unresolved = self.urls_with_placeholder().filter(|(_, url)| {
            !self.is_per_tenant() && is_same_server_for_all(url) && !has_other_placeholder(url)
        });
        for (field, _) in unresolved {
            fault(
                field,
                &format!(
                    "has {TENANT_PLACEHOLDER}, but `iss` does not: put it into expected_issuer, if that is set, or else into issuer"
                ),
            );
        }
    }

    /// Reports settings with which no token would ever be accepted.
    fn check_unsatisfiable(&self, fault: &mut impl FnMut(&str, &str)) {
        let has_outer_space = |text: &str| text.trim() != text;
        if has_outer_space(self.expected()) {
            fault(self.expected_field(), "begins or ends with white space: remove it");
        }
        if self.audience.iter().any(|name| has_outer_space(name)) {
            fault("audience", "has an entry that begins or ends with white space: remove it");
        }
        if self.max_token_lifetime.is_some_and(|limit| limit.is_zero()) {
            fault("max_token_lifetime_seconds", "must not be 0");
        }
        if self.inline_keys.is_some() && self.jwks_uri.is_some() {
            fault("jwks_uri", "is set together with `keys`: set only one of them");
        }
        let other = if self.inline_keys.is_some() { Some("`keys`") } else { None };
        let other = other.or(self.jwks_uri.as_ref().map(|_| "jwks_uri (`P_JWKS_URI`)"));
        if let (Some(_), Some(other)) = (&self.keys_file, other) {
            let problem = format!("is set together with {other}: set only one of them");
            fault("keys_file", &problem);
        }
        if self.is_per_tenant() && self.claims.tenant_id.is_empty() {
            fault(
                "claims.tenant_id",
                "is empty: per-tenant issuers need the claim that names the tenant",
            );
        }
        for (field, url) in [("discovery_url", &self.discovery_url), ("jwks_uri", &self.jwks_uri)] {
            let url = url.as_deref().and_then(|url| Url::parse(url).ok());
            if url.is_some_and(|url| url.fragment().is_some()) {
                fault(field, "has a fragment, which is never sent: remove it");
            }
        }
    }

    /// Checks the issuer's URL. It may be `http` if the keys are local, because it is then only a name. The token
    /// client, which does request it, has its own check. A trust domain is no URL.
    fn check_issuer_url(&self, url: &str) -> Result<(), String> {
        if self.is_trust_domain {
            return Ok(());
        }
        let is_local = self.inline_keys.is_some() || self.keys_file.is_some();
        match url.strip_prefix("http://").filter(|_| is_local) {
            Some(rest) => self.check_url(&format!("https://{rest}")),
            None => self.check_url(url),
        }
    }

    /// Checks a URL. It must have no user information, and be `https`, or `http` where that is allowed.
    fn check_url(&self, url: &str) -> Result<(), String> {
        if has_other_placeholder(url) {
            return Err(OTHER_PLACEHOLDER.to_owned());
        }
        // A digit, because a port allows nothing else. Whether the server may depend on the tenant is checked
        // elsewhere.
        let url = Url::parse(&url.replace(TENANT_PLACEHOLDER, "1"))
            .map_err(|_| "is not a URL: write it as https://host/path")?;
        if has_user_information(&url) {
            return Err("contains a user name or password: remove them".to_owned());
        }
        self.plain_http().check(&url)
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

/// Returns whether a URL has braces other than those of the placeholder.
pub(crate) fn has_other_placeholder(url: &str) -> bool {
    url.replace(TENANT_PLACEHOLDER, "").contains(['{', '}'])
}

/// The path that well-known documents begin with (RFC 8615).
const WELL_KNOWN: &str = "/.well-known/";

/// Returns the problem of a URL that is the address of another document: the metadata or the key set instead of
/// the issuer, or the metadata instead of the key set.
pub(crate) fn problem_of_document(field: &str, url: &str) -> Option<String> {
    let parsed = Url::parse(url).ok().filter(|_| !has_other_placeholder(url))?;
    let (before, document) = parsed.path().split_once(WELL_KNOWN)?;
    let (document, after) = document.split_once('/').unwrap_or((document, ""));
    let is_metadata = ["openid-configuration", "oauth-authorization-server"].contains(&document);
    match field {
        "issuer" if !has_user_information(&parsed) => {
            let server = &parsed[..Position::BeforePath];
            let path = if after.is_empty() { before.to_owned() } else { format!("{before}/{after}") };
            let path = path.replace("%7Btenant_id%7D", TENANT_PLACEHOLDER);
            Some(format!(
                "is the URL of a document, not the issuer: give the value of `issuer` in the metadata, probably {server}{path}"
            ))
        }
        "jwks_uri" if is_metadata => Some(
            "is the URL of the metadata, not of the key set: set discovery_url (`P_DISCOVERY_URL`) instead"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Returns whether a tenant's id can be inserted into a URL: it needs no escaping, cannot change the path,
/// and is not too long.
pub(crate) fn fits_url(tenant: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    tenant.len() <= MAX_TENANT_IN_URL
        && tenant.bytes().all(plain)
        && !tenant.bytes().all(|byte| byte == b'.')
}

/// Returns whether scheme, user, host and port of a URL are the same for every tenant.
fn is_same_server_for_all(url: &str) -> bool {
    // Digits as tenant ids, because a port allows nothing else.
    let server = |tenant: &str| {
        let url = Url::parse(&url.replace(TENANT_PLACEHOLDER, tenant)).ok()?;
        Some(url[..Position::BeforePath].to_owned())
    };
    let one = server("1");
    one.is_some() && one == server("2")
}

/// Returns whether the URL's host is a loopback address, `localhost` or a name under it, such as
/// `keycloak.localhost` (RFC 6761 §6.3). The HTTP client never asks a name server for such a name.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns whether a URL contains a user name or a password.
pub(crate) fn has_user_information(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Returns whether a provider can redirect browsers to this URL of the service.
#[cfg(feature = "endpoints")]
pub(crate) fn is_public_url(text: &str) -> bool {
    let url = Url::parse(text).ok().filter(|_| !text.contains(['{', '}']));
    url.is_some_and(|url| {
        let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        is_secure && url.fragment().is_none() && !has_user_information(&url)
    })
}

const MAX_LEEWAY: Duration = Duration::from_secs(600);

pub(super) fn default_leeway() -> Duration {
    Duration::from_secs(60)
}

pub(super) fn default_audience_claims() -> Vec<ClaimPath> {
    vec![ClaimPath::claim("aud")]
}

pub(super) fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_localhost_are_loopback() {
        for (url, expected) in [
            ("http://localhost", true),
            ("http://LOCALHOST:8080", true),
            ("http://localhost./", true),
            ("http://keycloak.localhost:8080/realms/x", true),
            ("https://a.b.Localhost./", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://localhost.evil.example", false),
            ("http://notlocalhost", false),
            ("http://evil.example/.localhost", false),
            ("http://foo.localhost@evil.example", false),
            ("http://10.0.0.1", false),
            ("http://0.0.0.0", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn issuer_with_local_keys_may_be_http() {
        let faults = |issuer: IssuerConfig| {
            let mut faults = Vec::new();
            issuer.check(0, &mut faults);
            faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
        };
        let issuer = || IssuerConfig::new("http://keycloak.auth.svc:8080/realms/a");
        assert_eq!(faults(issuer()), ["issuers[0].issuer"]);
        for local in [issuer().keys("{}"), issuer().keys_file("/run/keys.pem")] {
            assert!(faults(local.clone()).is_empty());
            let fetched = local.discovery_url("http://keycloak.auth.svc:8080/m");
            assert_eq!(faults(fetched), ["issuers[0].discovery_url"]);
        }
        let wrong = IssuerConfig::new("http://user@keycloak.auth.svc").keys("{}");
        assert_eq!(faults(wrong), ["issuers[0].issuer"]);
    }
}
