//! Validation of ID tokens from a sign-in (OpenID Connect Core §3.1.3.7), and of those in sessions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_lc_rs::digest;

use super::jws::{Header, Jws, Typ, document};
use super::rules;
use super::verification::{Verification, finish};
use super::verified::VerifiedTokens;
use super::{Credentials, TokenValidator};
use crate::clock::{Clock, unix_time};
use crate::config::{Algorithm, AuthConfig};
use crate::error::{AuthError, InvalidToken};
use crate::identity::{Identity, Provenance, Reading, numeric_date, text};
use crate::issuer::{Issuer, IssuerLookup, Issuers, KeyLease, Rules};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::json::{Document, Value};
use crate::support::secret::Secret;
use crate::support::shake::shake256;

/// The maximum age of an ID token. The provider issues it during the sign-in, so an older token is from an
/// earlier sign-in.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The expected contents of an ID token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedIdToken<'a> {
    /// The `iss` of the provider that the sign-in was started at.
    pub(crate) issuer: &'a str,
    /// The client, which must be an audience.
    pub(crate) client_id: &'a str,
    /// The further audiences that are allowed, besides this service's own audiences for the issuer (if these
    /// are compared with `aud`).
    pub(crate) trusted_audiences: &'a [String],
    /// The response that the token came in. `None`: the response of a session, which was checked then.
    pub(crate) response: Option<TokenResponse<'a>>,
}

/// The response of the token endpoint that an ID token came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenResponse<'a> {
    /// The nonce of the authorization request, if it had one.
    pub(crate) nonce: Option<&'a str>,
    /// The access token.
    pub(crate) access_token: &'a str,
}

/// How and when the user authenticated, as a verified ID token says. A claim that cannot be read counts as absent.
#[derive(Debug)]
pub(crate) struct Authentication {
    pub(crate) acr: Option<String>,
    pub(crate) at: Option<SystemTime>,
}

impl Authentication {
    fn read(claims: Value<'_>) -> Self {
        let acr = text(claims.get("acr"), "acr").ok().flatten().map(str::to_owned);
        let at = numeric_date(claims.get("auth_time"), "auth_time").ok().flatten();
        let since = at.map(|seconds| Duration::from_secs(seconds as u64));
        Self { acr, at: since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)) }
    }
}

/// An ID token whose signature and claims are valid.
struct Verified {
    issuer: Arc<Issuer>,
    document: Document,
    lease: KeyLease,
    key_expiry: Option<SystemTime>,
}

/// Verifies the ID token of a sign-in, and returns how the user authenticated. Waits for the issuer or its keys if
/// necessary.
pub(crate) async fn verify_id_token(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    rules: &ExpectedIdToken<'_>,
) -> Result<Authentication, AuthError> {
    let read = |token: Verified| Ok(Authentication::read(token.document.root()));
    finish(|| verify(issuers, clock, token, rules, read)).await
}

/// The request extension of a session whose ID token names the user. Only the session layer inserts it, so a
/// caller cannot present an ID token in this way.
#[derive(Clone)]
pub(crate) struct SessionIdToken {
    /// The session's access token, which is in the request as well.
    pub(crate) access_token: Secret,
    pub(crate) id_token: Secret,
    pub(crate) validator: Arc<SessionIdTokens>,
}

/// The validator of the ID tokens of sessions. It has a cache of its own: a token in the cache of access tokens
/// would be accepted from every caller.
#[derive(Debug)]
pub(crate) struct SessionIdTokens {
    issuers: Issuers,
    clock: Arc<dyn Clock>,
    verified_tokens: VerifiedTokens,
    issuer: String,
    client_id: String,
    trusted_audiences: Vec<String>,
}

impl SessionIdTokens {
    /// Creates a validator of the ID tokens that `issuer` issues to a client.
    pub(crate) fn new(
        issuers: Issuers,
        clock: Arc<dyn Clock>,
        cache_bytes: usize,
        issuer: &str,
        client_id: &str,
        trusted_audiences: &[String],
    ) -> Self {
        Self {
            issuers,
            clock,
            verified_tokens: VerifiedTokens::new(cache_bytes),
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            trusted_audiences: trusted_audiences.to_vec(),
        }
    }

    /// Returns whether the issuer is one of the service's issuers.
    pub(crate) fn has_issuer(&self) -> bool {
        !matches!(self.issuers.find(&self.issuer), IssuerLookup::Unknown)
    }

    /// Returns whether these are the sessions of the service that has `issuers`. Each service has its own.
    pub(crate) fn is_of(&self, issuers: &Issuers) -> bool {
        self.issuers.is_same_as(issuers)
    }

    /// Verifies an ID token, and returns the user.
    pub(crate) async fn identity(&self, token: &str) -> Result<Identity, AuthError> {
        finish(|| self.verify(token)).await
    }

    /// Verifies the ID token of a renewal, which must belong to the access token of the same response.
    pub(crate) async fn renewed_identity(
        &self,
        token: &str,
        access_token: &str,
    ) -> Result<Identity, AuthError> {
        let response = TokenResponse { nonce: None, access_token };
        let rules = ExpectedIdToken { response: Some(response), ..self.rules() };
        verify_id_token(&self.issuers, &*self.clock, token, &rules).await?;
        self.identity(token).await
    }

    fn rules(&self) -> ExpectedIdToken<'_> {
        ExpectedIdToken {
            issuer: &self.issuer,
            client_id: &self.client_id,
            trusted_audiences: &self.trusted_audiences,
            response: None,
        }
    }

    fn verify(&self, token: &str) -> Verification<Identity> {
        let (generation, clock) = (self.issuers.generation(), &*self.clock);
        let miss = match self.verified_tokens.get(token.as_bytes(), generation, clock) {
            Ok(identity) => return Verification::Done(Ok(identity)),
            Err(miss) => miss,
        };
        let read = |token: Verified| {
            let Verified { issuer, document, lease, key_expiry } = token;
            let lifetime = rules::check_session(document.root(), &issuer, clock.now())?;
            let lifetime = lifetime.at_most(key_expiry);
            let reading = Reading {
                issuer: issuer.name.clone(),
                mapping: &issuer.rules.config.claims,
                provenance: Provenance::Verified,
                legacy_service_tokens: false,
                logged: Some(&issuer.rules.logged),
            };
            let identity = reading.identity(document)?.of_id_token();
            let identity = identity.with_valid_until(lifetime.ends());
            self.verified_tokens.insert(miss, &identity, lifetime, lease, clock);
            Ok(identity)
        };
        verify(&self.issuers, clock, token, &self.rules(), read)
    }
}

#[async_trait]
impl TokenValidator for SessionIdTokens {
    fn accepts(&self, _: &Credentials<'_>) -> bool {
        true
    }

    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        self.verify(presented.token()).try_finish()
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        self.identity(presented.token()).await
    }
}

/// Verifies an ID token with the cached keys, and reads a result from it.
fn verify<T>(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    expected: &ExpectedIdToken<'_>,
    read: impl FnOnce(Verified) -> Result<T, InvalidToken>,
) -> Verification<T> {
    let verification = match try_verify(issuers, clock, token, expected) {
        Ok(verification) => verification,
        Err(fault) => Verification::Done(Err(fault.into())),
    };
    verification.and_then(|verified| read(verified).map_err(AuthError::from))
}

fn try_verify(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    expected: &ExpectedIdToken<'_>,
) -> Result<Verification<Verified>, InvalidToken> {
    let jws = Jws::split(token.as_bytes(), AuthConfig::default().max_token_bytes)?;
    let header = jws.header()?;
    let document = document(jws.payload()?)?;
    let claims = document.root();
    if rules::issuer_of(claims)? != expected.issuer {
        return Err(InvalidToken::Issuer);
    }
    let issuer = match issuers.find(expected.issuer) {
        IssuerLookup::Found(issuer) => issuer,
        // The token came from the provider directly, so the tenant exists.
        IssuerLookup::NotOpen(template, tenant) => {
            return Ok(Verification::NeedsIssuer { template, tenant, is_vouched: true });
        }
        IssuerLookup::Unknown => return Err(InvalidToken::Issuer),
    };
    let rules = issuer.all_rules();
    if !rules.clone().all(|it| it.config.algorithms.contains(&header.algorithm)) {
        return Err(InvalidToken::Algorithm);
    }
    let is_own = |name: &str| is_own_audience(rules.clone(), name);
    let now = unix_time(clock.now());
    let leeway = rules.clone().map(|it| it.config.leeway).min().unwrap_or_default();
    check(claims, &header, expected, &is_own, now, leeway.as_secs_f64())?;
    let signature = jws.signature()?;
    let query = header.key_query(&issuer.name, &issuer.rules, clock.now());
    let subject = text(claims.get("sub"), "sub");
    let has_subject = subject.map(|sub| sub.is_some_and(|sub| !sub.is_empty()));
    let check = issuer.keys.verify(&query, header.algorithm, jws.signed, &signature);
    Verification::of_signature(check, &issuer, |lease, key_expiry| match has_subject? {
        true => Ok(Verified { issuer: issuer.clone(), document, lease, key_expiry }),
        false => Err(InvalidToken::MissingClaim("sub")),
    })
}

/// Checks every rule that needs no key. `is_own` returns whether a name is an audience of this service; `now`
/// and `leeway` are in seconds.
fn check(
    claims: Value<'_>,
    header: &Header,
    expected: &ExpectedIdToken<'_>,
    is_own: &dyn Fn(&str) -> bool,
    now: f64,
    leeway: f64,
) -> Result<(), InvalidToken> {
    // A stated type must be the expected one (RFC 8725 §3.11).
    if !matches!(header.typ, Typ::Absent | Typ::Jwt) || claims.get("events").is_some() {
        return Err(InvalidToken::Type);
    }
    check_audience(claims, expected.client_id, expected.trusted_audiences, is_own)?;
    let date = |name| numeric_date(claims.get(name), name)?.ok_or(InvalidToken::MissingClaim(name));
    let (expires, issued) = (date("exp")?, date("iat")?);
    if now >= expires + leeway {
        return Err(InvalidToken::Expired);
    }
    if issued > now + leeway {
        return Err(InvalidToken::MalformedClaim("iat"));
    }
    match expected.response {
        Some(response) => check_response(claims, header, &response, now - issued - leeway),
        None => Ok(()),
    }
}

/// Checks that the token is of this response, and not of an earlier one. `age` is in seconds.
fn check_response(
    claims: Value<'_>,
    header: &Header,
    response: &TokenResponse<'_>,
    age: f64,
) -> Result<(), InvalidToken> {
    if age >= MAX_AGE.as_secs_f64() {
        return Err(InvalidToken::MalformedClaim("iat"));
    }
    if let Some(nonce) = response.nonce {
        let claimed =
            text(claims.get("nonce"), "nonce")?.ok_or(InvalidToken::MissingClaim("nonce"))?;
        if !crypto::equal(claimed.as_bytes(), nonce.as_bytes()) {
            return Err(InvalidToken::MalformedClaim("nonce"));
        }
    }
    match text(claims.get("at_hash"), "at_hash")? {
        Some(claimed) if claimed != at_hash(response.access_token, header.algorithm) => {
            Err(InvalidToken::MalformedClaim("at_hash"))
        }
        _ => Ok(()),
    }
}

/// Returns whether a name is an audience of this service. If another claim than `aud` is compared, the audiences may be
/// other clients.
pub(super) fn is_own_audience<'r>(mut rules: impl Iterator<Item = &'r Rules>, name: &str) -> bool {
    rules.all(|it| it.config.compares_only_aud() && it.audience.iter().any(|own| **own == *name))
}

/// Checks that the client is an audience (OpenID Connect Core §3.1.3.7, steps 3 to 5). Another audience must be
/// this service or trusted by name, because it could have requested the token for itself; then `azp` must say
/// that the client did. `azp`, if present, must always be the client.
pub(super) fn check_audience(
    claims: Value<'_>,
    client_id: &str,
    trusted_audiences: &[String],
    is_own: &dyn Fn(&str) -> bool,
) -> Result<(), InvalidToken> {
    let aud = claims.get("aud").ok_or(InvalidToken::MissingClaim("aud"))?;
    let is_client = |name: Value<'_>| name.as_str() == Some(client_id);
    let is_trusted = |name: Value<'_>| {
        let is_named = |name: &str| trusted_audiences.iter().any(|it| it == name);
        name.as_str().is_some_and(|name| is_own(name) || is_named(name))
    };
    let (names_client, has_others, all_trusted) = match aud.is_list() {
        true => (
            aud.children().any(is_client),
            !aud.children().all(is_client),
            aud.children().all(|name| is_client(name) || is_trusted(name)),
        ),
        false => (is_client(aud), false, true),
    };
    if !names_client || !all_trusted {
        return Err(InvalidToken::Audience);
    }
    match text(claims.get("azp"), "azp")? {
        Some(azp) if azp != client_id => Err(InvalidToken::MalformedClaim("azp")),
        None if has_others => Err(InvalidToken::MissingClaim("azp")),
        _ => Ok(()),
    }
}

/// Computes `at_hash`: the left half of the access token's hash, with the hash function of the algorithm
/// (OpenID Connect Core §3.1.3.6). For Ed25519 that is SHA-512. For ML-DSA it is SHAKE256 with an output of 64
/// bytes, with which FIPS 204 hashes messages.
fn at_hash(access_token: &str, algorithm: Algorithm) -> String {
    if matches!(algorithm, Algorithm::MLDSA44 | Algorithm::MLDSA65 | Algorithm::MLDSA87) {
        return base64url::encode(shake256(access_token.as_bytes()));
    }
    let hash = match algorithm.as_str() {
        name if name.ends_with("256") => &digest::SHA256,
        name if name.ends_with("384") => &digest::SHA384,
        _ => &digest::SHA512,
    };
    let hash = digest::digest(hash, access_token.as_bytes());
    let (left, _) = hash.as_ref().split_at(hash.as_ref().len() / 2);
    base64url::encode(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 10_000.0;

    fn fault_with(change: &str) -> Option<InvalidToken> {
        let good = serde_json::json!({
            "iss": "https://id.example", "sub": "alice", "aud": "app", "iat": 9_990, "exp": 10_100,
            "nonce": "n-1", "at_hash": at_hash("token", Algorithm::ES256), "azp": "app",
        });
        let mut claims = good.as_object().unwrap().clone();
        for (name, value) in
            serde_json::from_str::<serde_json::Value>(change).unwrap().as_object().unwrap()
        {
            match value.is_null() {
                true => drop(claims.remove(name)),
                false => drop(claims.insert(name.clone(), value.clone())),
            }
        }
        let text = serde_json::Value::Object(claims).to_string();
        let document = Document::parse(text.as_bytes()).unwrap();
        let header = Header {
            algorithm: Algorithm::ES256,
            kid: None,
            certificate: Default::default(),
            typ: Typ::Jwt,
            has_other_members: false,
        };
        let expected = ExpectedIdToken {
            issuer: "https://id.example",
            client_id: "app",
            trusted_audiences: &["trusted".to_owned()],
            response: Some(TokenResponse { nonce: Some("n-1"), access_token: "token" }),
        };
        check(document.root(), &header, &expected, &|name| name == "own", NOW, 60.0).err()
    }

    #[test]
    fn id_token_must_match_the_sign_in() {
        use InvalidToken::{Audience, Expired, MalformedClaim, MissingClaim, Type};
        let table = [
            ("{}", None),
            (r#"{"aud":["app"],"azp":null,"at_hash":null}"#, None),
            (r#"{"aud":null}"#, Some(MissingClaim("aud"))),
            (r#"{"aud":"App"}"#, Some(Audience)),
            (r#"{"aud":[]}"#, Some(Audience)),
            (r#"{"aud":["app","other"]}"#, Some(Audience)),
            (r#"{"aud":["app",7]}"#, Some(Audience)),
            (r#"{"aud":["app","app"],"azp":null}"#, None),
            (r#"{"aud":["own","app"]}"#, None),
            (r#"{"aud":["app","trusted","own"]}"#, None),
            (r#"{"aud":["app","own"],"azp":null}"#, Some(MissingClaim("azp"))),
            (r#"{"aud":["app","own"],"azp":"own"}"#, Some(MalformedClaim("azp"))),
            (r#"{"aud":["app","own"],"azp":["app"]}"#, Some(MalformedClaim("azp"))),
            (r#"{"aud":["app","own","other"]}"#, Some(Audience)),
            (r#"{"aud":["app","own",null]}"#, Some(Audience)),
            (r#"{"aud":["app","OWN"]}"#, Some(Audience)),
            (r#"{"aud":["own","trusted"]}"#, Some(Audience)),
            (r#"{"aud":"own"}"#, Some(Audience)),
            (r#"{"aud":{"app":1}}"#, Some(Audience)),
            (r#"{"azp":"other"}"#, Some(MalformedClaim("azp"))),
            (r#"{"exp":null}"#, Some(MissingClaim("exp"))),
            (r#"{"iat":null}"#, Some(MissingClaim("iat"))),
            (r#"{"exp":9940}"#, Some(Expired)),
            (r#"{"exp":9941}"#, None),
            (r#"{"iat":9340}"#, Some(MalformedClaim("iat"))),
            (r#"{"iat":9341}"#, None),
            (r#"{"iat":10061}"#, Some(MalformedClaim("iat"))),
            (r#"{"nonce":null}"#, Some(MissingClaim("nonce"))),
            (r#"{"nonce":"n-2"}"#, Some(MalformedClaim("nonce"))),
            (r#"{"nonce":7}"#, Some(MalformedClaim("nonce"))),
            (r#"{"at_hash":"AAAAAAAAAAAAAAAAAAAAAA"}"#, Some(MalformedClaim("at_hash"))),
            (r#"{"events":{}}"#, Some(Type)),
        ];
        for (change, expected) in table {
            assert_eq!(fault_with(change), expected, "{change}");
        }
    }

    #[test]
    fn at_hash_matches_specification_example() {
        // OpenID Connect Core, appendix A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(at_hash(token, Algorithm::RS256), "77QmUPtjPfzWtF2AnpK9RQ");
    }

    #[test]
    fn at_hash_of_ml_dsa_is_shake256() {
        // b64encode(hashlib.shake_256(token).digest(64)[:32]) in Python.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        for algorithm in [Algorithm::MLDSA44, Algorithm::MLDSA65, Algorithm::MLDSA87] {
            assert_eq!(at_hash(token, algorithm), "W6Ie3EoycJT-JESJ2WSAWX7LRP3FuHvmvNycBMeL-Nk");
        }
    }
}
