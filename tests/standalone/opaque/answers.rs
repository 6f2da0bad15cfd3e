//! Plain answers: their form, and the rules for an active token.

use std::time::{Duration, UNIX_EPOCH};

use scaikey_auth::clock::Clock;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use serde_json::{Value, json};

use super::{Introspection, answer, assert_unavailable, change, outcome, server};
use crate::support::Log;

#[tokio::test]
async fn issuer_describes_an_opaque_token() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let server = server(&auth).await;
    let token = it.token().subject("alice").scope("docs:read").tenant("acme").opaque("skt_");
    let answer = server.get_as("/", &token).await;
    let expected = json!({
        "sub": "alice", "iss": it.world.provider.issuer(), "kind": "user", "tenant": "acme",
        "scope": "docs:read", "provenance": "introspected",
    });
    assert_eq!((answer.status, answer.json()), (200, expected));

    let received = it.world.provider.received(ProviderEndpoint::Introspection);
    let [question] = &received[..] else { panic!("{} questions", received.len()) };
    assert_eq!(question.method, "POST");
    assert!(!question.target.contains("skt_") && !question.target.contains('?'));
    assert_eq!(question.headers["accept"], "application/json");
    assert_eq!(question.headers["content-type"], "application/x-www-form-urlencoded");
    assert!(question.headers["authorization"].to_str().unwrap().starts_with("Basic "));
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let form = [text("token", &token), text("token_type_hint", "access_token")];
    assert_eq!(question.form(), form);

    let unknown = server.get_as("/", "skt_unknown").await;
    assert_eq!((unknown.status, unknown.error().as_deref()), (401, Some("invalid_token")));
    assert_eq!(unknown.json()["type"], "urn:scaikey-auth:token_invalid");
    assert_eq!(outcome(&auth, "skt_unknown").await, "token_inactive");
}

#[tokio::test]
async fn active_token_must_pass_every_rule() {
    let it = Introspection::new().await;
    let now = it.world.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let thumbprint = "A".repeat(43);
    let (claim_missing, claim_malformed) = ("token_claim_missing", "token_claim_malformed");
    for (name, value, expected) in [
        ("iss", json!("https://other.example"), "token_issuer"),
        ("iss", json!(7), claim_malformed),
        ("iss", Value::Null, "active"),
        ("aud", json!("another-service"), "token_audience"),
        ("aud", json!(["another-service", "scaiwave"]), "active"),
        ("aud", json!(["another-service", 7]), claim_malformed),
        ("aud", Value::Null, claim_missing),
        ("exp", json!(now - 60), "token_expired"),
        ("exp", json!(now - 59), "active"),
        ("exp", json!("soon"), claim_malformed),
        ("exp", Value::Null, "active"),
        ("nbf", json!(now + 61), "token_not_yet_valid"),
        ("iat", json!(now + 61), "token_not_yet_valid"),
        ("token_type", json!("refresh_token"), "token_type"),
        ("token_type", json!("id_token"), "token_type"),
        ("token_type", json!("DPoP"), "token_unproven"),
        ("token_type", json!("access_token"), "active"),
        ("typ", json!("Refresh"), "token_type"),
        ("typ", json!("Bearer"), "active"),
        ("at_hash", json!("x"), "token_type"),
        ("events", json!({}), "token_type"),
        ("cnf", json!({ "jkt": thumbprint }), "token_unproven"),
        ("cnf", json!({ "x5t#S256": thumbprint }), "token_unproven"),
        ("cnf", json!({ "jwk": {} }), "token_unproven"),
        ("cnf", json!("x"), claim_malformed),
        ("sub", Value::Null, claim_missing),
        ("sub", json!(""), claim_missing),
        ("sub", json!(7), claim_malformed),
        ("jti", json!(7), claim_malformed),
        ("username", json!(7), claim_malformed),
        ("tenant_id", json!("no/tenant id"), claim_malformed),
    ] {
        let auth = it.auth();
        it.fail(change(name, &value));
        assert_eq!(outcome(&auth, &it.good()).await, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn only_boolean_active_is_an_answer() {
    let it = Introspection::new().await;
    let (auth, log) = (it.auth(), Log::start());
    let server = server(&auth).await;
    let token = it.good();
    let twice = r#"{"active":true,"active":true,"sub":"alice","aud":"scaiwave"}"#;
    for fault in [
        change("active", &json!("true")),
        change("active", &json!(1)),
        change("active", &json!({})),
        change("active", &Value::Null),
        answer(r#"{"active":null}"#),
        answer("[true]"),
        answer("{}"),
        answer(""),
        answer(twice),
        answer(r#"{"active":true,"sub":"alice","sub":"bob","aud":"scaiwave"}"#),
        answer(r#"{"active":true}{"#),
        Fault::garbage(),
        Fault::html(),
        Fault::Padded(300_000),
        Fault::EndlessBody,
        Fault::Redirect(it.world.provider.introspection_endpoint()),
        Fault::Status(204),
        Fault::Status(404),
    ] {
        it.fail(fault.clone());
        let answer = server.get_as("/", &token).await;
        assert_eq!(answer.status, 503, "{fault:?}");
        assert_unavailable(&answer);
    }
    it.heal();
    assert_eq!(server.get_as("/", &token).await.status, 200, "no failure is remembered");
    let text = log.text();
    assert!(text.contains("its answer has no boolean `active`"), "{text}");
    assert!(text.contains("opaque tokens can be checked again"), "{text}");
}

/// `active: false` may come with anything (RFC 7662 §2.2 recommends nothing else).
#[tokio::test]
async fn inactive_token_is_refused_whatever_follows() {
    let it = Introspection::new().await;
    let auth = it.auth();
    it.fail(answer(r#"{"active":false,"sub":"alice","aud":"scaiwave","exp":99999999999}"#));
    assert_eq!(outcome(&auth, &it.good()).await, "token_inactive");
}

#[tokio::test]
async fn relaxed_audience_still_compares_present_ones() {
    let it = Introspection::new().await;
    let log = Log::start();
    let auth = it.auth_with(it.settings().insecure_accept_missing_audience());
    assert!(log.text().contains("insecure_accept_missing_audience"));
    assert_eq!(outcome(&auth, &it.token().without("aud").opaque("skt_")).await, "active");
    for audience in [json!("another-service"), json!([]), json!({})] {
        let token = it.token().claim("aud", audience.clone()).opaque("skt_");
        assert_ne!(outcome(&auth, &token).await, "active", "{audience}");
    }
}

#[tokio::test]
async fn rules_of_the_issuer_apply() {
    let it = Introspection::new().await;
    let issuer = it
        .world
        .issuer()
        .audience_claims(["client_id"])
        .audience("the-client")
        .leeway(Duration::ZERO)
        .tenants(["acme".parse().unwrap()])
        .map_claims(|claims| claims.subject(["uid"]).tenant_id(["org"]));
    let auth = it.world.auth_with(issuer).opaque_tokens(it.settings()).build().unwrap();
    let token = || {
        let token = it.token().claim("uid", "u-7").claim("org", "acme");
        token.claim("client_id", "the-client").claim("aud", "else")
    };
    let caller = auth.authenticate(&token().opaque("skt_")).await.unwrap();
    assert_eq!(caller.identity().subject(), "u-7");
    assert_eq!(caller.tenant().unwrap().id().as_str(), "acme");
    let other = token().claim("org", "umbrella").opaque("skt_");
    assert_eq!(outcome(&auth, &other).await, "token_issuer_tenant");
    let other = token().claim("client_id", "another").opaque("skt_");
    assert_eq!(outcome(&auth, &other).await, "token_audience");
}

/// Many providers leave `sub` out of the answer about a client's own token.
#[tokio::test]
async fn client_becomes_service_account_by_name_only() {
    let it = Introspection::new().await;
    let token = || it.token().without("sub").claim("client_id", "batch");
    let strict = it.auth();
    assert_eq!(outcome(&strict, &token().opaque("skt_")).await, "token_claim_missing");
    let issuer = it.world.issuer().legacy_service_tokens(true);
    let auth = it.world.auth_with(issuer).opaque_tokens(it.settings()).build().unwrap();
    let server = server(&auth).await;
    let answer = server.get_as("/", &token().opaque("skt_")).await.json();
    assert_eq!((&answer["sub"], &answer["kind"]), (&json!("batch"), &json!("service_account")));
    let user = token().claim("username", "alice").opaque("skt_");
    assert_eq!(outcome(&auth, &user).await, "token_claim_missing", "it is a user's");
}
