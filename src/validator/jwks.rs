//! [`JwksValidator`]: signed JWTs, verified against the keys their issuer publishes.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::headers::Headers;
use super::judgement::{Judgement, settle};
use super::jws::{Header, Jws, document};
use super::verified::VerifiedTokens;
use super::{Credentials, TokenValidator, rules};
use crate::clock::{Clock, SystemClock};
use crate::config::{AuthConfig, ConfigError};
use crate::error::{AuthError, InvalidToken};
use crate::identity::{Identity, Provenance, Reading, TenantId};
use crate::issuer::{Found, Issuer, Issuers, KeySets, PerTenant, Verdict};
#[cfg(feature = "trust")]
use crate::support::json::Document;

/// Verifies signed JWTs (RFC 7519) against the published keys of their issuers (RFC 7517).
///
/// Usable by itself, without layer and tenants. What it checks, in this order, each before the next
/// costs anything: size and shape; header (algorithm, `typ`, no `crit`); `iss` is configured; `aud`
/// names this service; `exp`, `nbf`, `iat`; not an ID or refresh token; not bound to a key, unless
/// [allowed](Credentials::allow_bound); the tenant belongs to the issuer; the signature; the types of all
/// claims read.
///
/// A token that passed is [known](VerifiedTokens) from then on, and only what may have changed is
/// checked again: the time, its key, and its issuer.
///
/// *Not* checked: whether the token was revoked before it expired, and whether the tenant exists.
#[derive(Debug, Clone)]
pub struct JwksValidator {
    issuers: Issuers,
    clock: Arc<dyn Clock>,
    headers: Arc<Headers>,
    known: VerifiedTokens,
    max_token_bytes: usize,
}

impl JwksValidator {
    /// A validator for the issuers of `config`. Does no I/O.
    ///
    /// # Errors
    /// Every fault of the configuration at once; without an issuer and an audience there is no
    /// validator.
    pub fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// [`new`](Self::new) with a clock of your own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Self::through(config, Arc::new(KeySets::new(clock)))
    }

    /// With key sets that others use, too.
    pub(crate) fn through(
        config: &AuthConfig,
        key_sets: Arc<KeySets>,
    ) -> Result<Self, ConfigError> {
        let clock = key_sets.clock.clone();
        let issuers = Issuers::through(config, key_sets)?;
        Ok(Self {
            issuers,
            clock,
            headers: Arc::default(),
            known: VerifiedTokens::new(config.verified_tokens_bytes),
            max_token_bytes: config.max_token_bytes,
        })
    }

    /// The issuers trusted, to add, remove and watch.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// The tokens verified before, to watch and to flush.
    pub fn verified_tokens(&self) -> &VerifiedTokens {
        &self.known
    }

    /// Judges a token by what is at hand.
    fn judge(&self, presented: &Credentials<'_>) -> Judgement<Identity> {
        let error = match self.examine(presented) {
            Ok(judgement) => return judgement,
            // All else was decoded, which leaves no stray character in it: but for the signature of a token
            // that is refused for its claims before.
            Err(invalid @ InvalidToken::Malformed(_)) => match presented.check() {
                Err(stray) => stray,
                Ok(()) => invalid.into(),
            },
            Err(invalid) => invalid.into(),
        };
        Judgement::Final(Err(error))
    }

    /// A rule that may answer otherwise the next time must have its say in `known` too.
    fn examine(&self, presented: &Credentials<'_>) -> Result<Judgement<Identity>, InvalidToken> {
        let (token, allows_bound) = (presented.token_octets(), presented.allows_bound());
        // A token without end must not cost more than to see that.
        if token.len() > self.max_token_bytes {
            return Err(InvalidToken::Malformed("longer than the limit"));
        }
        let miss = match self.known.get(token, self.issuers.generation(), &*self.clock) {
            // Another caller, who judges proofs, may have come with it before.
            Ok(bound) if bound.confirmation().is_some() && !allows_bound => {
                return Err(InvalidToken::Unproven);
            }
            Ok(identity) => return Ok(Judgement::Final(Ok(identity))),
            Err(miss) => miss,
        };
        let now = self.clock.now();
        let jws = &Jws::split(token, self.max_token_bytes)?;
        let header = self.headers.read(jws)?;
        let document = document(jws.payload()?)?;
        let claims = document.root();
        let issuer = match self.issuers.find(rules::issuer(claims)?) {
            Found::Issuer(issuer) => issuer,
            Found::NotYet(of, tenant) => {
                // Whoever cannot make a token that is right but for its signature opens nothing.
                rules::check(claims, &header, of.rules(), Some(&tenant), now, allows_bound)?;
                let is_vouched = vouched(&of, &tenant, jws, &header, now)?;
                return Ok(Judgement::NeedsIssuer { of, tenant, is_vouched });
            }
            Found::Unknown => return Err(InvalidToken::Issuer),
        };
        let rules = &issuer.rules;
        let own = issuer.tenant.as_ref();
        let lifetime = rules::check(claims, &header, rules, own, now, allows_bound)?;
        let (lease, key_ends) = match verify(&issuer, jws, &header, now)? {
            Verdict::Verified(lease, key_ends) => (lease, key_ends),
            // Another key may have taken the place of the one that was named.
            Verdict::BadSignature(seen) => {
                return Ok(Judgement::keys(&issuer, seen, InvalidToken::Signature));
            }
            Verdict::WrongAlgorithm(seen) => {
                return Ok(Judgement::keys(&issuer, seen, InvalidToken::Algorithm));
            }
            Verdict::NoKey(seen) => return Ok(Judgement::keys(&issuer, seen, InvalidToken::Key)),
        };
        issuer.was_verified();
        // Beyond the key's end the token is verified anew, and finds that there is none.
        let lifetime = lifetime.at_most(key_ends);
        self.headers.remember(jws, &header);
        let reading = Reading {
            issuer: issuer.name.clone(),
            mapping: &rules.config.claims,
            provenance: Provenance::Verified,
            legacy_service_tokens: rules.config.legacy_service_tokens,
        };
        let identity = reading.identity(document)?;
        self.known.insert(miss, &identity, lifetime, lease, &*self.clock);
        Ok(Judgement::Final(Ok(identity)))
    }
}

fn verify(
    issuer: &Issuer,
    jws: &Jws<'_>,
    header: &Header,
    now: SystemTime,
) -> Result<Verdict, InvalidToken> {
    let signature = jws.signature()?;
    let query = header.key_query(&issuer.name, &issuer.rules, now);
    Ok(issuer.keys.verify(&query, header.algorithm, jws.signed, &signature))
}

/// Whether the signature shows that the tenant is not invented, though its issuer is not open.
fn vouched(
    of: &PerTenant,
    tenant: &TenantId,
    jws: &Jws<'_>,
    header: &Header,
    now: SystemTime,
) -> Result<bool, InvalidToken> {
    let (signature, name) = (jws.signature()?, of.name_of(tenant));
    let query = header.key_query(&name, of.rules(), now);
    Ok(of.vouches(tenant, &query, header.algorithm, jws.signed, &signature))
}

#[async_trait]
impl TokenValidator for JwksValidator {
    /// Every token of three parts; which issuer's it is, `iss` tells.
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.is_jws_shaped()
    }

    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        self.judge(presented).try_validate()
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        settle(|| self.judge(presented)).await
    }
}

/// What a token claims, read as strictly as that of a token that is verified; nothing is.
#[cfg(feature = "trust")]
pub(crate) fn unverified_claims(token: &str) -> Result<Document, InvalidToken> {
    document(Jws::split(token.as_bytes(), AuthConfig::default().max_token_bytes)?.payload()?)
}

/// Reads the claims of a JWT **without verifying anything**, for debugging and command-line
/// tools. The result says nothing about anybody: never base a decision on it.
///
/// # Errors
/// When the token is not of three parts or its payload does not fit `T`.
pub fn insecure_decode_claims<T: serde::de::DeserializeOwned>(
    token: &str,
) -> Result<T, InvalidToken> {
    let payload = Jws::split(token.as_bytes(), usize::MAX)?.payload()?;
    serde_json::from_slice(&payload).map_err(|_| InvalidToken::Malformed("claims"))
}
