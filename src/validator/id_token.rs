//! ID tokens: the provider's word on who signed in just now (OpenID Connect Core §3.1.3.7).

use std::time::Duration;

use aws_lc_rs::digest;

use super::judgement::{Judgement, settle};
use super::jws::{Header, Jws, Typ, document};
use super::rules;
use crate::clock::{Clock, unix_time};
use crate::config::{Algorithm, AuthConfig};
use crate::error::{AuthError, InvalidToken};
use crate::identity::{numeric_date, text};
use crate::issuer::{Found, Issuers, Verdict};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::json::Value;

/// It was made for the request that brought it.
const MAX_AGE: Duration = Duration::from_secs(600);

/// What an ID token must say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdTokenRules<'a> {
    /// Who was asked.
    pub(crate) issuer: &'a str,
    /// Who asked: the only audience there may be.
    pub(crate) client_id: &'a str,
    /// What was sent along, if anything was.
    pub(crate) nonce: Option<&'a str>,
    /// What came along.
    pub(crate) access_token: &'a str,
}

/// Judges the ID token of a sign-in; its `sub` if it holds. May wait for keys.
pub(crate) async fn verify_id_token(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    rules: &IdTokenRules<'_>,
) -> Result<String, AuthError> {
    settle(|| match judge(issuers, clock, token, rules) {
        Ok(judgement) => judgement,
        Err(invalid) => Judgement::Final(Err(invalid.into())),
    })
    .await
}

fn judge(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    wanted: &IdTokenRules<'_>,
) -> Result<Judgement<String>, InvalidToken> {
    let jws = Jws::split(token.as_bytes(), AuthConfig::default().max_token_bytes)?;
    let header = jws.header()?;
    let document = document(jws.payload()?)?;
    let claims = document.root();
    if rules::issuer(claims)? != wanted.issuer {
        return Err(InvalidToken::Issuer);
    }
    let issuer = match issuers.find(wanted.issuer) {
        Found::Issuer(issuer) => issuer,
        // The provider gave it to us itself.
        Found::NotYet(of, tenant) => {
            return Ok(Judgement::NeedsIssuer { of, tenant, is_vouched: true });
        }
        Found::Unknown => return Err(InvalidToken::Issuer),
    };
    if !issuer.rules.config.algorithms.contains(&header.algorithm) {
        return Err(InvalidToken::Algorithm);
    }
    let leeway = issuer.rules.config.leeway.as_secs_f64();
    check(claims, &header, wanted, unix_time(clock.now()), leeway)?;
    let signature = jws.signature()?;
    let query = header.key_query(&issuer.name, &issuer.rules, clock.now());
    match issuer.keys.verify(&query, header.algorithm, jws.signed, &signature) {
        Verdict::Verified(..) => {
            issuer.was_verified();
            let subject = text(claims.get("sub"), "sub")?.filter(|sub| !sub.is_empty());
            let subject = subject.ok_or(InvalidToken::MissingClaim("sub"))?;
            Ok(Judgement::Final(Ok(subject.to_owned())))
        }
        Verdict::BadSignature(seen) => Ok(Judgement::keys(&issuer, seen, InvalidToken::Signature)),
        Verdict::WrongAlgorithm(seen) => {
            Ok(Judgement::keys(&issuer, seen, InvalidToken::Algorithm))
        }
        Verdict::NoKey(seen) => Ok(Judgement::keys(&issuer, seen, InvalidToken::Key)),
    }
}

/// Every rule that needs no key; `now` and `leeway` in seconds.
fn check(
    claims: Value<'_>,
    header: &Header,
    wanted: &IdTokenRules<'_>,
    now: f64,
    leeway: f64,
) -> Result<(), InvalidToken> {
    // A type that is stated must be the expected one (RFC 8725 §3.11).
    if !matches!(header.typ, Typ::Absent | Typ::Jwt) || claims.get("events").is_some() {
        return Err(InvalidToken::Type);
    }
    audience(claims, wanted.client_id)?;
    let date = |name| numeric_date(claims.get(name), name)?.ok_or(InvalidToken::MissingClaim(name));
    let (expires, issued) = (date("exp")?, date("iat")?);
    if now >= expires + leeway {
        return Err(InvalidToken::Expired);
    }
    // Too old for the request that brought it, or from the future.
    if now >= issued + MAX_AGE.as_secs_f64() + leeway || issued > now + leeway {
        return Err(InvalidToken::MalformedClaim("iat"));
    }
    if let Some(nonce) = wanted.nonce {
        let told =
            text(claims.get("nonce"), "nonce")?.ok_or(InvalidToken::MissingClaim("nonce"))?;
        if !crypto::equal(told.as_bytes(), nonce.as_bytes()) {
            return Err(InvalidToken::MalformedClaim("nonce"));
        }
    }
    match text(claims.get("at_hash"), "at_hash")? {
        Some(told) if told != at_hash(wanted.access_token, header.algorithm) => {
            Err(InvalidToken::MalformedClaim("at_hash"))
        }
        _ => Ok(()),
    }
}

/// `aud` is the client and nobody else: others could have had the token made for themselves.
/// `azp`, if it is there, is the client, too.
fn audience(claims: Value<'_>, client_id: &str) -> Result<(), InvalidToken> {
    let aud = claims.get("aud").ok_or(InvalidToken::MissingClaim("aud"))?;
    let is_ours = |name: Value<'_>| name.as_str() == Some(client_id);
    let alone = match aud.is_list() {
        true => aud.children().next().is_some() && aud.children().all(is_ours),
        false => is_ours(aud),
    };
    if !alone {
        return Err(InvalidToken::Audience);
    }
    match text(claims.get("azp"), "azp")? {
        Some(azp) if azp != client_id => Err(InvalidToken::MalformedClaim("azp")),
        _ => Ok(()),
    }
}

/// The left half of the hash that belongs to the algorithm (OpenID Connect Core §3.1.3.6).
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

    fn judged(change: &str) -> Option<InvalidToken> {
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
        let wanted = IdTokenRules {
            issuer: "https://id.example",
            client_id: "app",
            nonce: Some("n-1"),
            access_token: "token",
        };
        check(document.root(), &header, &wanted, NOW, 60.0).err()
    }

    #[test]
    fn an_id_token_is_for_this_client_this_sign_in_and_this_token() {
        use InvalidToken::{Audience, Expired, MalformedClaim, MissingClaim, Type};
        let table = [
            ("{}", None),
            (r#"{"aud":["app"],"azp":null,"at_hash":null}"#, None),
            (r#"{"aud":null}"#, Some(MissingClaim("aud"))),
            (r#"{"aud":"App"}"#, Some(Audience)),
            (r#"{"aud":[]}"#, Some(Audience)),
            (r#"{"aud":["app","other"]}"#, Some(Audience)),
            (r#"{"aud":["app",7]}"#, Some(Audience)),
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
            assert_eq!(judged(change), expected, "{change}");
        }
    }

    #[test]
    fn at_hash_is_that_of_the_specification() {
        // OpenID Connect Core, appendix A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(at_hash(token, Algorithm::RS256), "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
