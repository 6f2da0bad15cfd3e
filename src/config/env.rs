//! [`ENVIRONMENT`]: the one table of environment variables, and its reader.

use std::str::FromStr;
use std::time::Duration;

use super::{AuthConfig, Fault, IssuerConfig};
use crate::secret::Secret;

/// An environment variable this crate reads.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Variable {
    /// Its name without prefix and underscore.
    pub name: &'static str,
    /// The field of [`AuthConfig`] it sets.
    pub field: &'static str,
    /// What it says and how it is written.
    pub meaning: &'static str,
    /// What holds when it is unset.
    pub default: &'static str,
    /// Puts its text into the configuration.
    set: fn(&mut AuthConfig, &str) -> Result<(), String>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every variable, in the order of the manual.
pub const ENVIRONMENT: &[Variable] = &[
    Variable {
        name: "AUTH_MODE",
        field: "mode",
        meaning: "`scaikey`, `hybrid` or `mock`",
        default: "`scaikey`",
        set: |config, text| {
            config.mode = text.parse().map_err(|e| format!("`{text}` {e}"))?;
            Ok(())
        },
    },
    Variable {
        name: "ISSUER",
        field: "issuers[0].issuer",
        meaning: "the provider's URL; `{tenant_id}` in it stands for one issuer per tenant",
        default: "required, except in mock mode",
        set: |config, text| issuer(config, |issuer| issuer.issuer = text.to_owned()),
    },
    Variable {
        name: "EXPECTED_ISSUER",
        field: "issuers[0].expected_issuer",
        meaning: "what `iss` says, when it is not the URL above",
        default: "the issuer",
        set: |config, text| issuer(config, |issuer| issuer.expected_issuer = Some(text.to_owned())),
    },
    Variable {
        name: "DISCOVERY_URL",
        field: "issuers[0].discovery_url",
        meaning: "the discovery document, when it is not at a well-known path",
        default: "found under the issuer",
        set: |config, text| issuer(config, |issuer| issuer.discovery_url = Some(text.to_owned())),
    },
    Variable {
        name: "JWKS_URI",
        field: "issuers[0].jwks_uri",
        meaning: "the key set; switches discovery off",
        default: "from discovery",
        set: |config, text| issuer(config, |issuer| issuer.jwks_uri = Some(text.to_owned())),
    },
    Variable {
        name: "AUDIENCE",
        field: "audience",
        meaning: "what this service is called in `aud`; several, separated by commas or spaces",
        default: "required, except in mock mode",
        set: |config, text| {
            config.audience = list(text)?;
            Ok(())
        },
    },
    Variable {
        name: "ALGORITHMS",
        field: "issuers[0].algorithms",
        meaning: "the signature algorithms accepted; several, separated by commas or spaces",
        default: "`RS256,ES256`",
        set: |config, text| {
            let algorithms = list(text)?;
            issuer(config, |issuer| issuer.algorithms = algorithms)
        },
    },
    Variable {
        name: "TOKEN_PROFILE",
        field: "issuers[0].profile",
        meaning: "`lenient` or `rfc9068`",
        default: "`lenient`",
        set: |config, text| {
            let profile = match text {
                "lenient" => super::TokenProfile::Lenient,
                "rfc9068" => super::TokenProfile::Rfc9068,
                _ => return Err("must be `lenient` or `rfc9068`".to_owned()),
            };
            issuer(config, |issuer| issuer.profile = profile)
        },
    },
    Variable {
        name: "LEEWAY_SECONDS",
        field: "issuers[0].leeway_seconds",
        meaning: "how far clocks may differ, at most 600",
        default: "`60`",
        set: |config, text| {
            let leeway = seconds(text)?;
            issuer(config, |issuer| issuer.leeway = leeway)
        },
    },
    Variable {
        name: "ALLOW_LOOPBACK_HTTP",
        field: "issuers[0].allow_loopback_http",
        meaning: "`true` allows http to a provider on this machine",
        default: "`false`",
        set: |config, text| {
            let allow = boolean(text)?;
            issuer(config, |issuer| issuer.allow_loopback_http = allow)
        },
    },
    Variable {
        name: "JWKS_TTL_SECONDS",
        field: "issuers[0].jwks.ttl_seconds",
        meaning: "when keys are fetched anew, if the provider's Cache-Control does not say",
        default: "`300`",
        set: |config, text| {
            let ttl = seconds(text)?;
            issuer(config, |issuer| issuer.jwks.ttl = ttl)
        },
    },
    Variable {
        name: "JWKS_COOLDOWN_SECONDS",
        field: "issuers[0].jwks.cooldown_seconds",
        meaning: "how often an unknown key id, or a bad signature under a known one, may cause a fetch, beyond a burst of two",
        default: "`5`",
        set: |config, text| {
            let cooldown = seconds(text)?;
            issuer(config, |issuer| issuer.jwks.cooldown = cooldown)
        },
    },
    Variable {
        name: "JWKS_MAX_STALE_SECONDS",
        field: "issuers[0].jwks.max_stale_seconds",
        meaning: "how long keys are used while the provider cannot be reached",
        default: "`86400`",
        set: |config, text| {
            let max_stale = seconds(text)?;
            issuer(config, |issuer| issuer.jwks.max_stale = max_stale)
        },
    },
    Variable {
        name: "TENANT_CLAIM",
        field: "issuers[0].claims.tenant_id",
        meaning: "the claim that names the tenant: a name, or a JSON pointer",
        default: "`tenant_id`",
        set: |config, text| {
            let paths = list(text)?;
            issuer(config, |issuer| issuer.claims.tenant_id = paths)
        },
    },
    Variable {
        name: "ROLES_CLAIM",
        field: "issuers[0].claims.roles",
        meaning: "the claim with the roles, likewise; several are joined",
        default: "`roles,role`",
        set: |config, text| {
            let paths = list(text)?;
            issuer(config, |issuer| issuer.claims.roles = paths)
        },
    },
    Variable {
        name: "GROUPS_CLAIM",
        field: "issuers[0].claims.groups",
        meaning: "the claim with the groups, likewise",
        default: "`groups`",
        set: |config, text| {
            let paths = list(text)?;
            issuer(config, |issuer| issuer.claims.groups = paths)
        },
    },
    Variable {
        name: "KNOWN_TOKENS_BYTES",
        field: "known_tokens_bytes",
        meaning: "how much memory tokens verified before may take; `0` verifies every request anew",
        default: "`16777216`",
        set: |config, text| {
            let bytes = text.parse().map_err(|_| "must be a whole number of bytes")?;
            config.known_tokens_bytes = bytes;
            Ok(())
        },
    },
    Variable {
        name: "DATABASE_URL",
        field: "database_url",
        meaning: "the tenant store, `postgres://…` or `sqlite:…`",
        default: "none: every tenant that a verified token names is accepted",
        set: |config, text| {
            config.database_url = Some(Secret::new(text));
            Ok(())
        },
    },
    Variable {
        name: "TENANTS",
        field: "issuers[0].tenants",
        meaning: "the tenants the issuer may speak for; several, separated by commas or spaces",
        default: "any; with `{tenant_id}` in the issuer, one of this, `P_ANY_TENANT` and `P_DATABASE_URL` is required",
        set: |config, text| {
            let tenants = list(text)?;
            issuer(config, |issuer| issuer.tenants = tenants)
        },
    },
    Variable {
        name: "ANY_TENANT",
        field: "any_tenant",
        meaning: "`true` accepts every tenant of an issuer with `{tenant_id}`",
        default: "`false`",
        set: |config, text| {
            config.any_tenant = boolean(text)?;
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_ID",
        field: "client.id",
        meaning: "this service's `client_id`, to get tokens for other services",
        default: "none: `TokenExchangeClient` cannot be built",
        set: |config, text| {
            config.client.id = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_SECRET",
        field: "client.secret",
        meaning: "its secret",
        default: "none",
        set: |config, text| {
            config.client.secret = Some(Secret::new(text));
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_SECRET_FILE",
        field: "client.secret_file",
        meaning: "a file with the secret instead, read for every request to the provider",
        default: "none",
        set: |config, text| {
            config.client.secret_file = Some(text.into());
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_AUTH",
        field: "client.auth",
        meaning: "how it proves itself: `basic`, `post`, `private_key_jwt` or `none`",
        default: "`basic`",
        set: |config, text| {
            config.client.auth = text.parse()?;
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_KEY_FILE",
        field: "client.key_file",
        meaning: "the private key for `private_key_jwt`: PKCS #8 in PEM",
        default: "none",
        set: |config, text| {
            config.client.key_file = Some(text.into());
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_KEY_ID",
        field: "client.key_id",
        meaning: "the `kid` the provider knows that key by",
        default: "none is sent",
        set: |config, text| {
            config.client.key_id = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "CLIENT_KEY_ALGORITHM",
        field: "client.key_algorithm",
        meaning: "what that key signs with",
        default: "`RS256`",
        set: |config, text| {
            config.client.key_algorithm = text.parse().map_err(|e| format!("`{text}`: {e}"))?;
            Ok(())
        },
    },
    Variable {
        name: "TOKEN_URL",
        field: "client.token_url",
        meaning: "the token endpoint; `{tenant_id}` in it stands for the tenant",
        default: "from discovery",
        set: |config, text| {
            config.client.token_url = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "AUTHORIZATION_URL",
        field: "client.authorization_url",
        meaning: "the authorization endpoint, where users sign in",
        default: "from discovery",
        set: |config, text| {
            config.client.authorization_url = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "TENANT_PARAMETER",
        field: "client.tenant_parameter",
        meaning: "the form member that tells the provider the tenant of a service token",
        default: "none",
        set: |config, text| {
            config.client.tenant_parameter = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "REDIS_URL",
        field: "client.redis_url",
        meaning: "a Redis or Valkey server in which all processes share tokens, and the log of used workload tokens; several URLs, separated by commas, are a cluster",
        default: "none: each process keeps its own",
        set: |config, text| {
            config.client.redis_url = Some(Secret::new(text));
            Ok(())
        },
    },
    Variable {
        name: "CACHE_KEYS",
        field: "client.cache_keys",
        meaning: "the secret under which tokens are sealed there: 32 octets in base64, `openssl rand -base64 32`; while it is replaced two, separated by a comma",
        default: "none; required with `P_REDIS_URL`",
        set: |config, text| {
            config.client.cache_keys = Some(Secret::new(text));
            Ok(())
        },
    },
    Variable {
        name: "INSECURE_SPEND_WITHOUT_LOCK",
        field: "client.insecure_spend_without_lock",
        meaning: "`true` spends refresh tokens and codes also while Redis gives no answer; right for a service of one process, with more of them a session may end",
        default: "`false`: they wait for Redis, then 503",
        set: |config, text| {
            config.client.insecure_spend_without_lock = boolean(text)?;
            Ok(())
        },
    },
    Variable {
        name: "RESOURCE",
        field: "resource",
        meaning: "the public URL of this service, for challenges and metadata (RFC 9728)",
        default: "none: challenges name no metadata",
        set: |config, text| {
            config.resource = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "RESOURCE_SCOPES",
        field: "resource_scopes",
        meaning: "the scopes that this service knows, published in its metadata; several, separated by spaces",
        default: "none are published",
        set: |config, text| {
            config.resource_scopes = text.parse().map_err(|e| format!("{e}"))?;
            Ok(())
        },
    },
    Variable {
        name: "REDIRECT_URI",
        field: "endpoints.redirect_uri",
        meaning: "the public URL of `login`, as registered at the provider",
        default: "none: nobody signs in here",
        set: |config, text| {
            config.endpoints.redirect_uri = Some(text.to_owned());
            Ok(())
        },
    },
    Variable {
        name: "SCOPES",
        field: "endpoints.scopes",
        meaning: "what sign-ins ask for; several, separated by spaces",
        default: "`openid profile email offline_access`",
        set: |config, text| {
            config.endpoints.scopes = Some(text.parse().map_err(|e| format!("{e}"))?);
            Ok(())
        },
    },
    Variable {
        name: "SESSION_KEYS",
        field: "endpoints.session_keys",
        meaning: "the secret under which sessions are sealed into cookies, as `P_CACHE_KEYS`",
        default: "none: sign-ins give tokens",
        set: |config, text| {
            config.endpoints.session_keys = Some(Secret::new(text));
            Ok(())
        },
    },
    Variable {
        name: "PASSWORD_GRANT",
        field: "endpoints.password_grant",
        meaning: "`true` lets `token` take passwords",
        default: "`false`",
        set: |config, text| {
            config.endpoints.password_grant = boolean(text)?;
            Ok(())
        },
    },
    Variable {
        name: "TRUST_FILE",
        field: "endpoints.trust_file",
        meaning: "the trust policy for foreign tokens, TOML or JSON (feature `trust`)",
        default: "none: foreign tokens are not accepted",
        set: |config, text| {
            config.endpoints.trust_file = Some(text.into());
            Ok(())
        },
    },
    Variable {
        name: "TRUSTED_PROXIES",
        field: "endpoints.trusted_proxies",
        meaning: "addresses and networks whose `X-Forwarded-For` is believed; several, separated by commas or spaces",
        default: "none",
        set: |config, text| {
            config.endpoints.trusted_proxies = list(text)?;
            Ok(())
        },
    },
];

/// The variable that sets `field`, whichever issuer the field belongs to.
pub(super) fn variable_for(field: &str) -> Option<&'static str> {
    let field = if field == "issuer" { "issuers[0].issuer" } else { field };
    let field = if field == "issuers[0].audience" { "audience" } else { field };
    // What a `TokenExchangeBuilder` calls it.
    let field = match field {
        "client_auth" => "client.id",
        "discovery_url" => "issuers[0].discovery_url",
        "token_url" => "client.token_url",
        "authorization_url" => "client.authorization_url",
        "cache_keys" => "client.cache_keys",
        "redis_url" => "client.redis_url",
        // What a `SignIn` and `SessionKeys` call it.
        "redirect_uri" => "endpoints.redirect_uri",
        "session_keys" => "endpoints.session_keys",
        _ => field,
    };
    ENVIRONMENT.iter().find(|variable| variable.field == field).map(|variable| variable.name)
}

/// Reads `vars`, and remembers what cannot be read and what was perhaps meant.
pub(super) fn read(prefix: &str, vars: impl IntoIterator<Item = (String, String)>) -> AuthConfig {
    let mut config = AuthConfig { prefix: Some(prefix.to_owned()), ..AuthConfig::default() };
    let ours = vars.into_iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(prefix)?.strip_prefix('_')?.to_owned();
        Some((name, value.trim().to_owned()))
    });
    for (name, value) in ours {
        match ENVIRONMENT.iter().find(|variable| variable.name == name) {
            Some(_) if value.is_empty() => {}
            Some(variable) => {
                if let Err(problem) = (variable.set)(&mut config, &value) {
                    config.unreadable.push(Fault::new(variable.field, problem));
                }
            }
            None => config.notices.extend(misspelling(prefix, &name)),
        }
    }
    config
}

/// The environment describes one issuer; it comes into being with its first variable.
fn issuer(config: &mut AuthConfig, set: impl FnOnce(&mut IssuerConfig)) -> Result<(), String> {
    if config.issuers.is_empty() {
        config.issuers.push(IssuerConfig::new(""));
    }
    if let Some(issuer) = config.issuers.first_mut() {
        set(issuer);
    }
    Ok(())
}

fn list<T: FromStr>(text: &str) -> Result<Vec<T>, String>
where
    T::Err: std::fmt::Display,
{
    text.split([',', ' '])
        .filter(|item| !item.is_empty())
        .map(|item| item.parse().map_err(|e| format!("has `{item}`: {e}")))
        .collect()
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| "must be a whole number of seconds".to_owned())
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be `true` or `false`".to_owned()),
    }
}

/// A warning, when `name` is close to a known variable. Other variables with the prefix belong to
/// the service itself.
fn misspelling(prefix: &str, name: &str) -> Option<String> {
    let (distance, nearest) = ENVIRONMENT
        .iter()
        .map(|variable| (edit_distance(name, variable.name), variable.name))
        .min()?;
    let close = distance <= 2 && distance * 3 <= name.len();
    close.then(|| format!("{prefix}_{name} is not read: did you mean {prefix}_{nearest}?"))
}

/// How many letters must be changed, added or removed (Levenshtein).
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
    use super::*;
    use crate::config::{Algorithm, AuthMode, TokenProfile};

    fn read_pairs(pairs: &[(&str, &str)]) -> AuthConfig {
        read("SCAIWAVE", pairs.iter().map(|(n, v)| (format!("SCAIWAVE_{n}"), (*v).to_owned())))
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let config = read_pairs(&[
            ("AUTH_MODE", "Mock"),
            ("ISSUER", "https://scaikey.example"),
            ("EXPECTED_ISSUER", "https://issuer.example"),
            ("DISCOVERY_URL", "https://d.example"),
            ("JWKS_URI", "https://k.example"),
            ("AUDIENCE", "scaiwave, scaidrive"),
            ("ALGORITHMS", "ES512 EdDSA"),
            ("TOKEN_PROFILE", "rfc9068"),
            ("LEEWAY_SECONDS", "5"),
            ("ALLOW_LOOPBACK_HTTP", "TRUE"),
            ("JWKS_TTL_SECONDS", "60"),
            ("JWKS_COOLDOWN_SECONDS", "10"),
            ("JWKS_MAX_STALE_SECONDS", "3600"),
            ("TENANT_CLAIM", "tid"),
            ("ROLES_CLAIM", "/realm_access/roles"),
            ("GROUPS_CLAIM", "https://example.com/groups"),
            ("KNOWN_TOKENS_BYTES", "1000000"),
            ("DATABASE_URL", "sqlite::memory:"),
            ("CLIENT_ID", "drive"),
            ("CLIENT_SECRET", "s"),
            ("CLIENT_SECRET_FILE", "/run/s"),
            ("CLIENT_AUTH", "Private_Key_JWT"),
            ("CLIENT_KEY_FILE", "/run/k"),
            ("CLIENT_KEY_ID", "k1"),
            ("CLIENT_KEY_ALGORITHM", "ES256"),
            ("TOKEN_URL", "https://t.example"),
            ("TENANT_PARAMETER", "tenant"),
            ("REDIS_URL", "redis://r"),
            ("CACHE_KEYS", "x"),
        ]);
        let client = &config.client;
        assert_eq!(client.id.as_deref(), Some("drive"));
        assert_eq!(client.secret, Some(Secret::new("s")));
        assert_eq!(client.secret_file, Some("/run/s".into()));
        assert_eq!(client.auth, crate::config::ClientAuthMethod::PrivateKeyJwt);
        assert_eq!(client.key_file, Some("/run/k".into()));
        assert_eq!(client.key_id.as_deref(), Some("k1"));
        assert_eq!(client.key_algorithm, Algorithm::ES256);
        assert_eq!(client.token_url.as_deref(), Some("https://t.example"));
        assert_eq!(client.tenant_parameter.as_deref(), Some("tenant"));
        assert_eq!(client.redis_url, Some(Secret::new("redis://r")));
        assert_eq!(client.cache_keys, Some(Secret::new("x")));
        let issuer = &config.issuers[0];
        assert_eq!(config.mode, AuthMode::Mock);
        assert_eq!(issuer.issuer, "https://scaikey.example");
        assert_eq!(issuer.expected(), "https://issuer.example");
        assert_eq!(issuer.discovery_url.as_deref(), Some("https://d.example"));
        assert_eq!(issuer.jwks_uri.as_deref(), Some("https://k.example"));
        assert_eq!(config.audience, ["scaiwave", "scaidrive"]);
        assert_eq!(issuer.algorithms, [Algorithm::ES512, Algorithm::Ed25519]);
        assert_eq!(issuer.profile, TokenProfile::Rfc9068);
        assert_eq!(issuer.leeway.as_secs(), 5);
        assert!(issuer.allow_loopback_http);
        assert_eq!(issuer.jwks.ttl.as_secs(), 60);
        assert_eq!(issuer.jwks.cooldown.as_secs(), 10);
        assert_eq!(issuer.jwks.max_stale.as_secs(), 3600);
        assert_eq!(issuer.claims.tenant_id, ["tid".parse().unwrap()]);
        assert_eq!(issuer.claims.roles, ["/realm_access/roles".parse().unwrap()]);
        assert_eq!(issuer.claims.groups, ["https://example.com/groups".parse().unwrap()]);
        assert_eq!(config.known_tokens_bytes, 1_000_000);
        assert_eq!(config.database_url.as_ref().map(Secret::expose), Some("sqlite::memory:"));
        assert!(config.notices().is_empty());
    }

    #[test]
    fn nothing_set_is_scaikey_mode_and_asks_for_issuer_and_audience() {
        let config = read_pairs(&[("AUTH_MODE", "  ")]);
        assert_eq!(config.mode, AuthMode::ScaiKey);
        let error = config.check().unwrap_err();
        assert_eq!(error.faults()[0].field, "SCAIWAVE_ISSUER");
        let error = read_pairs(&[("ISSUER", "https://a.example")]).check().unwrap_err();
        assert_eq!(error.faults()[0].field, "SCAIWAVE_AUDIENCE");
    }

    #[test]
    fn all_faults_are_reported_at_once_and_by_variable() {
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
            ("KNOWN_TOKENS_BYTES", "16 MiB"),
        ];
        assert_eq!(
            fields(&unreadable),
            [
                "AUTH_MODE",
                "ALGORITHMS",
                "LEEWAY_SECONDS",
                "ALLOW_LOOPBACK_HTTP",
                "KNOWN_TOKENS_BYTES",
                "ISSUER",
                "AUDIENCE"
            ]
        );
        let impossible = [
            ("ISSUER", "http://scaikey.example"),
            ("AUDEINCE", "a"),
            ("JWKS_URI", "ftp://x"),
            ("LEEWAY_SECONDS", "3600"),
            ("KNOWN_TOKENS_BYTES", "68719476737"),
        ];
        assert_eq!(
            fields(&impossible),
            ["ISSUER", "JWKS_URI", "LEEWAY_SECONDS", "AUDIENCE", "KNOWN_TOKENS_BYTES", "AUDEINCE"]
        );
        assert_eq!(fields(&[("JWKS_URI", "https://k.example"), ("AUDIENCE", "a")]), ["ISSUER"]);
        let error = read_pairs(&unreadable).check().unwrap_err();
        assert!(error.to_string().contains("`none`"), "{error}");
    }

    #[test]
    fn a_misspelt_variable_is_noticed_by_name_and_a_foreign_one_is_not() {
        let config = read_pairs(&[
            ("JWKS_URL", "https://k.example"),
            ("AUDEINCE", "a"),
            ("LISTEN", "127.0.0.1:8080"),
            ("SMTP_HOST", "x"),
        ]);
        assert_eq!(
            config.notices(),
            [
                "SCAIWAVE_JWKS_URL is not read: did you mean SCAIWAVE_JWKS_URI?",
                "SCAIWAVE_AUDEINCE is not read: did you mean SCAIWAVE_AUDIENCE?",
            ]
        );
    }

    #[test]
    fn a_configuration_file_with_an_unknown_field_is_refused() {
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
