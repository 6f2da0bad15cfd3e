//! Signed answers (RFC 9701).

use std::time::{Duration, UNIX_EPOCH};

use scaikey_auth::Auth;
use scaikey_auth::clock::Clock;
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::{Fault, ProviderEndpoint, SigningKey, TokenBuilder};
use scaikey_auth::validator::SignedAnswers;
use serde_json::{Value, json};

use super::{Introspection, answer, outcome};
use crate::support::Log;

const TYPE: &str = "token-introspection+jwt";

fn required(it: &Introspection) -> Auth {
    it.auth_with(it.settings().signed_answers(SignedAnswers::Required))
}

/// Returns a good signed answer about any token.
fn signed(it: &Introspection) -> TokenBuilder {
    let now = it.world.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let members = json!({
        "active": true, "sub": "alice", "aud": "scaiwave", "tenant_id": "acme", "exp": now + 60,
    });
    let bare = ["sub", "exp", "scope", "client_id", "tenant_id", "jti"];
    let bare = bare.iter().fold(it.token(), |token, name| token.without(name));
    bare.typ(Some(TYPE)).audience("docs").claim("token_introspection", members)
}

fn body(token: TokenBuilder) -> Fault {
    Fault::Body("application/token-introspection+jwt", token.sign())
}

#[tokio::test]
async fn signed_answer_is_requested_and_verified() {
    let it = Introspection::new().await;
    let auth = required(&it);
    let caller = auth.authenticate(&it.token().subject("alice").opaque("skt_")).await.unwrap();
    assert_eq!(caller.identity().subject(), "alice");
    let claims: Value = caller.identity().claims().unwrap();
    assert_eq!((&claims["active"], claims.get("token_introspection")), (&json!(true), None));
    let received = it.world.provider.received(ProviderEndpoint::Introspection);
    assert_eq!(received[0].headers["accept"], "application/token-introspection+jwt");
    assert_eq!(outcome(&auth, "skt_unknown").await, "token_inactive");
}

#[tokio::test]
async fn plain_answer_is_refused_where_signed_required() {
    let it = Introspection::new().await;
    let (auth, log) = (required(&it), Log::start());
    it.fail(answer(r#"{"active":true,"sub":"alice","aud":"scaiwave"}"#));
    assert_eq!(outcome(&auth, &it.good()).await, "unavailable");
    it.fail(answer(r#" {"active":false}"#));
    assert_eq!(outcome(&auth, &it.good()).await, "unavailable");
    let text = log.text();
    assert!(text.contains("ERROR") && text.contains("is not signed"), "{text}");
}

#[tokio::test]
async fn forged_answers_are_no_answers() {
    let it = Introspection::new().await;
    let now = it.world.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let stranger = SigningKey::generate(Algorithm::ES256);
    let good = || signed(&it);
    let members = || json!({ "active": true, "sub": "alice", "aud": "scaiwave" });
    let table: Vec<(&str, TokenBuilder, bool)> = vec![
        ("good", good(), true),
        ("typ in capitals", good().typ(Some("application/Token-Introspection+JWT")), true),
        ("several audiences", good().claim("aud", json!(["other", "docs"])), true),
        ("for another client", good().audience("other"), false),
        ("for the API, not the client", good().audience("scaiwave"), false),
        ("no audience", good().without("aud"), false),
        ("another issuer", good().issuer("https://other.example"), false),
        ("no issuer", good().without("iss"), false),
        ("an access token", good().typ(Some("at+jwt")), false),
        ("a JWT", good().typ(Some("JWT")), false),
        ("no type", good().typ(None), false),
        ("another key", good().signed_by(&stranger), false),
        (
            "a key of the same name",
            good().signed_by(&stranger).kid(Some(&it.world.provider.kid())),
            false,
        ),
        ("old", good().claim("iat", now - 71), false),
        ("not too old", good().claim("iat", now - 69), true),
        ("from the future", good().claim("iat", now + 61), false),
        ("no time", good().without("iat"), false),
        (
            "members at the top",
            good().without("token_introspection").claim("active", true).subject("alice"),
            false,
        ),
        ("members as text", good().claim("token_introspection", members().to_string()), false),
        ("members in a list", good().claim("token_introspection", json!([members()])), false),
        ("no boolean", good().claim("token_introspection", json!({ "active": "true" })), false),
        ("critical header", good().header("crit", json!(["x"])), false),
    ];
    for signed in [SignedAnswers::Required, SignedAnswers::Accepted] {
        for (name, token, is_accepted) in &table {
            let auth = it.auth_with(it.settings().signed_answers(signed));
            it.fail(body(token.clone()));
            let expected = if *is_accepted { "active" } else { "unavailable" };
            assert_eq!(outcome(&auth, &it.good()).await, expected, "{name} {signed:?}");
        }
    }
}

/// The rules for tokens apply to the members inside, and not to those outside.
#[tokio::test]
async fn members_outside_mean_nothing() {
    let it = Introspection::new().await;
    let inactive = json!({ "active": false });
    let outside = signed(&it).claim("active", true).subject("alice").claim("exp", 1);
    it.fail(body(outside.clone()));
    assert_eq!(outcome(&required(&it), &it.good()).await, "active");
    it.fail(body(outside.clone().claim("token_introspection", inactive)));
    assert_eq!(outcome(&required(&it), &it.good()).await, "token_inactive");
    let foreign = json!({ "active": true, "sub": "alice", "aud": "docs", "tenant_id": "acme" });
    it.fail(body(outside.claim("token_introspection", foreign)));
    assert_eq!(outcome(&required(&it), &it.good()).await, "token_audience");
}

#[tokio::test]
async fn broken_signature_is_no_answer() {
    let it = Introspection::new().await;
    let token = signed(&it).sign();
    let cut = &token[..token.rfind('.').unwrap() + 1];
    for text in [cut.to_owned(), format!("{cut}AAAA"), token.replacen('.', "..", 1), "x".to_owned()]
    {
        it.fail(Fault::Body("application/token-introspection+jwt", text));
        assert_eq!(outcome(&required(&it), &it.good()).await, "unavailable");
    }
}

#[tokio::test]
async fn answers_signed_with_rotated_key_pass() {
    let it = Introspection::new().await;
    let auth = required(&it);
    assert_eq!(outcome(&auth, &it.good()).await, "active");
    it.world.provider.rotate();
    assert_eq!(outcome(&auth, &it.good()).await, "active");
    // Without the keys there is no answer, and the token may be good.
    it.world.provider.rotate();
    it.world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    it.world.clock.advance(Duration::from_secs(10));
    assert_eq!(outcome(&auth, &it.good()).await, "unavailable");
}
