//! Forged tokens with ML-DSA (RFC 9964).

use aws_lc_rs::hmac;
use serde_json::Value;

use super::super::issuer::TestIssuer;
use super::super::keys::{SigningKey, base64url, signing_input};
use super::super::tokens::TokenBuilder;
use super::signatures::signed_with_mac;
use super::{Forged, ForgeryList};
use crate::config::Algorithm;

const SETS: [Algorithm; 3] = [Algorithm::MLDSA44, Algorithm::MLDSA65, Algorithm::MLDSA87];

/// Returns the tokens that a verifier which allows ML-DSA must reject in addition to
/// [`all`](super::all()).
///
/// Publishes a key of each parameter set if the issuer has none. A verifier that does not allow ML-DSA
/// rejects these tokens as well.
pub fn ml_dsa(issuer: &TestIssuer) -> Vec<Forged> {
    let mut list = ForgeryList::new(issuer);
    signatures(&mut list);
    parameter_sets(&mut list);
    names(&mut list);
    keys(&mut list);
    secrets(&mut list);
    list.forged
}

/// Builds a valid token with ML-DSA-65.
fn valid(list: &ForgeryList<'_>) -> TokenBuilder {
    list.issuer.token().algorithm(Algorithm::MLDSA65)
}

fn signatures(list: &mut ForgeryList<'_>) {
    let why = "the signature does not match";
    let length = "a signature has exactly the length of its parameter set (FIPS 204 §4)";
    let (key, header, payload) = valid(list).parts();
    let signed = signing_input(&header, &payload);
    let good = key.sign(signed.as_bytes());
    let cut = |length: usize| good.iter().take(length).copied().collect::<Vec<_>>();
    let flipped = |at: usize| {
        let change = |(nth, byte): (usize, &u8)| if nth == at { byte ^ 1 } else { *byte };
        good.iter().enumerate().map(change).collect::<Vec<_>>()
    };
    for (name, why, signature) in [
        ("ML-DSA-65 without a signature", length, Vec::new()),
        ("ML-DSA-65 signature of zeros", why, vec![0; good.len()]),
        ("ML-DSA-65 signature of ones", why, vec![0xff; good.len()]),
        ("ML-DSA-65 signature one byte short", length, cut(good.len() - 1)),
        ("ML-DSA-65 signature one byte long", length, [good.as_slice(), &[0]].concat()),
        ("ML-DSA-65 signature doubled", length, good.repeat(2)),
        ("ML-DSA-65 signature truncated to half", length, cut(good.len() / 2)),
        ("ML-DSA-65 signature truncated to that of ML-DSA-44", length, cut(2420)),
        ("ML-DSA-65 signature, commitment one bit off", why, flipped(0)),
        ("ML-DSA-65 signature, response one bit off", why, flipped(good.len() / 2)),
        ("ML-DSA-65 signature, hint one bit off", why, flipped(good.len() - 1)),
    ] {
        list.add(name, why, format!("{signed}.{}", base64url(signature)));
    }
    let changed = signing_input(&header, payload.replacen("alice", "admin", 1));
    list.add("ML-DSA-65, payload changed", why, format!("{changed}.{}", base64url(&good)));
    let changed = signing_input(format!("{header} "), &payload);
    list.add("ML-DSA-65, header changed", why, format!("{changed}.{}", base64url(&good)));
}

/// Adds tokens whose header names another parameter set than that of the key.
fn parameter_sets(list: &mut ForgeryList<'_>) {
    let why = "the header and the key must agree (RFC 8725 §3.1)";
    let [small, _, large] = SETS.map(|algorithm| list.issuer.key_for(algorithm));
    for (name, signer, named) in [
        ("ML-DSA-65 by the key for ML-DSA-44", &small, None),
        ("ML-DSA-65 by the key for ML-DSA-87", &large, None),
        ("ML-DSA-65 by the key for ML-DSA-44, kid of another", &small, Some(Algorithm::MLDSA65)),
        ("ML-DSA-65 by the key for ML-DSA-87, kid of another", &large, Some(Algorithm::MLDSA65)),
        ("ML-DSA-65 by a key for RS256", &list.issuer.key_for(Algorithm::RS256), None),
    ] {
        let kid = named.map_or_else(|| signer.clone(), |it| list.issuer.key_for(it));
        let (_, header, payload) = valid(list).kid(Some(kid.kid())).parts();
        list.add(name, why, signer.token(header, payload));
    }
    let key = list.issuer.key_for(Algorithm::MLDSA65);
    for (name, alg) in [
        ("RS256 by the key for ML-DSA-65", "RS256"),
        ("ML-DSA-44 by the key for ML-DSA-65", "ML-DSA-44"),
        ("ML-DSA-87 by the key for ML-DSA-65", "ML-DSA-87"),
    ] {
        list.add(name, why, valid(list).signed_by(&key).header("alg", alg).sign());
    }
}

fn names(list: &mut ForgeryList<'_>) {
    let exact = "algorithm names match exactly (RFC 7515 §4.1.1)";
    for name in [
        "alg ml-dsa-65",
        "alg MLDSA65",
        "alg ML-DSA",
        "alg ML-DSA-65-ES256",
        "alg HashML-DSA-65",
        "alg ML-DSA-65-ph",
        "alg AKP",
        "alg -49",
    ] {
        let alg = name.split(' ').nth(1).unwrap_or_default();
        list.add(name, exact, valid(list).header("alg", alg).sign());
    }
}

fn keys(list: &mut ForgeryList<'_>) {
    let why = "the key is not a key of the issuer";
    let known = list.issuer.key_for(Algorithm::MLDSA65);
    let attacker_key = SigningKey::with_kid(Algorithm::MLDSA65, known.kid());
    let signed = |list: &ForgeryList<'_>| valid(list).signed_by(&attacker_key);
    list.add("ML-DSA-65 by an unknown key with a known kid", why, signed(list).sign());
    list.add("ML-DSA-65 by an unknown key without kid", why, signed(list).kid(None).sign());
    let token = signed(list).header("jwk", attacker_key.jwk()).sign();
    list.add(
        "ML-DSA-65 with jwk in the header",
        "the header never supplies the key (RFC 8725 §3.10)",
        token,
    );
}

fn secrets(list: &mut ForgeryList<'_>) {
    let why = "an attacker can sign with a public key as the secret (RFC 8725 §2.1)";
    let key = list.issuer.key_for(Algorithm::MLDSA65);
    let jwk = key.jwk();
    let public = jwk.get("pub").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (_, header, payload) = valid(list).header("alg", "HS256").parts();
    for (name, secret) in [
        ("HS256 with an ML-DSA key", key.public_key()),
        ("HS256 with an ML-DSA key as text", public.into_bytes()),
        ("HS256 with an ML-DSA key as JWK", jwk.to_string().into_bytes()),
        ("HS256 with an ML-DSA key as PEM", key.public_pem().into_bytes()),
    ] {
        let token = signed_with_mac(hmac::HMAC_SHA256, &secret, &header, &payload);
        list.add(name, why, token);
    }
}
