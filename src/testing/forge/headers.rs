//! Forged JOSE headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::keys::SigningKey;
use super::ForgeryList;
use crate::config::Algorithm;

pub(super) fn add(list: &mut ForgeryList<'_>) {
    key_sources(list);
    critical(list);
    types(list);
    key_ids(list);
}

/// Adds tokens signed with a key that only their header names.
fn key_sources(list: &mut ForgeryList<'_>) {
    let why = "the header never supplies the key (RFC 8725 §3.10)";
    let attacker_key = SigningKey::generate(Algorithm::RS256);
    let issuer_key = list.issuer.key_for(Algorithm::RS256);
    // The provider counts a request to this URL as a stray request.
    let url = format!("{}/mallory.json", list.issuer.issuer());
    let certificate = STANDARD.encode(attacker_key.public_der());
    let signed = |list: &ForgeryList<'_>| list.valid().signed_by(&attacker_key);
    for (name, parameter, value) in [
        ("jwk in the header", "jwk", attacker_key.jwk()),
        ("jku in the header", "jku", url.as_str().into()),
        ("x5u in the header", "x5u", url.as_str().into()),
        ("x5c in the header", "x5c", json!([certificate])),
    ] {
        list.add(name, why, signed(list).header(parameter, value).sign());
    }
    let token = signed(list).kid(None).header("jwk", attacker_key.jwk()).sign();
    list.add("jwk in the header, no kid", why, token);
    let token = signed(list).kid(Some(issuer_key.kid())).header("jwk", attacker_key.jwk()).sign();
    list.add("jwk in the header, kid of the issuer", why, token);
    let token = signed(list).kid(Some(issuer_key.kid())).header("jku", url).sign();
    list.add("jku in the header, kid of the issuer", why, token);
}

/// Adds validly signed tokens with header parameters that the verifier does not support.
fn critical(list: &mut ForgeryList<'_>) {
    let why =
        "crit must be a list of header parameters that the verifier supports (RFC 7515 §4.1.11)";
    for (name, crit) in [
        ("crit of an unknown parameter", json!(["x"])),
        ("crit of an absent parameter", json!(["absent"])),
        ("crit of a claim", json!(["cnf"])),
        ("crit of a registered parameter", json!(["alg"])),
        ("crit empty", json!([])),
        ("crit a string", json!("x")),
        ("crit null", Value::Null),
        ("crit of a number", json!([1])),
        ("crit an object", json!({ "x": true })),
    ] {
        list.add(name, why, list.valid().header("x", "1").header("crit", crit).sign());
    }
    for (name, b64) in [("crit b64, b64 false", false), ("crit b64, b64 true", true)] {
        let token = list.valid().header("crit", json!(["b64"])).header("b64", b64).sign();
        list.add(name, "a JWT does not use the option b64 (RFC 7797 §7)", token);
    }
    for (name, cty) in [("cty JWT", "JWT"), ("cty jwt", "jwt")] {
        let token = list.valid().header("cty", cty).sign();
        list.add(name, "nested tokens are not supported (RFC 7519 §5.2)", token);
    }
    let token = list.valid().header("zip", "DEF").sign();
    list.add("zip", "compression is not supported (draft-ietf-oauth-rfc8725bis §3.15)", token);
}

/// Adds validly signed tokens of another kind.
fn types(list: &mut ForgeryList<'_>) {
    let why = "a token of another kind is not an access token (RFC 8725 §3.11)";
    for name in [
        "typ logout+jwt",
        "typ LOGOUT+JWT",
        "typ application/logout+jwt",
        "typ dpop+jwt",
        "typ secevent+jwt",
        "typ token-introspection+jwt",
        "typ client-authentication+jwt",
        "typ txntoken+jwt",
        "typ wit+jwt",
        "typ wpt+jwt",
        "typ oauth-id-jag+jwt",
        "typ oauth-authz-req+jwt",
        "typ entity-statement+jwt",
        "typ kb+jwt",
        "typ dc+sd-jwt",
        "typ id+jwt",
        "typ rt+jwt",
        "typ refresh+jwt",
        "typ Refresh",
        "typ text/at+jwt",
        "typ x+at+jwt",
    ] {
        let typ = name.split(' ').nth(1);
        list.add(name, why, list.valid().typ(typ).sign());
    }
    let typed = "a parameter of the wrong type is malformed, not absent";
    list.add("typ a number", typed, list.valid().header("typ", 1).sign());
    list.add("typ null", typed, list.valid().header("typ", Value::Null).sign());
    list.add("typ empty", why, list.valid().typ(Some("")).sign());
}

/// Adds tokens signed by the issuer with a wrong `kid`.
fn key_ids(list: &mut ForgeryList<'_>) {
    let opaque = "a kid is compared, never interpreted (RFC 8725 §3.10)";
    let issuer_key = list.issuer.key_for(Algorithm::RS256);
    let upper = issuer_key.kid().to_uppercase();
    let padded = format!("{} ", issuer_key.kid());
    let long = "k".repeat(10_000);
    let medium = "k".repeat(1000);
    for (name, kid) in [
        ("kid a relative path", "../../x"),
        ("kid an absolute path", "/dev/null"),
        ("kid SQL", "x' UNION SELECT 'key"),
        ("kid a URL", "http://169.254.169.254/"),
        ("kid empty", ""),
        ("kid in upper case", &upper),
        ("kid with a space", &padded),
        ("kid with a NUL", "k\0"),
        ("kid of 1000 bytes", &medium),
        ("kid of 10 kB", &long),
    ] {
        list.add(name, opaque, list.valid().kid(Some(kid)).sign());
    }
    let typed = "a parameter of the wrong type is malformed, not absent";
    for (name, kid) in [
        ("kid a number", json!(1)),
        ("kid null", Value::Null),
        ("kid a list", json!([issuer_key.kid()])),
        ("kid an object", json!({})),
    ] {
        list.add(name, typed, list.valid().header("kid", kid).sign());
    }
}
