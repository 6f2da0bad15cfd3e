//! Validation of ID tokens from a sign-in (OpenID Connect Core §3.1.3.7).

use std::time::Duration;

use aws_lc_rs::digest;

use super::jws::{Header, Jws, Typ, document};
use super::rules;
use super::verification::{Verification, finish};
use crate::clock::{Clock, unix_time};
use crate::config::{Algorithm, AuthConfig};
use crate::error::{AuthError, InvalidToken};
use crate::identity::{numeric_date, text};
use crate::issuer::{IssuerLookup, Issuers, SignatureCheck};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::json::Value;

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
    /// The nonce of the authorization request, if it had one.
    pub(crate) nonce: Option<&'a str>,
    /// The access token of the same response.
    pub(crate) access_token: &'a str,
}

/// Verifies the ID token of a sign-in. Waits for the issuer or its keys if necessary.
pub(crate) async fn verify_id_token(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    rules: &ExpectedIdToken<'_>,
) -> Result<(), AuthError> {
    finish(|| match verify(issuers, clock, token, rules) {
        Ok(verification) => verification,
        Err(fault) => Verification::Done(Err(fault.into())),
    })
    .await
}

fn verify(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    expected: &ExpectedIdToken<'_>,
) -> Result<Verification<()>, InvalidToken> {
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
    // If another claim than `aud` is compared, the audiences may be other clients.
    let is_own = |name: &str| {
        rules
            .clone()
            .all(|it| it.config.compares_only_aud() && it.audience.iter().any(|own| **own == *name))
    };
    let now = unix_time(clock.now());
    let leeway = rules.clone().map(|it| it.config.leeway).min().unwrap_or_default();
    check(claims, &header, expected, &is_own, now, leeway.as_secs_f64())?;
    let signature = jws.signature()?;
    let query = header.key_query(&issuer.name, &issuer.rules, clock.now());
    match issuer.keys.verify(&query, header.algorithm, jws.signed, &signature) {
        SignatureCheck::Verified(..) => {
            issuer.record_verified_token();
            let subject = text(claims.get("sub"), "sub")?.filter(|sub| !sub.is_empty());
            subject.ok_or(InvalidToken::MissingClaim("sub"))?;
            Ok(Verification::Done(Ok(())))
        }
        SignatureCheck::BadSignature(tried) => {
            Ok(Verification::needs_keys(&issuer, tried, InvalidToken::Signature))
        }
        SignatureCheck::WrongAlgorithm(tried) => {
            Ok(Verification::needs_keys(&issuer, tried, InvalidToken::Algorithm))
        }
        SignatureCheck::NoKey(tried) => {
            Ok(Verification::needs_keys(&issuer, tried, InvalidToken::Key))
        }
    }
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
    check_audience(claims, expected, is_own)?;
    let date = |name| numeric_date(claims.get(name), name)?.ok_or(InvalidToken::MissingClaim(name));
    let (expires, issued) = (date("exp")?, date("iat")?);
    if now >= expires + leeway {
        return Err(InvalidToken::Expired);
    }
    // Too old for this sign-in, or from the future.
    if now >= issued + MAX_AGE.as_secs_f64() + leeway || issued > now + leeway {
        return Err(InvalidToken::MalformedClaim("iat"));
    }
    if let Some(nonce) = expected.nonce {
        let claimed =
            text(claims.get("nonce"), "nonce")?.ok_or(InvalidToken::MissingClaim("nonce"))?;
        if !crypto::equal(claimed.as_bytes(), nonce.as_bytes()) {
            return Err(InvalidToken::MalformedClaim("nonce"));
        }
    }
    match text(claims.get("at_hash"), "at_hash")? {
        Some(claimed) if claimed != at_hash(expected.access_token, header.algorithm) => {
            Err(InvalidToken::MalformedClaim("at_hash"))
        }
        _ => Ok(()),
    }
}

/// Checks that the client is an audience (OpenID Connect Core §3.1.3.7, steps 3 to 5). Another audience must be
/// this service or trusted by name, because it could have requested the token for itself; then `azp` must say
/// that the client did. `azp`, if present, must always be the client.
fn check_audience(
    claims: Value<'_>,
    expected: &ExpectedIdToken<'_>,
    is_own: &dyn Fn(&str) -> bool,
) -> Result<(), InvalidToken> {
    let client_id = expected.client_id;
    let aud = claims.get("aud").ok_or(InvalidToken::MissingClaim("aud"))?;
    let is_client = |name: Value<'_>| name.as_str() == Some(client_id);
    let is_trusted = |name: Value<'_>| {
        let is_named = |name: &str| expected.trusted_audiences.iter().any(|it| it == name);
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
/// (OpenID Connect Core §3.1.3.6).
fn at_hash(access_token: &str, algorithm: Algorithm) -> String {
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
    use crate::support::json::Document;

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
        };
        let expected = ExpectedIdToken {
            issuer: "https://id.example",
            client_id: "app",
            trusted_audiences: &["trusted".to_owned()],
            nonce: Some("n-1"),
            access_token: "token",
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
}
