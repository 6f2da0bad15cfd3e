//! Unusual but valid tokens.

use std::time::Duration;

use serde_json::json;

use super::super::issuer::TestIssuer;
use super::super::tokens::TokenBuilder;
use super::ValidToken;
use super::malformed::with_first_member;
use crate::config::Algorithm;

/// Returns tokens that a verifier with the default token profile must accept.
///
/// They include one token for each algorithm of the provider
/// ([`ProviderBuilder::algorithms`](super::super::ProviderBuilder::algorithms)). The verifier must
/// allow these algorithms.
pub fn valid(issuer: &TestIssuer) -> Vec<ValidToken> {
    let mut tokens = Vec::new();
    headers(issuer, &mut tokens);
    claims(issuer, &mut tokens);
    algorithms(issuer, &mut tokens);
    tokens.into_iter().map(|(name, token)| ValidToken { name, token }).collect()
}

/// Returns tokens that a verifier with the profile of RFC 9068 must accept.
pub fn rfc9068_valid(issuer: &TestIssuer) -> Vec<ValidToken> {
    let types = [
        ("RFC 9068: typ at+jwt", "at+jwt"),
        ("RFC 9068: typ AT+JWT", "AT+JWT"),
        ("RFC 9068: typ application/at+jwt", "application/at+jwt"),
    ];
    let tokens = types.map(|(name, typ)| (name, rfc9068_token(issuer).typ(Some(typ)).sign()));
    tokens.into_iter().map(|(name, token)| ValidToken { name, token }).collect()
}

/// Builds an access token with all members that RFC 9068 §2 requires.
pub(super) fn rfc9068_token(issuer: &TestIssuer) -> TokenBuilder {
    issuer.token().typ(Some("at+jwt")).claim("client_id", "web").scope("openid")
}

type NamedTokens = Vec<(&'static str, String)>;

fn headers(issuer: &TestIssuer, tokens: &mut NamedTokens) {
    let token = || issuer.token();
    for (name, typ) in [
        ("typ absent", None),
        ("typ JWT", Some("JWT")),
        ("typ jwt", Some("jwt")),
        ("typ at+jwt", Some("at+jwt")),
        ("typ AT+JWT", Some("AT+JWT")),
        ("typ application/at+jwt", Some("application/at+jwt")),
        ("typ application/jwt", Some("application/jwt")),
    ] {
        tokens.push((name, token().typ(typ).sign()));
    }
    tokens.extend([
        ("kid absent", token().kid(None).sign()),
        ("unknown parameter, an object", token().header("x", json!({ "a": [1] })).sign()),
        ("unknown parameter, a number", token().header("x", 1.5).sign()),
        ("unknown parameter, null", token().header("x", json!(null)).sign()),
        ("header of almost 4 KiB", token().header("x", "x".repeat(2800)).sign()),
    ]);
    let (key, header, payload) = token().parts();
    tokens.push(("white space", key.token(format!(" {header}\n"), format!("\t{payload}\r\n "))));
    let escaped = payload.replacen(r#""sub""#, r#""s\u0075b""#, 1);
    tokens.push(("a claim's name escaped", key.token(&header, escaped)));
    let nested = format!(r#""x":{}{}"#, "[".repeat(15), "]".repeat(15));
    tokens
        .push(("claims 16 levels deep", key.token(&header, with_first_member(&payload, &nested))));
}

fn claims(issuer: &TestIssuer, tokens: &mut NamedTokens) {
    let token = || issuer.token();
    let me = issuer.audience();
    let now = issuer.unix_now();
    tokens.extend([
        ("nothing unusual", token().sign()),
        ("service token", issuer.service_token("indexer").sign()),
        ("aud a string", token().claim("aud", me).sign()),
        ("aud a list", token().claim("aud", json!([me])).sign()),
        ("aud a list with others", token().claim("aud", json!(["another", me])).sign()),
        ("exp fractional", token().claim("exp", now as f64 + 1800.5).sign()),
        ("exp within the leeway", token().claim("exp", now.saturating_sub(30)).sign()),
        ("exp in ten years", token().expires_in(Duration::from_secs(315_360_000)).sign()),
        ("nbf now", token().claim("nbf", now).sign()),
        ("nbf within the leeway", token().claim("nbf", now + 30).sign()),
        ("iat within the leeway", token().claim("iat", now + 30).sign()),
        ("iat absent", token().without("iat").sign()),
        ("jti absent", token().without("jti").sign()),
        ("roles and groups empty", token().roles([""; 0]).groups([""; 0]).sign()),
        ("roles and groups", token().roles(["boss"]).groups(["group-eng"]).sign()),
        ("scope empty", token().scope("").sign()),
        ("unknown claims", token().claim("x", json!({ "y": [1, null, "z"] })).sign()),
        ("subject not ASCII", token().subject("ålice ☂").sign()),
        ("token of about 14 KiB", token().claim("x", "x".repeat(10_000)).sign()),
    ]);
}

fn algorithms(issuer: &TestIssuer, tokens: &mut NamedTokens) {
    for algorithm in issuer.algorithms() {
        tokens.push((algorithm.as_str(), issuer.token().algorithm(*algorithm).sign()));
        if *algorithm == Algorithm::Ed25519 {
            let token = issuer.token().algorithm(*algorithm).header("alg", "EdDSA").sign();
            tokens.push(("EdDSA", token));
        }
    }
}
