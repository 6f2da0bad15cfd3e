//! Opaque tokens: tokens without readable claims, about which the issuer's introspection endpoint is asked
//! (RFC 7662), with plain or signed answers (RFC 9701).
//!
//! | file | contents |
//! |---|---|
//! | `mod.rs` | [`OpaqueTokens`]: the settings, and their check |
//! | `validator.rs` | [`OpaqueValidator`]: which tokens are opaque; cache first, then one question per token |
//! | `cache.rs` | [`IntrospectedTokens`]: the answers, by MAC of the token |
//! | `endpoint.rs` | one endpoint: its URL, budget, breaker, and the request |
//! | `answer.rs` | the answer: its form, its signature, and the rules that an active token must pass |
//! | `fuzz.rs` | the fuzz target for answers (feature `testing`) |

mod answer;
mod cache;
mod endpoint;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod validator;

use std::time::Duration;

use crate::config::{
    AuthConfig, AuthMode, Fault, IntrospectionSettings, IssuerConfig, SignedAnswers, overlap,
};
use crate::issuer::ClientAuth;

pub use cache::{IntrospectedTokens, IntrospectedTokensStats};

pub(crate) use cache::RevokedAnswers;
pub(crate) use validator::OpaqueValidator;

/// The name of the component in errors.
const COMPONENT: &str = "introspection endpoint";

/// The opaque tokens of one issuer, which its introspection endpoint describes (RFC 7662).
///
/// An opaque token has no claims that this service could read, such as the personal access tokens and API keys
/// of many providers. Pass the settings to
/// [`AuthBuilder::opaque_tokens`](crate::AuthBuilder::opaque_tokens). The service then asks the issuer about
/// each such token, checks the answer as it checks the claims of a JWT, and remembers it for 30 s.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::Auth;
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::validator::OpaqueTokens;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let opaque = OpaqueTokens::new("https://scaikey.example", ClientAuth::basic("docs", "the secret"))
///     .prefixes(["skt_", "sgk_"])
///     .cache_for(Duration::from_secs(10));
/// let auth = Auth::builder()
///     .issuer("https://scaikey.example")
///     .audience("docs")
///     .opaque_tokens(opaque)
///     .build()?;
/// # Ok(()) }
/// ```
///
/// # Rules
/// The issuer must be one of the service. Its configuration decides: audience, leeway, tenants, claims, the CA
/// file and the hosts that may be `http`. The endpoint's URL comes from the issuer's metadata, or from
/// [`introspection_url`](Self::introspection_url). The answer must say `"active": true`, and then:
///
/// * `iss`, if present, is the issuer;
/// * `aud` names this service: see
///   [`insecure_accept_missing_audience`](Self::insecure_accept_missing_audience);
/// * `exp`, `nbf` and `iat` are within the leeway. `exp` may be absent; the identity then expires after one hour,
///   and is asked about again as any other;
/// * no member marks a refresh or ID token; the [tests](field@IssuerConfig::access_token) of the issuer pass;
/// * a token that is bound to a key (`cnf`, or `token_type` `DPoP`) is refused without a proof;
/// * the tenant is one of the issuer's;
/// * `sub` is present. `username` is not `sub`. With
///   [`legacy_service_tokens`](field@IssuerConfig::legacy_service_tokens), `client_id` is the subject of a token
///   with neither `sub` nor `username`: a service account.
///
/// The identity has [`Provenance::Introspected`](crate::identity::Provenance::Introspected), so the guard
/// [`verified_token`](crate::guard::verified_token) refuses it: this service verified no signature of the token.
///
/// # Limits
/// A token is at most 512 bytes long, and an answer 64 KiB. However many requests present a token, one question
/// is asked. A token that the issuer calls inactive is refused for 10 s without another question. Without an
/// answer, the request gets 503, because the token may be good: the endpoint is unavailable, its answer is not
/// one, or it refuses the credentials of this service (which is logged as an error).
#[derive(Debug, Clone)]
#[must_use = "pass it to `AuthBuilder::opaque_tokens`"]
pub struct OpaqueTokens {
    issuer: String,
    client_auth: ClientAuth,
    settings: IntrospectionSettings,
    /// The field of a configuration that the settings come from.
    origin: Option<String>,
}

impl OpaqueTokens {
    /// Creates the settings for the issuer whose `iss` is `issuer`
    /// ([`IssuerConfig::expected`](crate::IssuerConfig::expected)). The client must have credentials:
    /// [`ClientAuth::none`] is refused, because an endpoint that answers without credentials lets an attacker try
    /// tokens there.
    pub fn new(issuer: impl Into<String>, client_auth: ClientAuth) -> Self {
        let (issuer, settings) = (issuer.into(), IntrospectionSettings::default());
        Self { issuer, client_auth, settings, origin: None }
    }

    /// Creates the tokens of settings in a configuration. `origin` is their field, for faults.
    pub(crate) fn of_settings(
        issuer: impl Into<String>,
        client_auth: ClientAuth,
        settings: IntrospectionSettings,
        origin: impl Into<String>,
    ) -> Self {
        Self { issuer: issuer.into(), client_auth, settings, origin: Some(origin.into()) }
    }

    /// Sets the starts of the issuer's opaque tokens. Default: none, which stands for every token with neither
    /// two nor four dots, as JWTs have. Several issuers may have opaque tokens, if no prefix begins with one of
    /// another issuer, and at most one issuer has no prefixes; it gets the tokens that begin with no prefix of
    /// another one. [`build`](crate::AuthBuilder::build) refuses a prefix with which a JWT could begin.
    pub fn prefixes(mut self, prefixes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.prefixes = prefixes.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the time for which an answer is reused. Default 30 s, at most 5 min. A revoked token is accepted for
    /// this long. With 0, each request with an active token asks; requests that present a token while the question
    /// about it is being asked still share the answer. A refused token is refused for 10 s, whatever this time is.
    /// An answer is never reused after `exp`, and without `exp` for at most 30 s.
    pub fn cache_for(mut self, time: Duration) -> Self {
        self.settings.cache_for = time;
        self
    }

    /// Sets whether answers must be signed. Default [`SignedAnswers::Accepted`].
    pub fn signed_answers(mut self, signed: SignedAnswers) -> Self {
        self.settings.signed_answers = signed;
        self
    }

    /// Sets the URL of the endpoint. Default: `introspection_endpoint` in the issuer's metadata. It is required
    /// if the keys of the issuer, or their URL, are configured, because its metadata are not read then.
    pub fn introspection_url(mut self, url: impl Into<String>) -> Self {
        self.settings.url = Some(url.into());
        self
    }

    /// Sets the time limit of one question, with everything that it needs (metadata, a client assertion, keys).
    /// Default 2 s, at most 60 s. After it, the request gets 503. A source of a client assertion may use half of it.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout = limit;
        self
    }

    /// Sets the time for which the last positive answer about a token serves, after its time of reuse, while the
    /// endpoint cannot be reached, does not answer in time, or answers 429 or 5xx. Default 0, at most 5 min.
    /// **What it costs:** a token that is revoked during an outage is accepted for this long.
    pub fn serve_while_unavailable(mut self, time: Duration) -> Self {
        self.settings.serve_while_unavailable = time;
        self
    }

    /// Sets the budget of questions about unknown tokens, which an attacker can invent: `burst` questions
    /// immediately, then `per_second`. Default 200, then 20 per second.
    ///
    /// A question takes one from the budget, and a token that this service accepts gives it back. So the rate of
    /// good tokens is not limited by `per_second`; `burst` limits how many of them are asked about at the same
    /// time. A token that was accepted before needs no budget until its `exp`. Beyond the budget, a request gets 503
    /// with `Retry-After`, and not 401, because its token may be good.
    pub fn unknown_tokens(mut self, burst: u32, per_second: u32) -> Self {
        self.settings.unknown_tokens = (burst, per_second);
        self
    }

    /// Accepts answers without an audience. Default: they are refused. A present audience is always compared.
    ///
    /// **What it costs.** Every token of the issuer without `aud` is accepted, whichever service it was issued
    /// for. Each service that receives such a token can use it here. Prefer a provider setting that adds `aud`
    /// to its answers, or name the member that has the audience in
    /// [`IssuerConfig::audience_claims`](field@crate::IssuerConfig::audience_claims).
    pub fn insecure_accept_missing_audience(mut self) -> Self {
        self.settings.insecure_accept_missing_audience = true;
        self
    }

    fn is_of(&self, issuer: &IssuerConfig) -> bool {
        issuer.expected() == self.issuer
    }

    /// Returns all faults, each as a field and a problem.
    fn faults(&self, config: &AuthConfig) -> Vec<(&'static str, String)> {
        let Some(issuer) = config.issuers.iter().find(|issuer| self.is_of(issuer)) else {
            let problem = format!(
                "is `{}`, which is the `iss` of no configured issuer: add the issuer, too",
                self.issuer
            );
            return vec![("issuer", problem)];
        };
        let mut faults = self.settings.faults(&issuer.plain_http());
        if issuer.is_per_tenant() {
            let problem = "stands for one issuer per tenant, whose opaque tokens do not say which one is to be asked: configure an issuer without {tenant_id}";
            faults.push(("issuer", problem.to_owned()));
        }
        if issuer.has_key_source() && self.settings.url.is_none() {
            let problem =
                "is missing: with configured keys, the metadata of the issuer are not read";
            faults.push(("url", problem.to_owned()));
        }
        if self.client_auth.is_public() {
            let problem =
                "has no credentials: use ClientAuth::basic, or another method than `none`";
            faults.push(("client_auth", problem.to_owned()));
        } else if let Err(problem) = self.client_auth.check() {
            faults.push(("client_auth", problem));
        }
        faults
    }

    /// Returns the problem if some tokens would belong to both.
    fn conflict_with(&self, other: &Self) -> Option<(&'static str, String)> {
        if self.issuer == other.issuer {
            return Some(("issuer", format!("has opaque tokens twice: `{}`", self.issuer)));
        }
        let (own, others) = (&self.settings.prefixes, &other.settings.prefixes);
        if own.is_empty() && others.is_empty() {
            let problem = format!(
                "is missing, as for `{}`: name the starts of the tokens of one of the issuers",
                other.issuer
            );
            return Some(("prefixes", problem));
        }
        let (one, two) = overlap(own, others)?;
        Some(("prefixes", format!("has `{one}`, and `{}` has `{two}`", other.issuer)))
    }
}

/// Returns the faults of all settings for opaque tokens. In mock mode there are none, because no token is
/// introspected.
pub(crate) fn faults(all: &[OpaqueTokens], config: &AuthConfig) -> Vec<Fault> {
    if config.mode == AuthMode::Mock {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (nth, tokens) in all.iter().enumerate() {
        let field = |field: &str| match &tokens.origin {
            Some(origin) => format!("{origin}.{field}"),
            None => format!("opaque_tokens[{nth}].{field}"),
        };
        let mut problems = tokens.faults(config);
        problems.extend(all.iter().take(nth).find_map(|other| tokens.conflict_with(other)));
        problems.extend(conflict_with_mock(&tokens.settings, config));
        faults.extend(problems.into_iter().map(|(name, problem)| Fault::new(field(name), problem)));
    }
    faults
}

fn conflict_with_mock(
    settings: &IntrospectionSettings,
    config: &AuthConfig,
) -> Option<(&'static str, String)> {
    let mock = std::slice::from_ref(&config.mock.token_prefix);
    let (one, _) = overlap(&settings.prefixes, mock).filter(|_| config.mode == AuthMode::Hybrid)?;
    Some(("prefixes", format!("has `{one}`, which mock tokens begin with, too")))
}
