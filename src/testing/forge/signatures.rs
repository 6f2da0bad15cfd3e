//! Forged algorithms and signatures.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::faults::BadKey;
use super::super::keys::{SigningKey, base64url, signing_input};
use super::ForgeryList;
use crate::config::Algorithm;

pub(super) fn add(list: &mut ForgeryList<'_>) {
    unsigned(list);
    symmetric(list);
    wrong_algorithm(list);
    wrong_key(list);
    wrong_signature(list);
}

fn unsigned(list: &mut ForgeryList<'_>) {
    let why = "an attacker can write an unsigned token (RFC 7518 §3.6)";
    for name in ["alg none", "alg None", "alg NONE", "alg nOnE"] {
        let alg = name.split(' ').nth(1).unwrap_or_default();
        let (_, header, payload) = list.valid().header("alg", alg).parts();
        list.add(name, why, format!("{}.", signing_input(header, payload)));
    }
    let (_, header, payload) = list.valid().kid(None).header("alg", "none").parts();
    list.add("alg none without kid", why, format!("{}.", signing_input(header, payload)));
    list.add("alg none with a signature", why, list.valid().header("alg", "none").sign());
    let (_, header, payload) = list.valid().parts();
    list.add("signature empty", why, format!("{}.", signing_input(header, payload)));
}

fn symmetric(list: &mut ForgeryList<'_>) {
    let why = "an attacker can sign with a public key as the secret (RFC 8725 §2.1)";
    let key = list.issuer.key_for(Algorithm::RS256);
    let der = key.public_der();
    let jwk = key.jwk();
    let n = jwk.get("n").and_then(Value::as_str).unwrap_or_default();
    let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(n).unwrap_or_default();
    for (name, secret) in [
        ("HS256 with the public key as PEM", pem(&der).into_bytes()),
        ("HS256 with the public key as PEM, no final newline", pem(&der).trim_end().into()),
        ("HS256 with the public key as DER", der),
        ("HS256 with the public key as PKCS #1", key.public_key()),
        ("HS256 with the modulus", modulus),
        ("HS256 with the modulus as text", n.into()),
        ("HS256 with the JWK", jwk.to_string().into_bytes()),
        ("HS256 with an empty secret", Vec::new()),
    ] {
        let (_, header, payload) = list.valid().header("alg", "HS256").parts();
        list.add(name, why, signed_with_mac(hmac::HMAC_SHA256, &secret, &header, &payload));
    }
    let (_, header, payload) = list.valid().header("alg", "HS512").parts();
    let token =
        signed_with_mac(hmac::HMAC_SHA512, pem(&key.public_der()).as_bytes(), &header, &payload);
    list.add("HS512 with the public key as PEM", why, token);
    let (_, header, payload) = list.valid().kid(Some(BadKey::KID)).header("alg", "HS256").parts();
    let token = signed_with_mac(hmac::HMAC_SHA256, &BadKey::SHARED_SECRET, &header, &payload);
    list.add(
        "HS256 with a secret from the key set",
        "an attacker can sign with a published secret",
        token,
    );
    let good = list.valid().header("alg", "HS256").sign();
    list.add("HS256 over an RSA signature", "MAC algorithms are not supported", good);
}

fn wrong_algorithm(list: &mut ForgeryList<'_>) {
    let agree = "the header and the key must agree (RFC 8725 §3.1)";
    let rsa = list.issuer.key_for(Algorithm::RS256);
    let ec = list.issuer.key_for(Algorithm::ES256);
    let token = list.valid().kid(Some(ec.kid())).sign();
    list.add("RS256 with the kid of an EC key", agree, token);
    let token = list.valid().signed_by(&ec).kid(Some(rsa.kid())).sign();
    list.add("ES256 with the kid of an RSA key", agree, token);
    let one = "a key is used with one algorithm (RFC 7517 §4.4)";
    for (name, other) in [
        ("PS256 by a key for RS256", Algorithm::PS256),
        ("RS384 by a key for RS256", Algorithm::RS384),
        ("RS512 by a key for RS256", Algorithm::RS512),
    ] {
        let (key, header, payload) = list.valid().header("alg", other.as_str()).parts();
        let signed = signing_input(header, payload);
        let signature = key.sign_as(other, signed.as_bytes());
        list.add(name, one, format!("{signed}.{}", base64url(signature)));
    }
    let exact = "algorithm names match exactly (RFC 7515 §4.1.1)";
    for name in ["alg rs256", "alg Rs256", "alg RS256K", "alg RS25", "alg ES256K", "alg RS1"] {
        let alg = name.split(' ').nth(1).unwrap_or_default();
        list.add(name, exact, list.valid().header("alg", alg).sign());
    }
    list.add("alg empty", exact, list.valid().header("alg", "").sign());
    list.add("alg with a space", exact, list.valid().header("alg", "RS256 ").sign());
    let typed = "alg is a required string (RFC 7515 §4.1.1)";
    for (name, alg) in [
        ("alg null", Value::Null),
        ("alg a number", 256.into()),
        ("alg a list", vec!["RS256"].into()),
    ] {
        list.add(name, typed, list.valid().header("alg", alg).sign());
    }
    let (key, _, payload) = list.valid().parts();
    list.add("alg missing", typed, key.token(format!(r#"{{"kid":"{}"}}"#, key.kid()), payload));
}

fn wrong_key(list: &mut ForgeryList<'_>) {
    let why = "the key is not a key of the issuer";
    for (name, algorithm) in [
        ("RS256 by an unknown key with a known kid", Algorithm::RS256),
        ("ES256 by an unknown key with a known kid", Algorithm::ES256),
    ] {
        let issuer_key = list.issuer.key_for(algorithm);
        let attacker_key = SigningKey::with_kid(algorithm, issuer_key.kid());
        list.add(name, why, list.valid().signed_by(&attacker_key).sign());
    }
    let attacker_key = SigningKey::generate(Algorithm::RS256);
    list.add("RS256 by an unknown key", why, list.valid().signed_by(&attacker_key).sign());
    let token = list.valid().signed_by(&attacker_key).kid(None).sign();
    list.add("RS256 by an unknown key without kid", why, token);
}

fn wrong_signature(list: &mut ForgeryList<'_>) {
    let why = "the signature does not match";
    let (key, header, payload) = list.valid().parts();
    let signed = signing_input(&header, &payload);
    let signature = key.sign(signed.as_bytes());
    let mut cut = signature.clone();
    cut.pop();
    let mut flipped = signature.clone();
    if let Some(first) = flipped.first_mut() {
        *first ^= 1;
    }
    for (name, signature) in [
        ("RS256 signature of zeros", vec![0; 256]),
        ("RS256 signature one byte short", cut),
        ("RS256 signature one byte long", [signature.as_slice(), &[0]].concat()),
        ("RS256 signature one bit off", flipped),
    ] {
        list.add(name, why, format!("{signed}.{}", base64url(signature)));
    }
    let changed = payload.replacen("alice", "admin", 1);
    let token = format!("{}.{}", signing_input(&header, changed), base64url(&signature));
    list.add("payload changed after signing", why, token);
    let token =
        format!("{}.{}", signing_input(format!("{header} "), &payload), base64url(&signature));
    list.add("header changed after signing", why, token);

    let (ec, header, payload) = list.issuer.token().algorithm(Algorithm::ES256).parts();
    let signed = signing_input(header, payload);
    let fixed = ec.sign(signed.as_bytes());
    for (name, why, signature) in [
        ("ES256 signature of zeros", "CVE-2022-21449: r = s = 0", vec![0; 64]),
        (
            "ES256 signature in DER",
            "the format is r ‖ s (RFC 7518 §3.4)",
            ec.sign_der(signed.as_bytes()),
        ),
        ("ES256 signature doubled", why, fixed.repeat(2)),
        ("ES256 signature truncated to half", why, fixed.iter().take(32).copied().collect()),
    ] {
        list.add(name, why, format!("{signed}.{}", base64url(signature)));
    }
}

pub(super) fn signed_with_mac(
    algorithm: hmac::Algorithm,
    secret: &[u8],
    header: &str,
    payload: &str,
) -> String {
    let signed = signing_input(header, payload);
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", base64url(tag))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for (nth, character) in text.chars().enumerate() {
        if nth > 0 && nth % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END PUBLIC KEY-----\n");
    pem
}
