//! [`JwksValidator`]: verifies signed JWTs against the keys that their issuers publish.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;

use super::encrypted::{self, Opened};
use super::groups::{GroupRequest, GroupSource, MonitoredSource};
use super::headers::HeaderCache;
use super::jws::{Header, Jws, document};
use super::rules::ValidityPeriod;
use super::verification::{Verification, finish};
use super::verified::{Miss, VerifiedTokens};
use super::{Credentials, TokenValidator, rules};
use crate::clock::{Clock, SystemClock};
use crate::config::{AuthConfig, ConfigError};
use crate::error::{AuthError, InvalidToken};
use crate::identity::{Identity, Provenance, Reading, TenantId};
use crate::issuer::{
    Issuer, IssuerLookup, IssuerTemplate, Issuers, KeyLease, KeySets, SignatureCheck,
};
#[cfg(feature = "trust")]
use crate::support::json::Document;
use crate::support::telemetry;

/// A validator of signed JWTs (RFC 7519), with the keys that their issuers publish (RFC 7517).
///
/// The validator can be used on its own, without the layer and without a tenant store. It checks a token in
/// this order, cheap rules first:
///
/// 1. size and shape; an encrypted token is decrypted with the keys of its issuer
///    ([`IssuerConfig::decrypt`](crate::IssuerConfig::decrypt)), and the token inside must pass all of the
///    following;
/// 2. the header: a known algorithm, no `crit`;
/// 3. `iss` is a configured issuer, which allows the algorithm and `typ`;
/// 4. `aud` names this service;
/// 5. `exp`, `nbf`, `iat`, and the maximum lifetime;
/// 6. the token is not an ID, refresh or logout token, and passes a
///    [test for access tokens](field@crate::IssuerConfig::access_token), if there are any; if it is bound to a
///    key, bound tokens are [allowed](Credentials::allow_bound);
/// 7. the claims that the [profile](crate::config::TokenProfile) requires; the tenant belongs to the issuer;
/// 8. the signature;
/// 9. the types of all claims that are read.
///
/// If the provider left the groups out of the token, the [`GroupSource`] of its issuer is asked for them.
///
/// A token that passed is [cached](VerifiedTokens). When it is presented again, only the time, its key and
/// its issuer are checked.
///
/// The validator does *not* check whether the token was [revoked](crate::revocation) before it expired, or whether
/// the tenant exists: [`Auth`](crate::Auth) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::testing::Provider;
/// use scaikey_auth::validator::Credentials;
/// use scaikey_auth::{AuthConfig, IssuerConfig, JwksValidator, TokenValidator};
///
/// let provider = Provider::start().await;
/// let mut config = AuthConfig::default();
/// config.issuers = vec![IssuerConfig::new(provider.issuer()).allow_loopback_http(true)];
/// config.audience = vec!["scaiwave".to_owned()];
/// let validator = JwksValidator::new(&config)?;
///
/// let token = provider.token().subject("alice").sign();
/// let alice = validator.validate(&Credentials::bearer(&token)).await?;
/// assert_eq!(alice.subject(), "alice");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct JwksValidator {
    issuers: Issuers,
    clock: Arc<dyn Clock>,
    headers: Arc<HeaderCache>,
    verified_tokens: VerifiedTokens,
    max_token_bytes: usize,
    /// Whether the issuer is a SPIFFE trust domain, found by `sub`.
    is_of_trust_domain: bool,
    /// The sources of groups, each with the `iss` of its issuer in the configuration.
    group_sources: Vec<(String, Arc<MonitoredSource>)>,
}

/// The result for a valid token.
enum Verified {
    Complete(Identity),
    /// The provider left the groups out of the token, and a source may return them.
    NeedsGroups(Box<WithoutGroups>),
}

/// A verified token without its groups, which is cached when it is complete.
struct WithoutGroups {
    source: Arc<MonitoredSource>,
    identity: Identity,
    miss: Option<Miss>,
    lifetime: ValidityPeriod,
    lease: KeyLease,
}

impl JwksValidator {
    /// Creates a validator for the issuers of `config`. Does no I/O.
    ///
    /// # Errors
    /// If the configuration is invalid. The error lists all faults. The configuration must name at least one
    /// issuer and one audience.
    pub fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// Creates a validator as [`new`](Self::new) does, with another clock.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Self::with_key_sets(config, Arc::new(KeySets::new(clock)))
    }

    /// Creates a validator that shares `key_sets` with others.
    pub(crate) fn with_key_sets(
        config: &AuthConfig,
        key_sets: Arc<KeySets>,
    ) -> Result<Self, ConfigError> {
        let clock = key_sets.clock.clone();
        let issuers = Issuers::with_key_sets(config, key_sets)?;
        Ok(Self {
            issuers,
            clock,
            headers: Arc::default(),
            verified_tokens: VerifiedTokens::new(config.verified_tokens_bytes),
            max_token_bytes: config.max_token_bytes,
            is_of_trust_domain: config.issuers.iter().any(|issuer| issuer.is_trust_domain),
            group_sources: Vec::new(),
        })
    }

    /// Sets the source of groups that `issuer` left out of a token, as
    /// [`AuthBuilder::group_source`](crate::AuthBuilder::group_source) does. *Not* checked: that there is such
    /// an issuer; without it, the source is never asked. The returned validator has a
    /// [cache of verified tokens](Self::verified_tokens) of its own, because the groups are in it.
    #[must_use]
    pub fn group_source(self, issuer: impl Into<String>, source: impl GroupSource) -> Self {
        self.with_group_source(issuer.into(), Arc::new(source))
    }

    pub(crate) fn with_group_source(
        mut self,
        issuer: String,
        source: Arc<dyn GroupSource>,
    ) -> Self {
        self.group_sources.retain(|(other, _)| *other != issuer);
        self.group_sources.push((issuer, Arc::new(MonitoredSource::new(source))));
        self.verified_tokens = VerifiedTokens::new(self.verified_tokens.stats().max_bytes);
        self
    }

    /// Returns the source of the groups of the issuer's users. It is found by the `iss` in the configuration:
    /// no claim of a token can choose it.
    fn group_source_of(&self, issuer: &Issuer) -> Option<Arc<MonitoredSource>> {
        let configured = issuer.template_rules.as_ref().unwrap_or(&issuer.rules).config.expected();
        let mut sources = self.group_sources.iter();
        sources.find(|(name, _)| name == configured).map(|(_, source)| source.clone())
    }

    /// Returns the trusted issuers, to add, remove and monitor them.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Returns the cache of verified tokens, to monitor and flush it.
    pub fn verified_tokens(&self) -> &VerifiedTokens {
        &self.verified_tokens
    }

    /// Verifies a token with the cached keys. An encrypted one is decrypted once, into `opened`.
    fn verify(
        &self,
        credentials: &Credentials<'_>,
        opened: &OnceLock<Opened>,
    ) -> Verification<Verified> {
        let error = match self.check(credentials, opened) {
            Ok(verification) => return verification,
            // Invalid characters are searched for only here: a token with one cannot be parsed. (If the
            // claims are refused, the signature is never decoded, and an invalid character in it is not
            // reported.)
            Err(fault @ (InvalidToken::Malformed(_) | InvalidToken::Decryption(_))) => {
                match credentials.check() {
                    Err(bad_syntax) => bad_syntax,
                    Ok(()) => fault.into(),
                }
            }
            Err(fault) => fault.into(),
        };
        Verification::Done(Err(error))
    }

    /// Applies all rules. A rule whose result may change over time must also be part of the check of a
    /// cached token, in [`VerifiedTokens`].
    fn check(
        &self,
        credentials: &Credentials<'_>,
        opened: &OnceLock<Opened>,
    ) -> Result<Verification<Verified>, InvalidToken> {
        let (token, allows_bound) = (credentials.token_bytes(), credentials.allows_bound());
        // Checked before the cache lookup, whose MAC costs more for a longer token.
        if token.len() > self.max_token_bytes && !self.may_be_longer(credentials) {
            return Err(InvalidToken::Malformed("the token is too long"));
        }
        let generation = self.issuers.generation();
        let miss = match self.verified_tokens.get(token, generation, &*self.clock) {
            // It may be in the cache because it was validated with bound tokens allowed.
            Ok(bound) if bound.confirmation().is_some() && !allows_bound => {
                return Err(InvalidToken::Unproven);
            }
            Ok(identity) => return Ok(Verification::Done(Ok(Verified::Complete(identity)))),
            Err(miss) => miss,
        };
        let now = self.clock.now();
        let opened = match credentials.is_jwe_shaped() {
            true => Some(self.opened(token, opened)?),
            false => None,
        };
        let token = opened.map_or(token, |opened| &opened.token);
        let jws = &Jws::split(token, self.max_token_bytes)?;
        let header = self.headers.get(jws)?;
        let document = document(jws.payload()?)?;
        let claims = document.root();
        let iss = match self.is_of_trust_domain {
            true => rules::trust_domain_of(claims)?,
            false => rules::issuer_of(claims)?,
        };
        let issuer = match self.issuers.find(iss) {
            IssuerLookup::Found(issuer) => issuer,
            IssuerLookup::NotOpen(template, tenant) => {
                encrypted::check(opened, std::iter::once(template.rules()), &*self.clock)?;
                // Checked first: only a token without other faults may cause a call of the resolver.
                rules::check(claims, &header, template.rules(), Some(&tenant), now, allows_bound)?;
                let is_vouched = is_vouched(&template, &tenant, jws, &header, now)?;
                return Ok(Verification::NeedsIssuer { template, tenant, is_vouched });
            }
            IssuerLookup::Unknown => {
                self.issuers.note_unknown(iss);
                return Err(InvalidToken::Issuer);
            }
        };
        encrypted::check(opened, issuer.all_rules(), &*self.clock)?;
        let rules = &issuer.rules;
        let own_tenant = issuer.tenant.as_ref();
        let mut lifetime = rules::check(claims, &header, rules, own_tenant, now, allows_bound)?;
        if let Some(rules) = &issuer.template_rules {
            let other = rules::check(claims, &header, rules, own_tenant, now, allows_bound)?;
            lifetime = lifetime.intersection(other);
        }
        let (lease, key_expiry) = match verify_signature(&issuer, jws, &header, now)? {
            SignatureCheck::Verified(lease, key_expiry) => (lease, key_expiry),
            // The issuer may have published another key with this key id.
            SignatureCheck::BadSignature(tried) => {
                return Ok(Verification::needs_keys(&issuer, tried, InvalidToken::Signature));
            }
            SignatureCheck::WrongAlgorithm(tried) => {
                return Ok(Verification::needs_keys(&issuer, tried, InvalidToken::Algorithm));
            }
            SignatureCheck::NoKey(tried) => {
                return Ok(Verification::needs_keys(&issuer, tried, InvalidToken::Key));
            }
        };
        issuer.record_verified_token();
        // When the key expires, the cached token is verified again, and refused.
        let lifetime = lifetime.at_most(key_expiry);
        self.headers.insert(jws, &header);
        // A resolver cannot relax the template.
        let legacy_service_tokens = issuer.all_rules().all(|it| it.config.legacy_service_tokens);
        let reading = Reading {
            issuer: issuer.name.clone(),
            mapping: &rules.config.claims,
            provenance: Provenance::Verified,
            legacy_service_tokens,
            logged: Some(&rules.logged),
        };
        let identity = reading.identity(document)?.with_valid_until(lifetime.ends());
        let has_overage = identity.has_group_overage();
        let source = if has_overage { self.group_source_of(&issuer) } else { None };
        let verified = match source {
            Some(source) => {
                let token = WithoutGroups { source, identity, miss, lifetime, lease };
                Verified::NeedsGroups(Box::new(token))
            }
            None => {
                if has_overage {
                    telemetry::groups_missing(&issuer.name, rules.logged.is_first("overage"));
                }
                self.verified_tokens.insert(miss, &identity, lifetime, lease, &*self.clock);
                Verified::Complete(identity)
            }
        };
        Ok(Verification::Done(Ok(verified)))
    }

    /// Returns whether a token that is too long for a signed one is an encrypted one that is not too long.
    fn may_be_longer(&self, credentials: &Credentials<'_>) -> bool {
        credentials.token_bytes().len() <= encrypted::max_encrypted(self.max_token_bytes)
            && credentials.is_jwe_shaped()
    }

    /// Returns the decrypted token. Decrypts it, if that was not done yet.
    fn opened<'o>(
        &self,
        token: &[u8],
        opened: &'o OnceLock<Opened>,
    ) -> Result<&'o Opened, InvalidToken> {
        match opened.get() {
            Some(opened) => Ok(opened),
            None => {
                let new =
                    encrypted::open(token, &self.issuers, self.max_token_bytes, &*self.clock)?;
                Ok(opened.get_or_init(|| new))
            }
        }
    }

    /// Caches a token whose groups are known now.
    fn insert(&self, token: WithoutGroups, complete: Identity) -> Identity {
        let WithoutGroups { miss, lifetime, lease, .. } = token;
        self.verified_tokens.insert(miss, &complete, lifetime, lease, &*self.clock);
        complete
    }
}

fn verify_signature(
    issuer: &Issuer,
    jws: &Jws<'_>,
    header: &Header,
    now: SystemTime,
) -> Result<SignatureCheck, InvalidToken> {
    let signature = jws.signature()?;
    let query = header.key_query(&issuer.name, &issuer.rules, now);
    Ok(issuer.keys.verify(&query, header.algorithm, jws.signed, &signature))
}

/// Returns whether a known key of the provider made the signature, so that the tenant exists although its
/// issuer is not open.
pub(super) fn is_vouched(
    template: &IssuerTemplate,
    tenant: &TenantId,
    jws: &Jws<'_>,
    header: &Header,
    now: SystemTime,
) -> Result<bool, InvalidToken> {
    let (signature, name) = (jws.signature()?, template.name_of(tenant));
    let query = header.key_query(&name, template.rules(), now);
    Ok(template.vouches(tenant, &query, header.algorithm, jws.signed, &signature))
}

#[async_trait]
impl TokenValidator for JwksValidator {
    /// Returns whether the token has the three parts of a signed token, or the five of an encrypted one. Its `iss` is
    /// checked later.
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.is_jwt_shaped()
    }

    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        let token = match self.verify(presented, &OnceLock::new()).try_finish()? {
            Ok(Verified::Complete(identity)) => return Some(Ok(identity)),
            Ok(Verified::NeedsGroups(token)) => token,
            Err(error) => return Some(Err(error)),
        };
        let request = GroupRequest::of(&token.identity, *presented);
        let complete = token.source.try_complete(&request, || self.clock.elapsed())?;
        Some(complete.map(|identity| self.insert(*token, identity)))
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        let opened = OnceLock::new();
        let token = match finish(|| self.verify(presented, &opened)).await? {
            Verified::Complete(identity) => return Ok(identity),
            Verified::NeedsGroups(token) => token,
        };
        let request = GroupRequest::of(&token.identity, *presented);
        let complete = token.source.complete(&request, || self.clock.elapsed()).await?;
        Ok(self.insert(*token, complete))
    }
}

/// Reads the claims of a token with the strict reader, **without verifying the token**.
#[cfg(feature = "trust")]
pub(crate) fn unverified_claims(token: &str) -> Result<Document, InvalidToken> {
    document(Jws::split(token.as_bytes(), AuthConfig::default().max_token_bytes)?.payload()?)
}

/// Reads claims without a token as [`unverified_claims`] reads those of a token.
#[cfg(feature = "trust")]
pub(crate) fn claims_document(claims: &str) -> Result<Document, InvalidToken> {
    document(claims)
}

/// Decodes the claims of a JWT **without verifying the token**, for debugging and command-line tools. Anyone
/// can write such a token: never base a decision on the result.
///
/// # Errors
/// If the token does not have three parts, if its header is too long, or if its payload is not base64url or
/// does not fit `T`.
pub fn insecure_decode_claims<T: serde::de::DeserializeOwned>(
    token: &str,
) -> Result<T, InvalidToken> {
    let payload = Jws::split(token.as_bytes(), usize::MAX)?.payload()?;
    serde_json::from_slice(&payload)
        .map_err(|_| InvalidToken::Malformed("the claims have the wrong type"))
}
