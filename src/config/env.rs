//! [`ENVIRONMENT`]: the table of environment variables, and its reader.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::de::value::{self, StrDeserializer};

use super::providers::PROVIDERS;
use super::{AuthConfig, Fault, IntrospectionSettings, IssuerConfig, endpoints};

/// An environment variable that this crate reads. In the texts, `P_` stands for the prefix.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Variable {
    /// The name without prefix and underscore.
    pub name: &'static str,
    /// The path of the field of [`AuthConfig`] that it sets, as in configuration files:
    /// `issuers[0].leeway_seconds`.
    pub field: &'static str,
    /// Its meaning and format.
    pub meaning: &'static str,
    /// The default, or the effect of leaving the variable unset.
    pub default: &'static str,
    /// Parses the value into the configuration.
    set: fn(&mut AuthConfig, &str) -> Result<(), String>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every variable, in the order of the manual.
#[rustfmt::skip] // each row is name, field and parser; then the meaning; then the default
pub const ENVIRONMENT: &[Variable] = &[
    row("AUTH_MODE", "mode", |it, text| store(&mut it.mode, choice(text, "`scaikey`, `hybrid` or `mock`")),
        "the mode of token verification: `scaikey`, `hybrid` or `mock`",
        "`scaikey`"),
    row("PROVIDER", "issuers[0].provider", |it, text| choice(text, PROVIDERS).map(|provider| issuer(it).set_provider(provider)),
        "the preset for a well-known provider (see the page *providers*); the other variables are laid over it",
        "none: the claims of ScaiKey"),
    row("ISSUER", "issuers[0].issuer", |it, text| { issuer(it).set_issuer(text); Ok(()) },
        "the provider's URL; with `{tenant_id}` in it, one issuer per tenant; with `P_PROVIDER`, what its preset needs",
        "required, except for some presets; in mock mode only for tokens for other services"),
    row("EXPECTED_ISSUER", "issuers[0].expected_issuer", |it, text| store(&mut issuer(it).expected_issuer, any_text(text)),
        "the value of `iss`, if it differs from `P_ISSUER`",
        "the issuer"),
    row("DISCOVERY_URL", "issuers[0].discovery_url", |it, text| store(&mut issuer(it).discovery_url, any_text(text)),
        "the URL of the discovery document, if it is not at a well-known path",
        "the well-known paths of the issuer"),
    row("JWKS_URI", "issuers[0].jwks_uri", |it, text| { let it = issuer(it); replace(&mut it.jwks_uri, &mut it.keys_file, any_text(text)) },
        "the URL of the key set; if set, there is no discovery",
        "from discovery"),
    row("KEYS_FILE", "issuers[0].keys_file", |it, text| { let it = issuer(it); replace(&mut it.keys_file, &mut it.jwks_uri, any_text(text)) },
        "a file with the keys, instead of a key set at a URL: a key set or a JWK in JSON, or PEM; it is read again like a published set",
        "none: the keys are fetched"),
    row("CA_FILE", "issuers[0].ca_file", |it, text| store(&mut issuer(it).ca_file, any_text(text)),
        "a file with the CA certificates (PEM) for all requests to the provider; no other CA is then trusted for them",
        "the system's certificates"),
    row("DECRYPTION_KEYS", "issuers[0].decryption_keys", |it, text| { let it = issuer(it); replace(&mut it.decryption_keys, &mut it.decryption_keys_file, any_text(text)) },
        "the private keys that open encrypted tokens (feature `jwe`): a JWK set in JSON, each key with `kid` and `alg`; unencrypted tokens are then refused",
        "none: encrypted tokens are refused"),
    row("DECRYPTION_KEYS_FILE", "issuers[0].decryption_keys_file", |it, text| { let it = issuer(it); replace(&mut it.decryption_keys_file, &mut it.decryption_keys, any_text(text)) },
        "a file with `P_DECRYPTION_KEYS`, read at the start and, while it is used, every 10 seconds",
        "none"),
    row("ALSO_UNENCRYPTED", "issuers[0].also_unencrypted", |it, text| store(&mut issuer(it).also_unencrypted, boolean(text)),
        "`true` accepts unencrypted tokens, too, although there are decryption keys: for the time in which the provider begins to encrypt",
        "`false`"),
    row("AUDIENCE", "audience", |it, text| store(&mut it.audience, list(text)),
        "the names of this service in `aud`, separated by commas or spaces",
        "required, except in mock mode"),
    row("AUDIENCE_CLAIMS", "issuers[0].audience_claims", |it, text| store(&mut issuer(it).audience_claims, list(text)),
        "the claims that may name the audience, in the format of `P_TENANT_CLAIM`: the first that a token has is compared with `P_AUDIENCE`; for tokens whose `aud` does not name the service, such as `azp` for Keycloak without an audience mapper",
        "`aud`"),
    row("INSECURE_ACCEPT_ID_TOKENS", "issuers[0].insecure_accept_id_tokens", |it, text| store(&mut issuer(it).insecure_accept_id_tokens, boolean(text)),
        "`true` accepts ID tokens as bearer tokens, for providers whose access tokens cannot be verified (Apple, Dex, Google); they have no scopes, and `P_AUDIENCE` is the client's id",
        "`false`"),
    row("ACCESS_TOKEN_IF", "issuers[0].access_token", |it, text| store(&mut issuer(it).access_token, list(text)),
        "the tests for access tokens, in the format of `P_SERVICE_ACCOUNT_IF`, of which one must pass; for providers whose ID tokens look like access tokens",
        "none; with `P_PROVIDER`, those of the preset"),
    row("ALGORITHMS", "issuers[0].algorithms", |it, text| store(&mut issuer(it).algorithms, list(text)),
        "the accepted signature algorithms, separated by commas or spaces",
        "`RS256,ES256`"),
    row("TOKEN_PROFILE", "issuers[0].profile", |it, text| store(&mut issuer(it).profile, choice(text, "`lenient` or `rfc9068`")),
        "the header members and claims that a token must have: `rfc9068` requires `typ: at+jwt`, `client_id`, `iat` and `jti`; `lenient` accepts the access tokens of most providers",
        "`lenient`"),
    row("LEEWAY_SECONDS", "issuers[0].leeway_seconds", |it, text| store(&mut issuer(it).leeway, seconds(text)),
        "the accepted clock difference in seconds, at most 600",
        "`60`"),
    row("ALLOW_LOOPBACK_HTTP", "issuers[0].allow_loopback_http", |it, text| store(&mut issuer(it).allow_loopback_http, boolean(text)),
        "`true` allows `http` for a provider on this machine: a loopback address, `localhost` or a name under it, such as `keycloak.localhost`",
        "`false`"),
    row("INSECURE_HTTP_HOSTS", "issuers[0].insecure_http_hosts", |it, text| store(&mut issuer(it).insecure_http_hosts, list(text)),
        "the hosts (`host` or `host:port`, separated by commas or spaces) of the provider's URLs that may be `http`, for a network that encrypts all traffic, such as a service mesh",
        "none"),
    row("JWKS_TTL_SECONDS", "issuers[0].jwks.ttl_seconds", |it, text| store(&mut issuer(it).jwks.ttl, seconds(text)),
        "the age in seconds at which the key set is fetched again, if the provider's `Cache-Control` does not set it",
        "`300`"),
    row("JWKS_COOLDOWN_SECONDS", "issuers[0].jwks.cooldown_seconds", |it, text| store(&mut issuer(it).jwks.cooldown, seconds(text)),
        "the minimum number of seconds between extra key fetches, which an unknown key id or a bad signature causes; two in a row are allowed",
        "`5`"),
    row("JWKS_MAX_STALE_SECONDS", "issuers[0].jwks.max_stale_seconds", |it, text| store(&mut issuer(it).jwks.max_stale, seconds(text)),
        "the age in seconds up to which keys are used while the provider is unavailable",
        "`86400`"),
    row("INTROSPECTION", "issuers[0].introspection", |it, text| store(&mut issuer(it).introspection, boolean(text).map(|on| on.then(IntrospectionSettings::default))),
        "`true` accepts opaque tokens, about which the provider's introspection endpoint is asked with the credentials of `P_CLIENT_ID`; the other variables of introspection need it",
        "`false`"),
    row("INTROSPECTION_URL", "issuers[0].introspection.url", |it, text| store(&mut introspection(it)?.url, any_text(text)),
        "the introspection endpoint",
        "from discovery"),
    row("INTROSPECTION_PREFIXES", "issuers[0].introspection.prefixes", |it, text| store(&mut introspection(it)?.prefixes, list(text)),
        "the starts of the provider's opaque tokens, separated by commas or spaces, such as `skt_,sgk_`",
        "none: every token with neither two nor four dots"),
    row("INTROSPECTION_CACHE_SECONDS", "issuers[0].introspection.cache_seconds", |it, text| store(&mut introspection(it)?.cache_for, seconds(text)),
        "the number of seconds, at most 300, for which an answer is reused, and a revoked token is still accepted",
        "`30`"),
    row("INTROSPECTION_SIGNED_ANSWERS", "issuers[0].introspection.signed_answers", |it, text| store(&mut introspection(it)?.signed_answers, choice(text, "`accepted` or `required`")),
        "`required` requests signed answers (RFC 9701), and refuses others",
        "`accepted`"),
    row("INTROSPECTION_TIMEOUT_SECONDS", "issuers[0].introspection.timeout_seconds", |it, text| store(&mut introspection(it)?.timeout, seconds(text)),
        "the time limit of one question in seconds, at most 60; a workload token that it needs may use half of it",
        "`2`"),
    row("INTROSPECTION_SERVE_WHILE_UNAVAILABLE_SECONDS", "issuers[0].introspection.serve_while_unavailable_seconds", |it, text| store(&mut introspection(it)?.serve_while_unavailable, seconds(text)),
        "the number of seconds, at most 300, for which the last positive answer serves while the endpoint is unavailable; a token that is revoked then is accepted for this long",
        "`0`"),
    row("INTROSPECTION_UNKNOWN_TOKENS", "issuers[0].introspection.unknown_tokens", |it, text| store(&mut introspection(it)?.unknown_tokens, pair(text)),
        "the budget of questions about unknown tokens: how many immediately, and then how many per second",
        "`200,20`"),
    row("INSECURE_ACCEPT_MISSING_AUDIENCE", "issuers[0].introspection.insecure_accept_missing_audience", |it, text| store(&mut introspection(it)?.insecure_accept_missing_audience, boolean(text)),
        "`true` accepts answers of the introspection endpoint without an audience; an opaque token for another service may then be used here",
        "`false`"),
    row("TENANT_CLAIM", "issuers[0].claims.tenant_id", |it, text| store(&mut issuer(it).claims.tenant_id, list(text)),
        "the claim that names the tenant: a name or a JSON pointer; of several, separated by commas or spaces, the first that is present",
        "`tenant_id`"),
    row("ROLES_CLAIM", "issuers[0].claims.roles", |it, text| store(&mut issuer(it).claims.roles, list(text)),
        "the claims that hold the roles: names or JSON pointers, separated by commas or spaces; their values are combined",
        "`roles,role`"),
    row("GROUPS_CLAIM", "issuers[0].claims.groups", |it, text| store(&mut issuer(it).claims.groups, list(text)),
        "the claims that hold the groups, in the format of `P_ROLES_CLAIM`",
        "`groups`"),
    row("NAME_MEMBER", "issuers[0].claims.name_member", |it, text| store(&mut issuer(it).claims.name_member, Ok(text.to_owned())),
        "the member that holds the name, where roles or groups are lists of objects",
        "`value`"),
    row("SCOPES_CLAIM", "issuers[0].claims.scopes", |it, text| store(&mut issuer(it).claims.scopes, list(text)),
        "the claims that hold the scopes, in the format of `P_ROLES_CLAIM`",
        "`scope,scp,scopes`"),
    row("SUBJECT_CLAIM", "issuers[0].claims.subject", |it, text| store(&mut issuer(it).claims.subject, list(text)),
        "the claim that identifies the caller, in the format of `P_TENANT_CLAIM`; never an e-mail address or a user name, which may be given to another person",
        "`sub`"),
    row("CLIENT_ID_CLAIM", "issuers[0].claims.client_id", |it, text| store(&mut issuer(it).claims.client_id, list(text)),
        "the claim that names the client of the token, in the format of `P_TENANT_CLAIM`",
        "`client_id,azp`"),
    row("DISPLAY_NAME_CLAIM", "issuers[0].claims.display_name", |it, text| store(&mut issuer(it).claims.display_name, list(text)),
        "the claim with the name for display, in the format of `P_TENANT_CLAIM`",
        "`name,preferred_username`"),
    row("EMAIL_CLAIM", "issuers[0].claims.email", |it, text| store(&mut issuer(it).claims.email, list(text)),
        "the claim with the e-mail address, in the format of `P_TENANT_CLAIM`",
        "`email`"),
    row("PARTNER_CLAIM", "issuers[0].claims.partner_id", |it, text| store(&mut issuer(it).claims.partner_id, list(text)),
        "the claim that names the partner of the tenant, in the format of `P_TENANT_CLAIM`",
        "`partner_id`"),
    row("IDENTITY_KIND", "issuers[0].claims.kind", |it, text| store(&mut issuer(it).claims.kind, choice(text, "`user`, `service_account` or `workload`").map(Some)),
        "the kind of every identity of the issuer: `user`, `service_account` or `workload`",
        "as the token says: see `P_SERVICE_ACCOUNT_IF`"),
    row("SERVICE_ACCOUNT_IF", "issuers[0].claims.service_account", |it, text| store(&mut issuer(it).claims.service_account, list(text)),
        "the tests for tokens of service accounts, separated by commas or spaces, of which one must pass: `claim` is present, `!claim` is absent, `claim=value`, `claim^=start`, `claim$=end`, or `claim*=item` of a list; `+` joins tests that must all pass",
        "none. In any case, `token_type` `client_credentials`, and a subject that equals the client, mean a service account"),
    row("MFA_IF", "issuers[0].claims.mfa", |it, text| store(&mut issuer(it).claims.mfa, list(text)),
        "the tests for multi-factor authentication, in the format of `P_SERVICE_ACCOUNT_IF`: `acr=gold,amr*=pwd+amr*=otp`",
        "`amr*=mfa`"),
    row("AUTH_TIME_CLAIM", "issuers[0].claims.auth_time", |it, text| store(&mut issuer(it).claims.auth_time, list(text)),
        "the claim with the time of the authentication, in the format of `P_TENANT_CLAIM`",
        "`auth_time`"),
    row("VERIFIED_TOKENS_BYTES", "verified_tokens_bytes", |it, text| store(&mut it.verified_tokens_bytes, number(text, "bytes")),
        "the memory for the cache of verified tokens, in bytes; `0` turns the cache off",
        "`16777216`"),
    row("DATABASE_URL", "database_url", |it, text| replace(&mut it.database_url, &mut it.database_url_file, any_text(text)),
        "the store of tenants, participants and, with `P_TRUST_STORE=database`, the trust policy: `postgres://…` or `sqlite:///…?mode=rwc`; tenants then must be in its table `auth_tenants`, unless it has the policy and `P_TENANTS` or `P_ANY_TENANT=true` is given",
        "none: every tenant that a verified token names is accepted; for an issuer with `{tenant_id}` see `P_TENANTS`"),
    row("DATABASE_URL_FILE", "database_url_file", |it, text| replace(&mut it.database_url_file, &mut it.database_url, any_text(text)),
        "a file with `P_DATABASE_URL`, read at the start",
        "none"),
    row("TENANTS", "issuers[0].tenants", |it, text| store(&mut issuer(it).tenants, list(text)),
        "the tenants that the issuer may name, separated by commas or spaces; a token without a tenant is then refused",
        "any; an issuer with `{tenant_id}` needs this, `P_ANY_TENANT` or `P_DATABASE_URL`"),
    row("ANY_TENANT", "any_tenant", |it, text| store(&mut it.any_tenant, boolean(text)),
        "`true` accepts every tenant of an issuer with `{tenant_id}` if neither `P_TENANTS` nor `P_DATABASE_URL` restricts them; with `P_TRUST_STORE=database`, the database restricts no tenants then",
        "`false`"),
    row("TENANT_REQUIRED", "tenant_required", |it, text| store(&mut it.tenant_required, boolean(text)),
        "`false` accepts tokens that name no tenant; for providers whose tokens have none",
        "`true`: such a token gets 403"),
    row("CLIENT_ID", "client.id", |it, text| store(&mut it.client.id, any_text(text)),
        "this service's `client_id`, for tokens for other services, for sign-in, and for the tokens of trusted workloads",
        "none: no tokens for other services and no sign-in"),
    row("CLIENT_SECRET", "client.secret", |it, text| replace(&mut it.client.secret, &mut it.client.secret_file, any_text(text)),
        "the client secret",
        "none"),
    row("CLIENT_SECRET_FILE", "client.secret_file", |it, text| replace(&mut it.client.secret_file, &mut it.client.secret, any_text(text)),
        "a file with `P_CLIENT_SECRET`, read at the start and for each request to the provider",
        "none"),
    row("CLIENT_AUTH", "client.auth", |it, text| store(&mut it.client.auth, choice(&text.to_ascii_lowercase(), "`basic`, `post`, `private_key_jwt`, `assertion` or `none`")),
        "the client authentication method: `basic`, `post`, `private_key_jwt`, `assertion` (a workload token) or `none`",
        "`basic`; with a workload token `assertion`"),
    row("CLIENT_KEY_FILE", "client.key_file", |it, text| store(&mut it.client.key_file, any_text(text)),
        "a file with the private key for `private_key_jwt`: unencrypted PKCS #8 in PEM",
        "none"),
    row("CLIENT_KEY_ID", "client.key_id", |it, text| store(&mut it.client.key_id, any_text(text)),
        "the `kid` of that key at the provider",
        "none is sent"),
    row("CLIENT_KEY_ALGORITHM", "client.key_algorithm", |it, text| store(&mut it.client.key_algorithm, choice(text, "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, Ed25519, ML-DSA-44, ML-DSA-65 or ML-DSA-87")),
        "the signature algorithm of that key",
        "`RS256`"),
    row("CLIENT_ASSERTION_FILE", "client.assertion_file", |it, text| replace(&mut it.client.assertion_file, &mut it.client.workload_token, any_text(text)),
        "a file with a token of the platform, which replaces the client secret: for example a projected service account token of Kubernetes; read at the start and for each request to the provider",
        "none"),
    row("WORKLOAD_TOKEN", "client.workload_token", |it, text| replace(&mut it.client.workload_token, &mut it.client.assertion_file, any_text(text)),
        "the source of that token: `kubernetes`, `azure`, `aws`, `github`, `gcp`, `spiffe` (feature `spiffe`; `SPIFFE_ENDPOINT_SOCKET` names the agent) or `file:` and an absolute path",
        "none"),
    row("CLIENT_ASSERTION_AUDIENCE", "client.assertion_audience", |it, text| store(&mut it.client.assertion_audience, any_text(text)),
        "the `aud` of assertions, if the provider requires another one than its issuer: `api://AzureADTokenExchange` for Entra ID",
        "the issuer; with `azure` and `aws`, what the platform chooses"),
    row("CLIENT_CA_FILE", "client.ca_file", |it, text| store(&mut it.client.ca_file, any_text(text)),
        "a file with the CA certificates (PEM) for the token, metadata and revocation requests of the client, if these need another CA than the key set",
        "`P_CA_FILE`"),
    row("TOKEN_URL", "client.token_url", |it, text| store(&mut it.client.token_url, any_text(text)),
        "the token endpoint; `{tenant_id}` in it stands for the tenant",
        "from discovery"),
    row("AUTHORIZATION_URL", "client.authorization_url", |it, text| store(&mut it.client.authorization_url, any_text(text)),
        "the authorization endpoint, where users sign in",
        "from discovery"),
    row("REVOCATION_URL", "client.revocation_url", |it, text| store(&mut it.client.revocation_url, any_text(text)),
        "the revocation endpoint, where sign-out ends the provider's session tokens",
        "from discovery"),
    row("END_SESSION_URL", "client.end_session_url", |it, text| store(&mut it.client.end_session_url, any_text(text)),
        "the end-session (logout) endpoint, to which sign-out leads the browser if `P_POST_LOGOUT_REDIRECT_URI` is set; it may have a query of its own",
        "from discovery"),
    row("TENANT_PARAMETER", "client.tenant_parameter", |it, text| store(&mut it.client.tenant_parameter, any_text(text)),
        "the form parameter that carries the tenant in a request for a service token",
        "none"),
    row("REDIS_URL", "client.redis_url", |it, text| replace(&mut it.client.redis_url, &mut it.client.redis_url_file, any_text(text)),
        "a Redis or Valkey server that stores tokens, the log of single-use tokens and, with `P_TRUST_STORE=redis` and `P_REVOCATION_LOG=redis`, the trust policy and revocations for all processes; several URLs, separated by commas, name the nodes of a cluster",
        "none: each process keeps its own"),
    row("REDIS_URL_FILE", "client.redis_url_file", |it, text| replace(&mut it.client.redis_url_file, &mut it.client.redis_url, any_text(text)),
        "a file with `P_REDIS_URL`, read at the start and for each new connection",
        "none"),
    row("CACHE_KEYS", "client.cache_keys", |it, text| replace(&mut it.client.cache_keys, &mut it.client.cache_keys_file, any_text(text)),
        "the sealing key for tokens in Redis: at least 32 bytes in base64 (`openssl rand -base64 32`); while it is replaced, two keys, separated by a comma",
        "none; required with `P_REDIS_URL`"),
    row("CACHE_KEYS_FILE", "client.cache_keys_file", |it, text| replace(&mut it.client.cache_keys_file, &mut it.client.cache_keys, any_text(text)),
        "a file with `P_CACHE_KEYS`, read at the start and, while it is used, every 10 seconds",
        "none"),
    row("INSECURE_SPEND_WITHOUT_LOCK", "client.insecure_spend_without_lock", |it, text| store(&mut it.client.insecure_spend_without_lock, boolean(text)),
        "`true` uses refresh tokens and codes even while Redis does not answer; safe with one process; with several processes, sessions may end",
        "`false`: a refresh or code waits up to 5 s for Redis, then gets 503"),
    row("EXCHANGE_GRANT", "client.exchange_grant", |it, text| store(&mut it.client.exchange_grant, choice(text, "`token_exchange` or `on_behalf_of`")),
        "the grant that exchanges a caller's token: `token_exchange` (RFC 8693) or `on_behalf_of` (Microsoft Entra ID)",
        "`token_exchange`"),
    row("REQUESTED_TOKEN_TYPE", "client.requested_token_type", |it, text| store(&mut it.client.requested_token_type, any_text(text)),
        "the `requested_token_type` of exchanges: `jwt`, `access_token`, another URI, or `none` to omit it",
        "`jwt`; with `P_PROVIDER=keycloak`: `access_token`"),
    row("DEFAULT_LIFETIME_SECONDS", "client.default_lifetime_seconds", |it, text| store(&mut it.client.default_lifetime, seconds(text).map(Some)),
        "the lifetime in seconds of tokens that have neither `expires_in` nor `exp`",
        "none: such tokens are not cached"),
    row("TRUSTED_AUDIENCES", "client.trusted_audiences", |it, text| store(&mut it.client.trusted_audiences, list(text)),
        "further audiences that an ID token of a sign-in may have, separated by commas or spaces",
        "none: only the client and the names in `P_AUDIENCE`"),
    row("ACCEPT_EXTRA_SCOPES", "client.accept_extra_scopes", |it, text| store(&mut it.client.accept_extra_scopes, choice(text, SCOPE_FORMAT)),
        "the scopes that the provider adds to every token, separated by spaces, such as `profile email` for Keycloak",
        "none: a token with more scopes than requested is refused; a request without scopes is compared only if it exchanges a workload token"),
    row("ACCEPT_UNTYPED_TOKENS", "client.accept_untyped_tokens", |it, text| store(&mut it.client.accept_untyped_tokens, boolean(text)),
        "`true` accepts exchanged tokens without `issued_token_type`",
        "`false`"),
    row("ACCEPT_NON_BEARER_TOKENS", "client.accept_non_bearer_tokens", |it, text| store(&mut it.client.accept_non_bearer_tokens, boolean(text)),
        "`true` accepts tokens with the `token_type` `N_A`",
        "`false`"),
    row("INSECURE_ANY_AUDIENCE", "client.insecure_any_audience", |it, text| store(&mut it.client.insecure_any_audience, boolean(text)),
        "`true` accepts tokens for other services with any `aud`; a token for one service may then be sent to another",
        "`false`"),
    row("INSECURE_ANY_SUBJECT", "client.insecure_any_subject", |it, text| store(&mut it.client.insecure_any_subject, boolean(text)),
        "`true` accepts tokens of any user and tenant in an exchange; a provider that confuses users is then not detected",
        "`false`"),
    row("INSECURE_ANY_SERVICE_TENANT", "client.insecure_any_service_tenant", |it, text| store(&mut it.client.insecure_any_service_tenant, boolean(text)),
        "`true` accepts service tokens of another tenant than the requested one",
        "`false`"),
    row("INSECURE_UNREADABLE_CLAIMS", "client.insecure_unreadable_claims", |it, text| store(&mut it.client.insecure_unreadable_claims, boolean(text)),
        "`true` accepts JWTs whose claims cannot be read; nothing in them is then compared with the request",
        "`false`"),
    row("INSECURE_OUTLIVE_SUBJECT", "client.insecure_outlive_subject", |it, text| store(&mut it.client.insecure_outlive_subject, boolean(text)),
        "`true` caches exchanged tokens longer than the user's own token lives; a user who signed out can then still reach other services",
        "`false`"),
    row("RESOURCE", "resource", |it, text| store(&mut it.resource, any_text(text)),
        "the public URL of this service, for challenges and metadata (RFC 9728)",
        "none: challenges name no metadata"),
    row("RESOURCE_SCOPES", "resource_scopes", |it, text| store(&mut it.resource_scopes, choice(text, SCOPE_FORMAT)),
        "the scopes to publish in the metadata, separated by spaces",
        "none are published"),
    row("REDIRECT_URI", "endpoints.redirect_uri", |it, text| store(&mut it.endpoints.redirect_uri, any_text(text)),
        "the public URL of the endpoint `/v1/auth/login`, as registered at the provider: `https`, or `http` for loopback (`localhost`, because cookies are `Secure`)",
        "none: no sign-in"),
    row("ENDPOINTS_PREFIX", "endpoints.prefix", |it, text| store(&mut it.endpoints.prefix, any_text(text)),
        "the prefix of the endpoints' paths as this service sees them: `/app/v1/auth` behind a proxy that does not remove its sub-path `/app`",
        "`/v1/auth`"),
    row("LANDING", "endpoints.landing", |it, text| store(&mut it.endpoints.landing, any_text(text)),
        "the page after a sign-in without `return_to`: a path as browsers see it",
        "the public path of the service, from `P_REDIRECT_URI`"),
    row("FAILURE_PAGE", "endpoints.failure_page", |it, text| store(&mut it.endpoints.failure_page, any_text(text)),
        "the page after a failed sign-in, which gets the parameter `error`: a path as browsers see it",
        "none: the error is JSON"),
    row("REDIRECT_NAVIGATION", "endpoints.redirect_navigation", |it, text| store(&mut it.endpoints.redirect_navigation, boolean(text)),
        "`true` leads a browser that loads a page without a session to the sign-in, and back; `fetch` still gets 401",
        "`false`"),
    row("COOKIE_NAME", "endpoints.cookie_name", |it, text| store(&mut it.endpoints.cookie_name, any_text(text)),
        "the name in the cookies of sessions (`__Host-NAME-…`) and sign-ins (`__Host-sign-in-NAME-…`), at most 56 characters; services on one host need different names",
        "`session`, and none for sign-ins"),
    row("SCOPES", "endpoints.scopes", |it, text| store(&mut it.endpoints.scopes, choice(text, SCOPE_FORMAT).map(Some)),
        "the scopes that sign-ins request, separated by spaces",
        "`openid profile email offline_access`"),
    row("SIGN_IN_PARAMETERS", "endpoints.sign_in_parameters", |it, text| store(&mut it.endpoints.sign_in_parameters, endpoints::parse_parameters(text)),
        "further parameters of the authorization request, as in the query of a URL: `audience=https://api.example&prompt=login`",
        "none"),
    row("FORM_POST", "endpoints.form_post", |it, text| store(&mut it.endpoints.form_post, boolean(text)),
        "`true` asks the provider to answer sign-ins with a form post (`response_mode=form_post`), for providers that need it (Apple); the cookie of a sign-in is then `SameSite=None`",
        "`false`: the answer is in the query of a redirect"),
    row("SESSION_KEYS", "endpoints.session_keys", |it, text| replace(&mut it.endpoints.session_keys, &mut it.endpoints.session_keys_file, any_text(text)),
        "the sealing key for session cookies, in the format of `P_CACHE_KEYS`",
        "none: sign-ins return tokens"),
    row("SESSION_KEYS_FILE", "endpoints.session_keys_file", |it, text| replace(&mut it.endpoints.session_keys_file, &mut it.endpoints.session_keys, any_text(text)),
        "a file with `P_SESSION_KEYS`, read at the start and, while it is used, every 10 seconds",
        "none"),
    row("SESSION_IDENTITY", "endpoints.session_identity", |it, text| store(&mut it.endpoints.session_identity, choice(text, "`access_token` or `id_token`")),
        "the token that names the user of a session: `access_token`, or `id_token` for providers whose access tokens only they can read (Google)",
        "`access_token`"),
    row("SESSION_STORE", "endpoints.session_store", |it, text| store(&mut it.endpoints.session_store, choice(text, "`memory`, `database` or `redis`").map(Some)),
        "where the tokens of sessions are: `memory` (one process), `database` (`P_DATABASE_URL`) or `redis` (`P_REDIS_URL`); the server can then list and end sessions",
        "in the cookies"),
    row("SESSION_IDLE_SECONDS", "endpoints.session_idle_seconds", |it, text| store(&mut it.endpoints.session_idle, seconds(text).map(Some)),
        "the number of seconds, at least 60, after which a session without a request ends; needs `P_SESSION_STORE`",
        "`1800` with `P_SESSION_STORE`; otherwise none"),
    row("REGISTER_AT_SIGN_IN", "endpoints.register_at_sign_in", |it, text| store(&mut it.endpoints.register_at_sign_in, boolean(text)),
        "`true` registers each user who signs in, before the session starts; needs a registrar, such as `P_DATABASE_URL`",
        "`false`"),
    row("POST_LOGOUT_REDIRECT_URI", "endpoints.post_logout_redirect_uri", |it, text| store(&mut it.endpoints.post_logout_redirect_uri, any_text(text)),
        "the page after sign-out, as registered at the provider: sign-out (logout) then ends the provider's session, too; the public URL of `/v1/auth/logout` allows `return_to`",
        "none: sign-out ends only the session of this service"),
    row("BACKCHANNEL_LOGOUT", "endpoints.backchannel_logout", |it, text| store(&mut it.endpoints.backchannel_logout, boolean(text)),
        "`true` lets the provider report ended sessions at `POST /v1/auth/backchannel_logout` (back-channel logout): their tokens are refused; needs `P_CLIENT_ID`, the audience of logout tokens",
        "`false`"),
    row("REVOCATION_LOG", "revocation_log", |it, text| store(&mut it.revocation_log, choice(text, "`redis`").map(Some)),
        "where the processes of the service share revocations: `redis` (`P_REDIS_URL`), sealed under `P_CACHE_KEYS`",
        "none: a revocation counts in the process that is told of it"),
    row("REVOCATION_REFUSE_AFTER_SECONDS", "revocation_refuse_after_seconds", |it, text| store(&mut it.revocation_refuse_after, seconds(text).map(Some)),
        "the number of seconds, at least 5, without contact to this log after which all requests get 503; needs `P_REVOCATION_LOG`",
        "never: requests are judged by the revocations that are known"),
    row("PASSWORD_GRANT", "endpoints.password_grant", |it, text| store(&mut it.endpoints.password_grant, boolean(text)),
        "`true` enables the password grant at `POST /v1/auth/token`",
        "`false`"),
    row("TRUST_FILE", "endpoints.trust_file", |it, text| store(&mut it.endpoints.trust_file, any_text(text)),
        "the trust policy for workload tokens of other platforms, TOML or JSON (feature `trust`)",
        "none: such tokens are not accepted"),
    row("TRUST_STORE", "endpoints.trust_store", |it, text| store(&mut it.endpoints.trust_store, choice(text, "`file`, `database` or `redis`").map(Some)),
        "where the trust policy and its history are kept: `file` (`P_TRUST_FILE`), `database` (`P_DATABASE_URL`) or `redis` (`P_REDIS_URL`)",
        "`file` with `P_TRUST_FILE`; otherwise there is no policy"),
    row("TRUST_ADMIN_SCOPE", "endpoints.trust_admin_scope", |it, text| store(&mut it.endpoints.trust_admin_scope, choice(text, SCOPE_FORMAT).map(Some)),
        "the scopes, separated by spaces, that an administrator of the whole trust policy needs; they mount the administration under `/v1/auth/trusts`",
        "none: there is no administration"),
    row("TRUST_TENANT_ADMIN_SCOPE", "endpoints.trust_tenant_admin_scope", |it, text| store(&mut it.endpoints.trust_tenant_admin_scope, choice(text, SCOPE_FORMAT).map(Some)),
        "the scopes, separated by spaces, with which the administrator of a tenant may change the rules of that tenant; needs `P_TRUST_ADMIN_SCOPE`",
        "none: tenants have no administrators"),
    row("TRUSTED_PROXIES", "endpoints.trusted_proxies", |it, text| store(&mut it.endpoints.trusted_proxies, list(text)),
        "the addresses and networks of proxies whose `X-Forwarded-For` is trusted, separated by commas or spaces",
        "none"),
];

const fn row(
    name: &'static str,
    field: &'static str,
    set: fn(&mut AuthConfig, &str) -> Result<(), String>,
    meaning: &'static str,
    default: &'static str,
) -> Variable {
    Variable { name, field, meaning, default, set }
}

/// Returns the name of the variable that sets `field`, without the prefix. `field` may also be a name that
/// builders use in faults.
pub(super) fn variable_for(field: &str) -> Option<&'static str> {
    let field = if field == "issuer" { "issuers[0].issuer" } else { field };
    let field = if field == "issuers[0].audience" { "audience" } else { field };
    // Names that faults of `TokenExchangeBuilder` use.
    let field = match field {
        "client_auth" => "client.id",
        "discovery_url" => "issuers[0].discovery_url",
        "token_url" => "client.token_url",
        "authorization_url" => "client.authorization_url",
        "revocation_url" => "client.revocation_url",
        "end_session_url" => "client.end_session_url",
        "trusted_audiences" => "client.trusted_audiences",
        "insecure_http_hosts" => "issuers[0].insecure_http_hosts",
        "ca_file" => "issuers[0].ca_file",
        "cache_keys" => "client.cache_keys",
        "redis_url" => "client.redis_url",
        "redis_url_file" => "client.redis_url_file",
        // Names that faults of `SignIn` and `Sessions` use.
        "redirect_uri" => "endpoints.redirect_uri",
        "sign_in_parameters" => "endpoints.sign_in_parameters",
        "session_keys" => "endpoints.session_keys",
        "session_identity" => "endpoints.session_identity",
        "session_store" => "endpoints.session_store",
        "session_idle" => "endpoints.session_idle_seconds",
        "post_logout_redirect_uri" => "endpoints.post_logout_redirect_uri",
        "prefix" => "endpoints.prefix",
        "landing" => "endpoints.landing",
        "failure_page" => "endpoints.failure_page",
        "redirect_navigation" => "endpoints.redirect_navigation",
        "cookie_name" | "cookie_prefix" => "endpoints.cookie_name",
        _ => field,
    };
    ENVIRONMENT.iter().find(|variable| variable.field == field).map(|variable| variable.name)
}

/// Lays `vars` over `config`. A value that cannot be parsed becomes a fault; a probable misspelling becomes a
/// notice. `is_overlaid`: `config` comes from a file or from code.
pub(super) fn read(
    mut config: AuthConfig,
    is_overlaid: bool,
    prefix: &str,
    vars: impl IntoIterator<Item = (String, String)>,
) -> AuthConfig {
    config.origin.read_variables(prefix, is_overlaid);
    let has_several_issuers = config.issuers.len() > 1;
    let prefixed = vars.into_iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(prefix)?.strip_prefix('_')?.to_owned();
        let value = value.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    });
    let prefixed: BTreeMap<String, String> = prefixed.collect();
    // In the order of the table: `P_PROVIDER` comes before the variables that are laid over its preset.
    for variable in ENVIRONMENT {
        let Some(value) = prefixed.get(variable.name) else { continue };
        config.origin.add_variable(prefix, variable.name);
        let pair = pair_of(variable.name).filter(|pair| prefixed.contains_key(*pair));
        let outcome = match pair {
            Some(pair) => Err(format!("and {prefix}_{pair} are both set: set only one of them")),
            None if has_several_issuers && variable.field.starts_with("issuers[0]") => {
                Err(SEVERAL_ISSUERS.to_owned())
            }
            None => set(variable, &mut config, value),
        };
        if let Err(problem) = outcome {
            config.unreadable.push(Fault::new(variable.field, problem));
        }
        config.notices.extend(quotation_marks(prefix, variable.name, value));
    }
    config.issuers.iter_mut().for_each(IssuerConfig::lay_over_preset);
    if let [issuer] = &mut config.issuers[..] {
        issuer.origin = config.origin.clone();
        let faults = config.unreadable.iter().filter(|fault| is_of_issuer(&fault.field));
        issuer.unreadable = faults.cloned().collect();
    }
    config.notices.extend(prefixed.keys().filter_map(|name| unknown(prefix, name)));
    config.add_notices_of_unused_settings();
    config
}

/// Returns whether the field describes an issuer, and not the service.
fn is_of_issuer(field: &str) -> bool {
    field.starts_with("issuers[0]") || field == "audience"
}

/// Adds the issuer that the variables with `prefix` describe. One that they describe without a URL is added, too:
/// it has a fault.
pub(super) fn add_issuer(
    mut config: AuthConfig,
    prefix: &str,
    vars: impl IntoIterator<Item = (String, String)>,
) -> AuthConfig {
    let mut start = AuthConfig::default();
    start.issuers.push(IssuerConfig::new(""));
    let read = read(start, false, prefix, vars);
    let unused = read.unused_settings(AuthConfig::is_built_with);
    config.notices.extend(read.notices.into_iter().filter(|notice| !unused.contains(notice)));
    for (name, variable) in read.origin.variables() {
        let field = ENVIRONMENT.iter().find(|it| it.name == name).map_or("", |it| it.field);
        // The same prefix may be that of a token client.
        if !is_of_issuer(field) && !field.starts_with("client.") {
            config.notices.push(format!(
                "{variable} is ignored: this prefix describes one more issuer, and not the service"
            ));
        }
    }
    let audience = read.audience;
    let issuers = read.issuers.into_iter();
    config
        .issuers
        .extend(issuers.map(|issuer| IssuerConfig { audience: audience.clone(), ..issuer }));
    config
}

const SEVERAL_ISSUERS: &str = "stands for one issuer, but the configuration has several: set it in the configuration of that issuer";

/// Parses a value into its field. A value that cannot be parsed does not create an issuer.
fn set(variable: &Variable, config: &mut AuthConfig, value: &str) -> Result<(), String> {
    let issuers = config.issuers.len();
    let outcome = (variable.set)(config, value);
    if outcome.is_err() {
        config.issuers.truncate(issuers);
    }
    outcome
}

/// Returns the variable with another form of the same setting.
fn pair_of(name: &str) -> Option<&str> {
    match name {
        "KEYS_FILE" => Some("JWKS_URI"),
        "CLIENT_ASSERTION_FILE" => Some("WORKLOAD_TOKEN"),
        _ => name.strip_suffix("_FILE"),
    }
}

/// Stores one form of a setting, such as a secret, and removes the other one, such as the name of its file.
fn replace<A, B>(
    field: &mut Option<A>,
    other: &mut Option<B>,
    value: Result<Option<A>, String>,
) -> Result<(), String> {
    *other = None;
    store(field, value)
}

/// Returns the issuer that the environment describes. Creates it if this is the first of its variables.
fn issuer(config: &mut AuthConfig) -> &mut IssuerConfig {
    if config.issuers.is_empty() {
        config.issuers.push(IssuerConfig::new(""));
    }
    #[expect(clippy::indexing_slicing, reason = "there is one by now")]
    &mut config.issuers[0]
}

/// Returns the settings of the introspection endpoint, which have an effect only if it is used.
fn introspection(config: &mut AuthConfig) -> Result<&mut IntrospectionSettings, String> {
    let missing = "needs introspection: set `P_INTROSPECTION` to `true`, or remove this setting";
    issuer(config).introspection.as_mut().ok_or_else(|| missing.to_owned())
}

/// Stores a parsed value in its field.
fn store<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

/// Wraps any text. `build()` checks it and never quotes it in an error, because it may be a secret.
fn any_text<'t, T: From<&'t str>>(text: &'t str) -> Result<Option<T>, String> {
    Ok(Some(text.into()))
}

/// The format of a list of scopes.
const SCOPE_FORMAT: &str =
    "scopes, separated by spaces; each consists of printable ASCII other than `\"` and `\\`";

/// Parses one of a fixed set of words, or a list of scopes, as written in configuration files. The error
/// does not quote the text, because a secret may be in the wrong variable, and errors are logged.
fn choice<T: DeserializeOwned>(text: &str, accepted: &str) -> Result<T, String> {
    let word = StrDeserializer::<value::Error>::new(text);
    T::deserialize(word).map_err(|_| format!("must be {accepted}"))
}

/// Parses entries separated by commas or spaces. The error names an entry by its number, because the text
/// may be a secret. A list without entries is an error, because it would remove a restriction: `P_TENANTS=$A,$B`
/// with two unset variables.
fn list<T: FromStr>(text: &str) -> Result<Vec<T>, String>
where
    T::Err: std::fmt::Display,
{
    let entries = text.split([',', ' ']).filter(|entry| !entry.is_empty()).zip(1..);
    let parsed = entries
        .map(|(entry, nth)| entry.parse().map_err(|problem| format!("entry {nth}: {problem}")));
    let list: Vec<T> = parsed.collect::<Result<_, _>>()?;
    match list.is_empty() {
        true => Err("has no entry: name at least one, or leave it unset".to_owned()),
        false => Ok(list),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    number(text, "seconds").map(Duration::from_secs)
}

fn number<T: FromStr>(text: &str, unit: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("must be a whole number of {unit}"))
}

/// Parses two numbers.
fn pair(text: &str) -> Result<(u32, u32), String> {
    match list(text)?[..] {
        [one, other] => Ok((one, other)),
        _ => Err("must be two numbers, separated by a comma".to_owned()),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be `true` or `false`".to_owned()),
    }
}

/// Returns a notice about a variable that is not in the table: if its name is within two edits of a known one,
/// or if it ends in `_FILE`, because the secret in the file would be missing. Other variables with the prefix
/// belong to the service itself.
fn unknown(prefix: &str, name: &str) -> Option<String> {
    if ENVIRONMENT.iter().any(|variable| variable.name == name) {
        return None;
    }
    if let Some(value) = name.strip_suffix("_FILE")
        && ENVIRONMENT.iter().any(|variable| variable.name == value)
    {
        return Some(format!(
            "{prefix}_{name} is ignored: {prefix}_{value} is not read from a file"
        ));
    }
    if let Some(nearest) = nearest(name, ENVIRONMENT.iter().map(|variable| variable.name)) {
        return Some(format!("{prefix}_{name} is ignored: did you mean {prefix}_{nearest}?"));
    }
    name.ends_with("_FILE").then(|| {
        let known = ENVIRONMENT.iter().filter(|variable| variable.name.ends_with("_FILE"));
        let known: Vec<_> = known.map(|variable| format!("{prefix}_{}", variable.name)).collect();
        format!(
            "{prefix}_{name} is not read by scaikey-auth, which reads {}; give a variable of your own \
             service another prefix",
            known.join(", ")
        )
    })
}

/// Returns a notice about a value in quotation marks or brackets. Shells remove quotation marks, files of
/// variables (`docker run --env-file`) do not. Then no token has such an audience.
fn quotation_marks(prefix: &str, name: &str, value: &str) -> Option<String> {
    let is_between =
        |first, last| value.len() > 1 && value.starts_with(first) && value.ends_with(last);
    let marks = [('"', '"'), ('\'', '\''), ('`', '`'), ('[', ']')];
    marks.into_iter().any(|(first, last)| is_between(first, last)).then(|| {
        format!(
            "{prefix}_{name} begins and ends with quotation marks or brackets, which are read as part of \
             the value: remove them"
        )
    })
}

/// Returns the known name that a name probably misspells.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (distance, nearest) = known.map(|known| (edit_distance(name, known), known)).min()?;
    (distance <= 2 && distance * 3 <= name.len()).then_some(nearest)
}

/// Returns the Levenshtein distance in bytes.
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, b) in row.iter_mut().skip(1).zip(to.bytes()) {
            let here = (diagonal + usize::from(a != b)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Algorithm, AuthMode, Origin, TokenProfile};
    use crate::identity::{ClaimTest, ClaimsMapping, IdentityKind, Scopes, TenantId};
    use crate::support::secret::Secret;

    fn read_pairs(pairs: &[(&str, &str)]) -> AuthConfig {
        AuthConfig::from_vars("SCAIWAVE", prefixed(pairs))
    }

    fn prefixed(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| (format!("SCAIWAVE_{n}"), (*v).to_owned())).collect()
    }

    /// A value for every variable, except the names of files in `FILES`.
    const VALUES: &[(&str, &str)] = &[
        ("AUTH_MODE", "Mock"),
        ("PROVIDER", "zitadel"),
        ("ISSUER", "https://scaikey.example"),
        ("EXPECTED_ISSUER", "https://issuer.example"),
        ("DISCOVERY_URL", "https://d.example"),
        ("JWKS_URI", "https://k.example"),
        ("AUDIENCE", "scaiwave, scaidrive"),
        ("AUDIENCE_CLAIMS", "aud /a~1b/c"),
        ("INSECURE_ACCEPT_ID_TOKENS", "true"),
        ("ACCESS_TOKEN_IF", "azp token_use=access"),
        ("ALGORITHMS", "ES512 EdDSA ML-DSA-65"),
        ("TOKEN_PROFILE", "rfc9068"),
        ("LEEWAY_SECONDS", "5"),
        ("ALLOW_LOOPBACK_HTTP", "TRUE"),
        ("INSECURE_HTTP_HOSTS", "keycloak.auth.svc, 10.0.0.7:8080"),
        ("CA_FILE", "/run/ca.pem"),
        ("DECRYPTION_KEYS", "z"),
        ("ALSO_UNENCRYPTED", "true"),
        ("JWKS_TTL_SECONDS", "60"),
        ("JWKS_COOLDOWN_SECONDS", "10"),
        ("JWKS_MAX_STALE_SECONDS", "3600"),
        ("INTROSPECTION", "true"),
        ("INTROSPECTION_URL", "https://i.example"),
        ("INTROSPECTION_PREFIXES", "skt_, sgk_"),
        ("INTROSPECTION_CACHE_SECONDS", "10"),
        ("INTROSPECTION_SIGNED_ANSWERS", "required"),
        ("INTROSPECTION_TIMEOUT_SECONDS", "3"),
        ("INTROSPECTION_SERVE_WHILE_UNAVAILABLE_SECONDS", "60"),
        ("INTROSPECTION_UNKNOWN_TOKENS", "500, 50"),
        ("INSECURE_ACCEPT_MISSING_AUDIENCE", "true"),
        ("TENANT_CLAIM", "tid"),
        ("ROLES_CLAIM", "/realm_access/roles"),
        ("GROUPS_CLAIM", "https://example.com/groups"),
        ("NAME_MEMBER", "name"),
        ("SCOPES_CLAIM", "permissions"),
        ("SUBJECT_CLAIM", "oid"),
        ("CLIENT_ID_CLAIM", "azp appid"),
        ("DISPLAY_NAME_CLAIM", "nickname"),
        ("EMAIL_CLAIM", "mail"),
        ("PARTNER_CLAIM", "partner"),
        ("IDENTITY_KIND", "workload"),
        ("SERVICE_ACCOUNT_IF", "idtyp=app, preferred_username^=service-account-"),
        ("MFA_IF", "aal=aal2 amr*=pwd+amr*=otp"),
        ("AUTH_TIME_CLAIM", "/auth/time"),
        ("VERIFIED_TOKENS_BYTES", "1000000"),
        ("DATABASE_URL", "sqlite::memory:"),
        ("TENANT_REQUIRED", "false"),
        ("CLIENT_ID", "drive"),
        ("CLIENT_SECRET", "s"),
        ("CLIENT_AUTH", "Private_Key_JWT"),
        ("CLIENT_KEY_FILE", "/run/k"),
        ("CLIENT_KEY_ID", "k1"),
        ("CLIENT_KEY_ALGORITHM", "ES256"),
        ("WORKLOAD_TOKEN", "github"),
        ("CLIENT_ASSERTION_AUDIENCE", "api://x"),
        ("CLIENT_CA_FILE", "/run/client-ca.pem"),
        ("TOKEN_URL", "https://t.example"),
        ("TENANT_PARAMETER", "tenant"),
        ("REDIS_URL", "redis://r"),
        ("CACHE_KEYS", "x"),
        ("TENANTS", "t-1 t-2"),
        ("ANY_TENANT", "true"),
        ("AUTHORIZATION_URL", "https://a.example"),
        ("END_SESSION_URL", "https://e.example"),
        ("REVOCATION_URL", "https://r.example"),
        ("INSECURE_SPEND_WITHOUT_LOCK", "true"),
        ("EXCHANGE_GRANT", "on_behalf_of"),
        ("REQUESTED_TOKEN_TYPE", "urn:x:y"),
        ("DEFAULT_LIFETIME_SECONDS", "7"),
        ("TRUSTED_AUDIENCES", "portal,project"),
        ("ACCEPT_EXTRA_SCOPES", "profile email"),
        ("ACCEPT_UNTYPED_TOKENS", "true"),
        ("ACCEPT_NON_BEARER_TOKENS", "true"),
        ("INSECURE_ANY_AUDIENCE", "true"),
        ("INSECURE_ANY_SUBJECT", "true"),
        ("INSECURE_ANY_SERVICE_TENANT", "true"),
        ("INSECURE_UNREADABLE_CLAIMS", "true"),
        ("INSECURE_OUTLIVE_SUBJECT", "true"),
        ("RESOURCE", "https://wave.example"),
        ("RESOURCE_SCOPES", "read write"),
        ("REDIRECT_URI", "https://wave.example/v1/auth/login"),
        ("ENDPOINTS_PREFIX", "/app/v1/auth"),
        ("LANDING", "/app/home"),
        ("FAILURE_PAGE", "/app/sorry"),
        ("REDIRECT_NAVIGATION", "true"),
        ("COOKIE_NAME", "wave"),
        ("SCOPES", "openid read"),
        ("SIGN_IN_PARAMETERS", "prompt=login&resource=a"),
        ("SESSION_KEYS", "y"),
        ("POST_LOGOUT_REDIRECT_URI", "https://wave.example/bye"),
        ("FORM_POST", "true"),
        ("SESSION_IDENTITY", "id_token"),
        ("SESSION_STORE", "database"),
        ("SESSION_IDLE_SECONDS", "900"),
        ("REGISTER_AT_SIGN_IN", "true"),
        ("BACKCHANNEL_LOGOUT", "true"),
        ("REVOCATION_LOG", "redis"),
        ("REVOCATION_REFUSE_AFTER_SECONDS", "30"),
        ("PASSWORD_GRANT", "true"),
        ("TRUST_FILE", "/run/trust.toml"),
        ("TRUST_STORE", "database"),
        ("TRUST_ADMIN_SCOPE", "trusts:admin"),
        ("TRUST_TENANT_ADMIN_SCOPE", "trusts:tenant read"),
        ("TRUSTED_PROXIES", "10.0.0.1 10.1.0.0/16"),
    ];

    /// A value for every variable that excludes one in `VALUES`.
    const FILES: &[(&str, &str)] = &[
        ("DATABASE_URL_FILE", "/run/1"),
        ("CLIENT_SECRET_FILE", "/run/2"),
        ("REDIS_URL_FILE", "/run/3"),
        ("CACHE_KEYS_FILE", "/run/4"),
        ("SESSION_KEYS_FILE", "/run/5"),
        ("KEYS_FILE", "/run/6"),
        ("CLIENT_ASSERTION_FILE", "/run/7"),
        ("DECRYPTION_KEYS_FILE", "/run/8"),
    ];

    #[test]
    fn every_variable_is_tested() {
        let tested: BTreeSet<_> = VALUES.iter().chain(FILES).map(|pair| pair.0).collect();
        assert_eq!(tested, ENVIRONMENT.iter().map(|variable| variable.name).collect());
    }

    #[test]
    fn every_file_of_a_secret_is_read() {
        let config = read_pairs(FILES);
        let (client, endpoints) = (&config.client, &config.endpoints);
        let files = [
            &config.database_url_file,
            &client.secret_file,
            &client.redis_url_file,
            &client.cache_keys_file,
            &endpoints.session_keys_file,
        ];
        for (file, (_, path)) in files.into_iter().zip(FILES) {
            assert_eq!(file.as_deref(), Some(path.as_ref()));
        }
    }

    #[test]
    fn every_variable_of_the_client_is_read() {
        let client = read_pairs(VALUES).client;
        assert_eq!(client.authorization_url.as_deref(), Some("https://a.example"));
        assert_eq!(client.revocation_url.as_deref(), Some("https://r.example"));
        assert_eq!(client.end_session_url.as_deref(), Some("https://e.example"));
        assert_eq!(client.exchange_grant, crate::config::ExchangeGrant::OnBehalfOf);
        assert_eq!(client.requested_token_type.as_deref(), Some("urn:x:y"));
        assert_eq!(client.default_lifetime, Some(Duration::from_secs(7)));
        assert_eq!(client.trusted_audiences, ["portal", "project"]);
        assert!(client.accept_extra_scopes.iter().eq(["profile", "email"]));
        // Each of them is false by default.
        assert!(client.insecure_spend_without_lock && client.insecure_outlive_subject);
        assert!(client.accept_untyped_tokens && client.accept_non_bearer_tokens);
        assert!(client.insecure_any_audience && client.insecure_any_subject);
        assert!(client.insecure_any_service_tenant && client.insecure_unreadable_claims);
        assert_eq!(client.id.as_deref(), Some("drive"));
        assert_eq!(client.secret, Some(Secret::new("s")));
        assert_eq!(client.auth, crate::config::ClientAuthMethod::PrivateKeyJwt);
        assert_eq!(client.key_file, Some("/run/k".into()));
        assert_eq!(client.key_id.as_deref(), Some("k1"));
        assert_eq!(client.key_algorithm, Algorithm::ES256);
        assert_eq!(client.workload_token.as_deref(), Some("github"));
        assert_eq!(client.assertion_audience.as_deref(), Some("api://x"));
        assert_eq!(client.ca_file, Some("/run/client-ca.pem".into()));
        assert_eq!(client.token_url.as_deref(), Some("https://t.example"));
        assert_eq!(client.tenant_parameter.as_deref(), Some("tenant"));
        assert_eq!(client.redis_url, Some(Secret::new("redis://r")));
        assert_eq!(client.cache_keys, Some(Secret::new("x")));
    }

    #[test]
    fn every_variable_of_the_endpoints_is_read() {
        let config = read_pairs(VALUES);
        assert_eq!(config.resource.as_deref(), Some("https://wave.example"));
        assert_eq!(config.resource_scopes.as_str(), "read write");
        assert_eq!(config.revocation_log, Some(crate::config::RevocationLogKind::Redis));
        assert_eq!(config.revocation_refuse_after, Some(Duration::from_secs(30)));
        let endpoints = config.endpoints;
        assert_eq!(endpoints.redirect_uri.as_deref(), Some("https://wave.example/v1/auth/login"));
        assert_eq!(endpoints.scopes.as_ref().map(Scopes::as_str), Some("openid read"));
        let pages = [&endpoints.prefix, &endpoints.landing, &endpoints.failure_page];
        let pages = pages.map(Option::as_deref);
        assert_eq!(pages, [Some("/app/v1/auth"), Some("/app/home"), Some("/app/sorry")]);
        assert_eq!(endpoints.cookie_name.as_deref(), Some("wave"));
        assert!(endpoints.redirect_navigation);
        let parameters = [("prompt", "login"), ("resource", "a")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(endpoints.sign_in_parameters, parameters);
        assert_eq!(endpoints.session_keys, Some(Secret::new("y")));
        assert!(endpoints.backchannel_logout && endpoints.password_grant);
        assert!(endpoints.form_post && endpoints.register_at_sign_in);
        assert_eq!(endpoints.session_identity, crate::config::IdentitySource::IdToken);
        assert_eq!(endpoints.session_store, Some(crate::config::SessionStoreKind::Database));
        assert_eq!(endpoints.session_idle, Some(Duration::from_secs(900)));
        assert_eq!(endpoints.trust_file, Some("/run/trust.toml".into()));
        assert_eq!(endpoints.trust_store, Some(crate::config::PolicyStoreKind::Database));
        let admins = [&endpoints.trust_admin_scope, &endpoints.trust_tenant_admin_scope];
        let admins = admins.map(|scopes| scopes.as_ref().map(Scopes::as_str));
        assert_eq!(admins, [Some("trusts:admin"), Some("trusts:tenant read")]);
        assert_eq!(endpoints.trusted_proxies, ["10.0.0.1", "10.1.0.0/16"]);
    }

    #[test]
    fn every_variable_of_introspection_is_read() {
        let config = read_pairs(VALUES);
        let settings = IntrospectionSettings {
            url: Some("https://i.example".to_owned()),
            prefixes: vec!["skt_".to_owned(), "sgk_".to_owned()],
            cache_for: Duration::from_secs(10),
            signed_answers: crate::config::SignedAnswers::Required,
            timeout: Duration::from_secs(3),
            serve_while_unavailable: Duration::from_secs(60),
            unknown_tokens: (500, 50),
            insecure_accept_missing_audience: true,
        };
        assert_eq!(config.issuers[0].introspection, Some(settings.clone()));
        let file = r#"{ "issuers": [{ "issuer": "https://a", "introspection": {
            "url": "https://i.example", "prefixes": ["skt_", "sgk_"], "cache_seconds": 10,
            "signed_answers": "required", "timeout_seconds": 3, "unknown_tokens": [500, 50],
            "serve_while_unavailable_seconds": 60, "insecure_accept_missing_audience": true } }] }"#;
        let config: AuthConfig = serde_json::from_str(file).unwrap();
        assert_eq!(config.issuers[0].introspection, Some(settings));
        let config = overlaid(file, &[("INTROSPECTION_CACHE_SECONDS", "20")]);
        let settings = config.issuers[0].introspection.as_ref().unwrap();
        assert_eq!((settings.cache_for.as_secs(), settings.timeout.as_secs()), (20, 3));
        let config = overlaid(file, &[("INTROSPECTION", "false")]);
        assert_eq!(config.issuers[0].introspection, None);
        for name in ["INTROSPECTION_PREFIXES", "INTROSPECTION_URL"] {
            let error = read_pairs(&[(name, "skt_")]).check().unwrap_err();
            assert_eq!(error.faults()[0].field, format!("SCAIWAVE_{name}"));
            assert!(
                error.to_string().contains("set `SCAIWAVE_INTROSPECTION` to `true`"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let config = read_pairs(VALUES);
        let issuer = &config.issuers[0];
        assert_eq!(config.mode, AuthMode::Mock);
        assert!(!config.tenant_required && config.any_tenant);
        assert_eq!(issuer.provider, Some(crate::config::providers::Provider::Zitadel));
        assert!(issuer.tenants.iter().map(TenantId::as_str).eq(["t-1", "t-2"]));
        assert_eq!(issuer.issuer, "https://scaikey.example");
        assert_eq!(issuer.expected(), "https://issuer.example");
        assert_eq!(issuer.discovery_url.as_deref(), Some("https://d.example"));
        assert_eq!(issuer.jwks_uri.as_deref(), Some("https://k.example"));
        assert_eq!(config.audience, ["scaiwave", "scaidrive"]);
        let claims = ["aud", "/a~1b/c"].map(|path| path.parse().unwrap());
        assert_eq!(issuer.audience_claims, claims);
        assert!(issuer.insecure_accept_id_tokens);
        let tests = [ClaimTest::is_present("azp"), ClaimTest::equals("token_use", "access")];
        assert_eq!(issuer.access_token, tests);
        assert_eq!(issuer.algorithms, [Algorithm::ES512, Algorithm::Ed25519, Algorithm::MLDSA65]);
        assert_eq!(issuer.profile, TokenProfile::Rfc9068);
        assert_eq!(issuer.leeway.as_secs(), 5);
        assert!(issuer.allow_loopback_http);
        assert_eq!(issuer.insecure_http_hosts, ["keycloak.auth.svc", "10.0.0.7:8080"]);
        assert_eq!(issuer.ca_file, Some("/run/ca.pem".into()));
        let local = read_pairs(&[("KEYS_FILE", "/run/keys.json")]);
        assert_eq!(local.issuers[0].keys_file, Some("/run/keys.json".into()));
        assert_eq!(issuer.decryption_keys, Some(Secret::new("z")));
        assert!(issuer.also_unencrypted);
        let local = read_pairs(&[("DECRYPTION_KEYS_FILE", "/run/keys.json")]);
        assert_eq!(local.issuers[0].decryption_keys_file, Some("/run/keys.json".into()));
        assert_eq!(issuer.jwks.ttl.as_secs(), 60);
        assert_eq!(issuer.jwks.cooldown.as_secs(), 10);
        assert_eq!(issuer.jwks.max_stale.as_secs(), 3600);
        assert_eq!(issuer.claims.tenant_id, ["tid".parse().unwrap()]);
        assert_eq!(issuer.claims.roles, ["/realm_access/roles".parse().unwrap()]);
        assert_eq!(issuer.claims.groups, ["https://example.com/groups".parse().unwrap()]);
        let claims = ClaimsMapping::default()
            .roles(["/realm_access/roles"])
            .groups(["https://example.com/groups"])
            .tenant_id(["tid"])
            .name_member("name")
            .scopes(["permissions"])
            .subject(["oid"])
            .client_id(["azp", "appid"])
            .display_name(["nickname"])
            .email(["mail"])
            .partner_id(["partner"])
            .kind(IdentityKind::Workload)
            .service_account([
                ClaimTest::equals("idtyp", "app"),
                ClaimTest::starts_with("preferred_username", "service-account-"),
            ])
            .mfa([
                ClaimTest::equals("aal", "aal2"),
                ClaimTest::contains("amr", "pwd").and(ClaimTest::contains("amr", "otp")),
            ])
            .auth_time(["/auth/time"]);
        assert_eq!(issuer.claims, claims);
        assert_eq!(config.verified_tokens_bytes, 1_000_000);
        assert_eq!(config.database_url.as_ref().map(Secret::expose), Some("sqlite::memory:"));
        assert_eq!(config.notices(), config.unused_settings(AuthConfig::is_built_with));
    }

    #[test]
    fn missing_issuer_and_audience_name_their_variables() {
        let config = read_pairs(&[("AUTH_MODE", "  ")]);
        assert_eq!(config.mode, AuthMode::ScaiKey);
        let error = config.check().unwrap_err();
        assert_eq!(error.faults()[0].field, "SCAIWAVE_ISSUER");
        let error = read_pairs(&[("ISSUER", "https://a.example")]).check().unwrap_err();
        assert_eq!(error.faults()[0].field, "SCAIWAVE_AUDIENCE");
    }

    #[test]
    fn all_faults_are_reported_by_variable() {
        let fields = |pairs: &[(&str, &str)]| -> Vec<String> {
            let error = read_pairs(pairs).check().unwrap_err();
            let name = |fault: &Fault| fault.field.trim_start_matches("SCAIWAVE_").to_owned();
            error.faults().iter().map(name).collect()
        };
        let unreadable = [
            ("AUTH_MODE", "productoin"),
            ("ALGORITHMS", "RS256,none"),
            ("LEEWAY_SECONDS", "a minute"),
            ("ALLOW_LOOPBACK_HTTP", "maybe"),
            ("VERIFIED_TOKENS_BYTES", "16 MiB"),
        ];
        assert_eq!(
            fields(&unreadable),
            [
                "AUTH_MODE",
                "ALGORITHMS",
                "LEEWAY_SECONDS",
                "ALLOW_LOOPBACK_HTTP",
                "VERIFIED_TOKENS_BYTES",
                "ISSUER",
                "AUDIENCE"
            ]
        );
        let invalid = [
            ("ISSUER", "http://scaikey.example"),
            ("AUDEINCE", "a"),
            ("JWKS_URI", "ftp://x"),
            ("LEEWAY_SECONDS", "3600"),
            ("VERIFIED_TOKENS_BYTES", "68719476737"),
        ];
        assert_eq!(
            fields(&invalid),
            [
                "ISSUER",
                "JWKS_URI",
                "LEEWAY_SECONDS",
                "AUDIENCE",
                "VERIFIED_TOKENS_BYTES",
                "AUDEINCE"
            ]
        );
        assert_eq!(fields(&[("JWKS_URI", "https://k.example"), ("AUDIENCE", "a")]), ["ISSUER"]);
        let error = read_pairs(&unreadable).check().unwrap_err();
        assert!(error.to_string().contains("ALGORITHMS entry 2: unknown"), "{error}");
        assert!(error.to_string().contains("AUTH_MODE must be `scaikey`"), "{error}");
    }

    #[test]
    fn errors_do_not_repeat_values() {
        let mut all = String::new();
        for variable in ENVIRONMENT {
            for value in [
                "Hunter2Secret",
                "Hunter2Secret\"\\ x,/~Hunter2Secret",
                "http://Hunter2Secret@host/",
                "https://user:Hunter2Secret@host/{tenant_id}{Hunter2Secret}?Hunter2Secret#x",
            ] {
                for issuer in ["https://id.example", "https://id.example/{tenant_id}"] {
                    let pairs = [("ISSUER", issuer), ("AUDIENCE", "a"), (variable.name, value)];
                    if let Err(error) = read_pairs(&pairs).check() {
                        let text = format!("{error} {error:?}");
                        assert!(!text.contains("unter2"), "{}: {text}", variable.name);
                        all.push_str(&text);
                    }
                }
            }
        }
        for named in [
            "TOKEN_PROFILE must be `lenient`",
            "CLIENT_AUTH must be `basic`",
            "CLIENT_KEY_ALGORITHM must be RS256",
            "SCOPES must be scopes",
        ] {
            assert!(all.contains(named), "{named}");
        }
    }

    #[test]
    fn only_misspelt_variables_get_a_notice() {
        let config = read_pairs(&[
            ("JWKS_URL", "https://k.example"),
            ("AUDEINCE", "a"),
            ("LISTEN", "127.0.0.1:8080"),
            ("SMTP_HOST", "x"),
        ]);
        assert_eq!(
            config.notices(),
            [
                "SCAIWAVE_AUDEINCE is ignored: did you mean SCAIWAVE_AUDIENCE?",
                "SCAIWAVE_JWKS_URL is ignored: did you mean SCAIWAVE_JWKS_URI?",
            ]
        );
    }

    #[test]
    fn unknown_files_get_a_notice() {
        let notice = |name: &str| read_pairs(&[(name, "/run/x")]).notices().join("\n");
        assert_eq!(
            notice("CLIENT_SECRETS_FILE"),
            "SCAIWAVE_CLIENT_SECRETS_FILE is ignored: did you mean SCAIWAVE_CLIENT_SECRET_FILE?"
        );
        assert_eq!(
            notice("ISSUER_FILE"),
            "SCAIWAVE_ISSUER_FILE is ignored: SCAIWAVE_ISSUER is not read from a file"
        );
        for other in ["REDIS_PASSWORD_FILE", "LOG_FILE"] {
            let notice = notice(other);
            assert!(notice.contains(&format!("SCAIWAVE_{other} is not read")), "{notice}");
            assert!(notice.contains("SCAIWAVE_REDIS_URL_FILE"), "{notice}");
        }
        assert_eq!(notice("PROFILE"), "");
    }

    #[test]
    fn quoted_values_are_told() {
        let config = read_pairs(&[("AUDIENCE", "\"scaiwave\""), ("TENANTS", "[acme]")]);
        let told: Vec<_> =
            config.notices().iter().map(|it| it.split(' ').next().unwrap()).collect();
        assert_eq!(told, ["SCAIWAVE_AUDIENCE", "SCAIWAVE_TENANTS"]);
        for name in ["ISSUER", "AUTH_MODE"] {
            let error = read_pairs(&[(name, "'scaikey'"), ("AUDIENCE", "a")]).check().unwrap_err();
            let about: Vec<_> =
                error.faults().iter().filter(|fault| fault.field.ends_with(name)).collect();
            assert_eq!(about.len(), 1, "{error}");
            assert!(about[0].problem.contains("quotation marks"), "{error}");
        }
        assert!(read_pairs(&[("AUDIENCE", "\""), ("CLIENT_SECRET", "\"a")]).notices().is_empty());
    }

    #[test]
    fn secret_and_its_file_are_exclusive() {
        for variable in ENVIRONMENT {
            let Some(value) = pair_of(variable.name) else { continue };
            if !ENVIRONMENT.iter().any(|it| it.name == value) {
                continue;
            }
            let config = read_pairs(&[(variable.name, "/run/x"), (value, "x")]);
            let error = config.check().unwrap_err();
            let fault = &error.faults()[0];
            assert_eq!(fault.field, format!("SCAIWAVE_{}", variable.name));
            let problem = format!("and SCAIWAVE_{value} are both set: set only one of them");
            assert_eq!(fault.problem, problem);
        }
    }

    #[test]
    fn list_without_entries_is_refused() {
        let file = r#"{ "audience": ["docs"],
            "issuers": [{ "issuer": "https://a.example", "tenants": ["example.com"] }] }"#;
        for value in [",", " , ", ",,"] {
            for name in ["TENANTS", "SERVICE_ACCOUNT_IF", "AUDIENCE", "TRUSTED_PROXIES"] {
                let error = overlaid(file, &[(name, value)]).check().unwrap_err();
                let [fault] = error.faults() else { panic!("one fault: {error}") };
                assert_eq!(fault.field, format!("SCAIWAVE_{name}"));
                assert!(fault.problem.starts_with("has no entry"), "{error}");
            }
        }
    }

    const FILE: &str = r#"{
        "audience": ["wave"], "realm": "docs", "database_url": "sqlite::memory:",
        "issuers": [{ "issuer": "https://scaikey.example", "leeway_seconds": 7 }],
        "client": { "id": "wave", "secret": "in the file", "redis_url_file": "/run/redis" }
    }"#;

    fn overlaid(file: &str, pairs: &[(&str, &str)]) -> AuthConfig {
        let config: AuthConfig = serde_json::from_str(file).unwrap();
        config.overlay_vars("SCAIWAVE", prefixed(pairs))
    }

    #[test]
    fn set_variables_replace_fields_of_a_file() {
        let config = overlaid(
            FILE,
            &[
                ("AUDIENCE", "drive"),
                ("JWKS_URI", "https://scaikey.example/keys"),
                ("REDIS_URL", "redis://r"),
                ("CLIENT_SECRET_FILE", "/run/secret"),
                ("LEEWAY_SECONDS", " "),
            ],
        );
        config.check().unwrap();
        assert_eq!(
            (&config.audience[..], config.realm.as_deref()),
            (&["drive".into()][..], Some("docs"))
        );
        let [issuer] = &config.issuers[..] else { panic!("one issuer") };
        assert_eq!(issuer.issuer, "https://scaikey.example");
        assert_eq!(issuer.jwks_uri.as_deref(), Some("https://scaikey.example/keys"));
        assert_eq!(issuer.leeway.as_secs(), 7, "an empty variable changes nothing");
        let client = &config.client;
        assert_eq!((client.id.as_deref(), &client.secret), (Some("wave"), &None));
        assert_eq!(client.secret_file, Some("/run/secret".into()));
        assert_eq!((client.redis_url.is_some(), &client.redis_url_file), (true, &None));
        assert_eq!(config.database_url, Some(Secret::new("sqlite::memory:")));
    }

    #[test]
    fn overlay_faults_name_variable_or_field() {
        let fields = |file: &str, pairs: &[(&str, &str)]| -> Vec<String> {
            let error = overlaid(file, pairs).check().unwrap_err();
            error.faults().iter().map(|fault| fault.field.clone()).collect()
        };
        let bad = r#"{ "issuers": [{ "issuer": "ftp://x", "jwks_uri": "ftp://k" }] }"#;
        assert_eq!(
            fields(bad, &[("JWKS_URI", "ftp://v"), ("LEEWAY_SECONDS", "x")]),
            [
                "SCAIWAVE_LEEWAY_SECONDS",
                "issuers[0].issuer",
                "SCAIWAVE_JWKS_URI",
                "audience (SCAIWAVE_AUDIENCE)"
            ]
        );
        assert_eq!(
            fields("{}", &[("LEEWAY_SECONDS", "5")]),
            ["issuers[0].issuer (SCAIWAVE_ISSUER)", "audience (SCAIWAVE_AUDIENCE)"]
        );
        let two = r#"{ "audience": ["a"], "issuers": ["https://a.example", "https://b.example"] }"#
            .replace("\"https", "{\"issuer\":\"https")
            .replace(".example\"", ".example\"}");
        let error = overlaid(&two, &[("JWKS_URI", "https://k.example")]).check().unwrap_err();
        let [fault] = error.faults() else { panic!("one fault: {error}") };
        assert_eq!(fault.field, "SCAIWAVE_JWKS_URI");
        assert!(fault.problem.contains("has several"), "{error}");
        overlaid(&two, &[("AUDIENCE", "b")]).check().unwrap();
    }

    #[test]
    fn second_prefix_describes_second_issuer() {
        let first = [("API_ISSUER", "https://a.example"), ("API_AUDIENCE", "wave")];
        let owned = |vars: &[(&str, &str)]| {
            let owned = vars.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            owned.collect::<Vec<_>>()
        };
        let with = |second: &[(&str, &str)]| {
            AuthConfig::from_vars("API", owned(&first)).issuer_from_vars("OLD", owned(second))
        };
        let issuer = ("OLD_ISSUER", "https://b.example");
        let config = with(&[issuer, ("OLD_AUDIENCE", "old"), ("OLD_CLIENT_ID", "x")]);
        config.check().unwrap();
        assert_eq!(config.all_audiences(), ["wave", "old"]);
        assert_eq!(config.notices(), AuthConfig::default().notices());
        let all = |second: &[(&str, &str)]| with(second).check().unwrap_err().to_string();
        assert!(all(&[]).contains("OLD_ISSUER is missing"), "{}", all(&[]));
        for (name, value) in [
            ("OLD_TENANTS", ","),
            ("OLD_TOKEN_PROFILE", "rfc9086"),
            ("OLD_LEEWAY_SECONDS", "abc"),
            ("OLD_LEEWAY_SECONDS", "3600"),
            ("OLD_AUDIENCE", ","),
        ] {
            let error = all(&[issuer, (name, value)]);
            assert_eq!(error.matches("\n  ").count(), 1, "{error}");
            assert!(error.contains(&format!("\n  {name} ")), "{error}");
        }
        let config = with(&[issuer, ("OLD_ANY_TENANT", "true"), ("OLD_TENNANTS", "a")]);
        let notices = config.notices().join("\n");
        assert!(notices.contains("OLD_ANY_TENANT is ignored"), "{notices}");
        assert!(notices.contains("OLD_TENNANTS"), "{notices}");
        // An issuer that is moved by hand keeps its faults.
        let mut config = AuthConfig::from_vars("API", owned(&first));
        let old = AuthConfig::from_vars("OLD", owned(&[issuer, ("OLD_TENANTS", ",")]));
        config.issuers.extend(old.issuers);
        let error = config.check().unwrap_err();
        assert_eq!(error.faults()[0].field, "OLD_TENANTS");
        // A relaxed issuer alone, too.
        assert!(AuthConfig::of_issuer(&config.issuers[1], &["wave".into()]).check().is_err());
    }

    #[test]
    fn settings_without_their_feature_get_a_notice() {
        let pairs = [
            ("CLIENT_ID", "wave"),
            ("REDIS_URL", "redis://u:hunter2@cache"),
            ("SESSION_KEYS", "hunter2"),
            ("PASSWORD_GRANT", "true"),
            ("TRUST_FILE", "/trust.toml"),
            ("AUDIENCE", "a"),
        ];
        let mut config = read_pairs(&pairs);
        assert!(config.unused_settings(|_| true).is_empty());
        let without = |feature: &str| {
            format!("has no effect: enable the cargo feature `{feature}` of scaikey-auth")
        };
        let notices = [
            format!("SCAIWAVE_CLIENT_ID {}", without("exchange")),
            format!("SCAIWAVE_REDIS_URL {}", without("redis")),
            format!("SCAIWAVE_SESSION_KEYS {}", without("endpoints")),
            format!("SCAIWAVE_PASSWORD_GRANT {}", without("endpoints")),
            format!("SCAIWAVE_TRUST_FILE {}", without("trust")),
        ];
        assert_eq!(config.unused_settings(|_| false), notices);
        assert_eq!(config.notices(), config.unused_settings(AuthConfig::is_built_with));
        config.origin = Origin::default();
        let notices = config.unused_settings(|feature| feature != "exchange");
        assert_eq!(notices, [format!("client.id {}", without("exchange"))]);
    }

    #[test]
    fn unknown_field_in_a_file_is_refused() {
        for text in [
            r#"{"audiense":["a"]}"#,
            r#"{"issuers":[{"issuer":"https://a","audiance":[]}]}"#,
            r#"{"issuers":[{"issuer":"https://a","jwks":{"ttl":1}}]}"#,
            r#"{"issuers":[{}]}"#,
            r#"{"mode":"off"}"#,
        ] {
            assert!(serde_json::from_str::<AuthConfig>(text).is_err(), "{text}");
        }
    }
}
