//! Forged claims: validly signed tokens with the wrong issuer, audience, time, type or binding.

use std::time::Duration;

use serde_json::{Value, json};

use super::ForgeryList;

const HOUR: u64 = 3600;

pub(super) fn add(list: &mut ForgeryList<'_>) {
    missing(list);
    issuers(list);
    audiences(list);
    times(list);
    types(list);
    other_kinds(list);
    bound(list);
}

fn missing(list: &mut ForgeryList<'_>) {
    for name in ["iss missing", "aud missing", "sub missing", "exp missing"] {
        let claim = name.split(' ').next().unwrap_or_default();
        list.add(name, "the claim is required", list.valid().without(claim).sign());
    }
}

fn issuers(list: &mut ForgeryList<'_>) {
    let why = "the issuer is compared byte for byte (RFC 8725 §3.8), and its URL is never fetched";
    let iss = list.issuer.issuer();
    for (name, value) in [
        ("iss with a slash", json!(format!("{iss}/"))),
        ("iss with a path", json!(format!("{iss}/evil"))),
        ("iss with a query", json!(format!("{iss}?x"))),
        ("iss with a fragment", json!(format!("{iss}#x"))),
        ("iss with a space", json!(format!("{iss} "))),
        ("iss with user information", json!(iss.replacen("://", "://evil@", 1))),
        ("iss in upper case", json!(iss.to_uppercase())),
        ("iss with another scheme", json!(iss.replacen("http:", "https:", 1))),
        ("iss truncated", json!(iss.get(..iss.len() - 1))),
        ("iss of another issuer", json!("https://issuer.example")),
        ("iss of the cloud metadata service", json!("http://169.254.169.254/")),
        ("iss a file URL", json!("file:///etc/passwd")),
        ("iss empty", json!("")),
        ("iss a list", json!([iss])),
        ("iss a number", json!(1)),
        ("iss null", Value::Null),
    ] {
        list.add(name, why, list.valid().claim("iss", value).sign());
    }
}

fn audiences(list: &mut ForgeryList<'_>) {
    let why = "a token for another service is not valid here (RFC 8725 §3.9)";
    let me = list.issuer.audience().to_owned();
    for (name, value) in [
        ("aud another service", json!("another")),
        ("aud other services", json!(["another", "third"])),
        ("aud in upper case", json!(me.to_uppercase())),
        ("aud longer", json!(format!("{me}-staging"))),
        ("aud truncated", json!(me.get(..me.len() - 1))),
        ("aud with a space", json!(format!("{me} "))),
        ("aud two in one string", json!(format!("{me} another"))),
        ("aud the issuer", json!(list.issuer.issuer())),
        ("aud empty", json!("")),
        ("aud an empty list", json!([])),
        ("aud a number", json!(1)),
        ("aud a list of a number", json!([1])),
        ("aud a list with a number", json!([me, 1])),
        ("aud a list of lists", json!([[me]])),
        ("aud an object", json!({ me.as_str(): true })),
        ("aud null", Value::Null),
    ] {
        list.add(name, why, list.valid().claim("aud", value).sign());
    }
}

fn times(list: &mut ForgeryList<'_>) {
    let now = list.issuer.unix_now();
    let over = "a token expires at exp plus at most 60 s of leeway (RFC 7519 §4.1.4)";
    list.add("expired", over, list.valid().expired().sign());
    list.add(
        "expired by exactly the leeway",
        over,
        list.valid().claim("exp", now.saturating_sub(60)).sign(),
    );
    list.add("exp zero", over, list.valid().claim("exp", 0).sign());
    let early = "a token is not valid before nbf (RFC 7519 §4.1.5)";
    let token = list.valid().not_before(Duration::from_secs(HOUR)).sign();
    list.add("not yet valid", early, token);
    let token = list.valid().claim("nbf", now + HOUR).claim("iat", now + HOUR);
    let token = token.claim("exp", now + 2 * HOUR).sign();
    list.add("from the future", early, token);
    let token = list.valid().claim("iat", now + HOUR).claim("exp", now + 2 * HOUR).sign();
    list.add("issued in the future", "the clock of the issuer or the claim is wrong", token);

    let date = "a time is a finite, non-negative number of seconds (RFC 7519 §2), here below 2^53";
    let (soon, past) = (now + HOUR, now.saturating_sub(HOUR));
    for (name, claim, value) in [
        ("exp a string", "exp", json!(soon.to_string())),
        ("exp null", "exp", Value::Null),
        ("exp true", "exp", json!(true)),
        ("exp a list", "exp", json!([soon])),
        ("exp 1e300", "exp", json!(1e300)),
        ("exp negative", "exp", json!(-1)),
        ("exp u64::MAX", "exp", json!(u64::MAX)),
        ("exp above 2^53", "exp", json!((1_u64 << 53) + 2)),
        ("nbf a string", "nbf", json!("9999999999")),
        ("nbf a string of the past", "nbf", json!(past.to_string())),
        ("nbf null", "nbf", Value::Null),
        ("nbf 1e300", "nbf", json!(1e300)),
        ("nbf negative", "nbf", json!(-1)),
        ("iat a string", "iat", json!(past.to_string())),
        ("iat null", "iat", Value::Null),
        ("iat 1e300", "iat", json!(1e300)),
        ("iat negative", "iat", json!(-1)),
    ] {
        list.add(name, date, list.valid().claim(claim, value).sign());
    }
    let (key, header, payload) = list.valid().without("exp").parts();
    let payload = payload.replacen('{', r#"{"exp":1e400,"#, 1);
    list.add("exp infinite", date, key.token(header, payload));
}

fn types(list: &mut ForgeryList<'_>) {
    let why = "a claim of the wrong type is malformed, not absent";
    for (name, claim, value) in [
        ("sub a number", "sub", json!(1)),
        ("sub null", "sub", Value::Null),
        ("sub a list", "sub", json!(["alice-id"])),
        ("tenant_id a number", "tenant_id", json!(1)),
        ("tenant_id a list", "tenant_id", json!(["tenant-1"])),
        ("tenant_id an object", "tenant_id", json!({})),
        ("scope a number", "scope", json!(1)),
        ("scope an object", "scope", json!({ "admin": true })),
        ("partner_id a number", "partner_id", json!(1)),
        ("client_id a number", "client_id", json!(1)),
        ("jti a number", "jti", json!(1)),
        ("sid a number", "sid", json!(1)),
    ] {
        list.add(name, why, list.valid().claim(claim, value).sign());
    }
    let why = "a required claim must not be empty";
    list.add("sub empty", why, list.valid().subject("").sign());
}

/// Adds tokens that the issuer signs for other purposes without a distinct `typ`.
fn other_kinds(list: &mut ForgeryList<'_>) {
    let id = "an ID token grants no access (RFC 9068 §5)";
    let token = || list.valid().without("tenant_id");
    let (nonce, hash) = (token().claim("nonce", "n-0S6_WzA2Mj"), token().claim("at_hash", "77Qm"));
    let code = token().claim("nonce", "n").claim("at_hash", "77Qm").claim("c_hash", "LDkt");
    let tenant = list.valid().claim("nonce", "n-0S6_WzA2Mj");
    list.add("ID token with nonce", id, nonce.sign());
    list.add("ID token with at_hash", id, hash.sign());
    list.add("ID token of the hybrid flow", id, code.sign());
    list.add("ID token with tenant", id, tenant.sign());
    let events = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let token = list.valid().claim("events", events).claim("sid", "s1").sign();
    list.add("logout token", "a security event token grants no access (RFC 8725 §3.12)", token);
}

fn bound(list: &mut ForgeryList<'_>) {
    let why = "a token bound to a key needs a proof of possession (RFC 7800 §3.1)";
    for (name, cnf) in [
        ("cnf jkt", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" })),
        ("cnf x5t#S256", json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" })),
        ("cnf of an unknown kind", json!({ "osc": "1" })),
        ("cnf empty", json!({})),
        ("cnf a string", json!("jkt")),
        ("cnf null", Value::Null),
    ] {
        list.add(name, why, list.valid().claim("cnf", cnf).sign());
    }
}
