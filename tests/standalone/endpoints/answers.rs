//! Compares exact answers with golden files.
//!
//! `UPDATE_GOLDEN=1` rewrites the files; review the difference before committing it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::{Auth, AuthConfig};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::env::{Setup, TestEnv, Visitor};
use crate::support::Answer;

/// Compares an answer with its file, after replacing random values.
#[track_caller]
fn golden(name: &str, answer: &Answer, env: &TestEnv) {
    const HEADERS: [&str; 9] = [
        "allow",
        "cache-control",
        "content-type",
        "location",
        "pragma",
        "retry-after",
        "www-authenticate",
        "x-auth-provenance",
        "access-control-allow-origin",
    ];
    let mut text = format!("{}\n", answer.status);
    for name in HEADERS {
        for value in answer.headers.get_all(name) {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
    }
    if !answer.body.is_empty() {
        let mut body = answer.json();
        replace_random_values(&mut body);
        body.sort_all_objects(); // Another crate may switch on `preserve_order` of serde_json.
        text += &format!("\n{}\n", serde_json::to_string_pretty(&body).unwrap());
    }
    let text = text.replace(&env.provider.issuer(), "https://scaikey.example");
    let path = Path::new("tests/standalone/endpoints/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}", path.display());
}

/// Replaces tokens and ids, which are random. Only their presence matters.
fn replace_random_values(body: &mut Value) {
    let named = ["access_token", "refresh_token", "participant_id", "workspace_id"];
    if let Some(data) = body.get_mut("data") {
        replace_random_values(data);
    }
    for name in named {
        if let Some(value) = body.get_mut(name) {
            assert!(value.as_str().is_some_and(|text| text.len() > 20), "{value}");
            *value = json!(format!("<{name}>"));
        }
    }
}

/// Returns the token of the example in the product's reference.
fn reference_token(env: &TestEnv) -> TokenBuilder {
    env.provider
        .token()
        .subject("9f1c")
        .tenant("tnt_acme_prod")
        .email("alice@acme.example")
        .claim("email_verified", true)
        .claim("name", "Alice Smith")
        .claim("partner_id", "ptn_acme")
        .scope("secrets:read secrets:write audit:read")
        .groups(["group:sre", "group:oncall"])
        .roles(["tenant_admin"])
        .claim("amr", json!(["pwd", "mfa"]))
        .claim("auth_time", 1_776_951_900)
        .claim("exp", 1_776_955_500)
}

/// Sets the clock to a time when the reference token is valid.
async fn env_at_reference_time() -> TestEnv {
    let env = TestEnv::new().await;
    env.clock.set_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_776_951_960));
    env
}

async fn whoami(visitor: &Visitor, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    visitor.send(Method::GET, "/v1/auth/whoami", &[("authorization", &bearer)], "").await
}

async fn introspect(visitor: &Visitor, own: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {own}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    visitor.send(Method::POST, "/v1/auth/introspect", &headers, &body.to_string()).await
}

#[tokio::test]
async fn whoami_matches_the_reference() {
    let env = env_at_reference_time().await;
    let answer = whoami(&env.visitor(), &reference_token(&env).sign()).await;
    golden("whoami-user", &answer, &env);
    let body = answer.json();
    let reference = json!({
        "identity_id": "user:alice@acme.example",
        "identity_type": "user",
        "display_name": "Alice Smith",
        "tenant_id": "tnt_acme_prod",
        "partner_id": "ptn_acme",
        "scopes": ["secrets:read", "secrets:write", "audit:read"],
        "groups": ["group:sre", "group:oncall"],
        "roles": ["tenant_admin"],
        "mfa_verified_at": "2026-04-23T13:45:00Z",
        "token_expires_at": "2026-04-23T14:45:00Z"
    });
    for (name, value) in reference.as_object().unwrap() {
        assert_eq!(body[name], *value, "{name}");
    }
}

#[tokio::test]
async fn whoami_omits_unknown_values_but_not_lists() {
    let env = env_at_reference_time().await;
    let service = env.provider.token().subject("indexer").claim("client_id", "indexer");
    let bare = ["preferred_username", "email", "name"]
        .into_iter()
        .fold(service, |token, name| token.without(name));
    let answer = whoami(&env.visitor(), &bare.sign()).await;
    golden("whoami-service", &answer, &env);
}

#[tokio::test]
async fn unverified_email_is_not_the_identity_id() {
    let env = env_at_reference_time().await;
    let unverified = reference_token(&env).claim("email_verified", false).sign();
    let body = whoami(&env.visitor(), &unverified).await.json();
    assert_eq!(body["identity_id"], "user:9f1c");
}

#[tokio::test]
async fn identity_ids_do_not_collide() {
    let env = env_at_reference_time().await;
    let visitor = env.visitor();
    let token = |subject: &str| {
        let token = env.provider.token().subject(subject);
        ["preferred_username", "email", "email_verified"]
            .iter()
            .fold(token, |token, name| token.without(name))
    };
    let verified = |subject, email| token(subject).email(email).claim("email_verified", true);
    let named = |subject, name| token(subject).claim("preferred_username", name);
    let service = |subject| token(subject).claim("client_id", subject);
    let address = "alice@acme.example";
    let ids = [
        // The owner of an address, and users with that text as their name or `sub`.
        (verified("1", address), "user:alice@acme.example"),
        (named("2", address), "user:2"),
        (token("3").email(address).claim("email_verified", false), "user:3"),
        (token(address), "user:alice%40acme.example"),
        (token("alice%40acme.example"), "user:alice%2540acme.example"),
        (service(address), "sa:alice@acme.example"),
        // A user name that is the `sub` of another user.
        (named("4", "5"), "user:4"),
        (token("5"), "user:5"),
        // Claimed addresses that are none.
        (verified("6", "5"), "user:6"),
        (verified("7", "@"), "user:7"),
        (verified("8", "alice@acme.example\n"), "user:8"),
        (verified("9", " alice@acme.example"), "user:9"),
        // Invisible characters.
        (token("alice\u{200b}"), "user:alice%E2%80%8B"),
        (token("sören"), "user:sören"),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (token, id) in ids {
        let body = whoami(&visitor, &token.sign()).await.json();
        assert_eq!(body["identity_id"], id, "{body}");
        assert!(seen.insert(id), "{id} occurs twice");
    }
}

#[tokio::test]
async fn introspection_matches_the_reference() {
    let env = env_at_reference_time().await;
    let visitor = env.visitor();
    let gateway = reference_token(&env).subject("gateway").scope("admin").sign();
    let reporting = env
        .provider
        .token()
        .subject("reporting-service")
        .claim("client_id", "reporting-service")
        .tenant("tnt_acme_prod")
        .scope("secrets:read")
        .claim("iat", 1_776_951_900)
        .claim("exp", 1_776_955_500);
    let answer =
        introspect(&visitor, &gateway, &json!({ "token": reporting.clone().sign() })).await;
    golden("introspect-active", &answer, &env);
    let form = format!("token={}", reporting.clone().sign());
    let headers = [
        ("authorization", &*format!("Bearer {gateway}")),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let by_form = visitor.send(Method::POST, "/v1/auth/introspect", &headers, &form).await;
    assert_eq!(by_form.body, answer.body);

    let inactive = introspect(&visitor, &gateway, &json!({ "token": "no token" })).await;
    golden("introspect-inactive", &inactive, &env);
    // The answer does not say what is wrong with the token.
    let good = || reporting.clone();
    for (what, token) in [
        ("expired", good().expired().sign()),
        ("of another audience", good().audience("other").sign()),
        ("of another tenant", good().tenant("tnt_other").sign()),
        ("of no tenant", good().without("tenant_id").sign()),
        ("of another issuer", good().issuer("https://evil.example").sign()),
        ("not yet good", good().not_before(Duration::from_secs(600)).sign()),
        ("an ID token", good().claim("nonce", "x").without("scope").without("client_id").sign()),
        ("cut", good().sign()[..100].to_owned()),
    ] {
        let answer = introspect(&visitor, &gateway, &json!({ "token": token })).await;
        assert_eq!((answer.status, &answer.body), (200, &inactive.body), "{what}");
    }
}

#[tokio::test]
async fn unauthorized_introspection_reveals_nothing() {
    let env = env_at_reference_time().await;
    let visitor = env.visitor();
    let good = reference_token(&env).sign();
    let introspection = json!({ "token": good });
    let answer = introspect(&visitor, &good, &introspection).await;
    golden("introspect-forbidden", &answer, &env);
    for scope in ["admin:read", "admin:*", "ADMIN", "tenant:admin", "*"] {
        let nearly = reference_token(&env).scope(scope).sign();
        assert_eq!(introspect(&visitor, &nearly, &introspection).await.status, 403, "{scope}");
    }
    let expired = reference_token(&env).scope("admin").expired().sign();
    assert_eq!(introspect(&visitor, &expired, &introspection).await.status, 401);
    let admin = reference_token(&env).scope("admin").sign();
    let answer = introspect(&visitor, &admin, &json!({})).await;
    golden("introspect-empty", &answer, &env);
}

#[tokio::test]
async fn token_answers_follow_oauth() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    let form = "grant_type=password&username=bob&password=hunter2";
    let answer = visitor.post_form("/v1/auth/token", form).await;
    golden("token", &answer, &env);
    let refresh_token = answer.json()["refresh_token"].as_str().unwrap().to_owned();
    let form = format!("refresh_token={refresh_token}");
    golden("refresh", &visitor.post_form("/v1/auth/refresh", &form).await, &env);
    let form = "grant_type=password&username=bob&password=wrong";
    golden("token-refused", &visitor.post_form("/v1/auth/token", form).await, &env);
    let answer = visitor.get("/v1/auth/token").await;
    golden("token-by-get", &answer, &env);
    let answer = visitor.get("/v1/auth/whoami").await;
    golden("whoami-unauthenticated", &answer, &env);
}

#[tokio::test]
async fn first_registration_is_201_later_ones_200() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    env.clock.set_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_776_951_960));
    let bearer = format!("Bearer {}", env.provider.token().sign());
    let bearer = [("authorization", bearer.as_str())];
    let register = || visitor.send(Method::POST, "/v1/auth/register", &bearer, "");
    let (first, second) = (register().await, register().await);
    golden("register-new", &first, &env);
    golden("register-known", &second, &env);
    assert_eq!(first.json(), second.json());
    let anonymous = visitor.send(Method::POST, "/v1/auth/register", &[], "").await;
    assert_eq!(anonymous.status, 401);
}

#[tokio::test]
async fn config_and_metadata_are_public() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    golden("config", &visitor.get("/v1/auth/config").await, &env);
    let metadata = visitor.get("/.well-known/oauth-protected-resource").await;
    golden("metadata", &metadata, &env);
    assert_eq!(
        metadata.json().get("scopes_supported"),
        None,
        "scopes of sign-ins are not published"
    );
    // The challenge names the metadata.
    let refused = visitor.get("/me").await;
    let challenge = refused.header("www-authenticate");
    let place = r#"resource_metadata="https://wave.example/.well-known/oauth-protected-resource""#;
    assert!(challenge.contains(place), "{challenge}");
}

#[tokio::test]
async fn answers_can_be_wrapped_in_an_envelope() {
    let setup = Setup::default().endpoints(|endpoints| {
        endpoints
            .wrap_in_data()
            .respond_with(scaikey_auth::error::Envelope::new("SW_AUTH_"))
            .identity_ids(|identity| format!("id:{}", identity.subject()))
    });
    let env = setup.build().await;
    let visitor = env.visitor();
    let form = "grant_type=password&username=bob&password=hunter2";
    golden("token-in-data", &visitor.post_form("/v1/auth/token", form).await, &env);
    golden("whoami-in-envelope", &visitor.get("/v1/auth/whoami").await, &env);
    let body = whoami(&visitor, &env.provider.token().sign()).await.json();
    assert_eq!(body["data"]["identity_id"], "id:alice-id");
    // Token requests always get OAuth errors.
    visitor.post_form("/v1/auth/refresh", "").await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn resource_scopes_are_published() {
    let config = |more: serde_json::Value| {
        let mut config = json!({
            "audience": ["wave"],
            "issuers": [{ "issuer": "https://id.example" }],
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<AuthConfig>(config).unwrap()
    };
    let variables = |pairs: &[(&str, &str)]| {
        let all = [("ISSUER", "https://id.example"), ("AUDIENCE", "wave")];
        let all = all.iter().chain(pairs);
        let all = all.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        Auth::from_config(AuthConfig::from_vars("P", all))
    };
    let resource = "https://wave.example";
    let in_code = Auth::from_config(config(json!({})));
    for auth in [
        in_code.resource(resource).resource_scopes("docs:read docs:write"),
        Auth::from_config(config(
            json!({ "resource": resource, "resource_scopes": "docs:read docs:write" }),
        )),
        variables(&[("RESOURCE", resource), ("RESOURCE_SCOPES", "docs:read docs:write")]),
    ] {
        let endpoints = auth.build().unwrap().endpoints().build().unwrap();
        let request = axum::http::Request::get("/.well-known/oauth-protected-resource");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = endpoints.service().oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 9999).await;
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        assert_eq!(body["scopes_supported"], json!(["docs:read", "docs:write"]));
    }
    let fault = |auth: scaikey_auth::AuthBuilder| auth.build().unwrap_err().to_string();
    let error = fault(variables(&[("RESOURCE_SCOPES", "docs:read")]));
    assert!(error.contains("P_RESOURCE_SCOPES"), "{error}");
    let error = fault(variables(&[("RESOURCE", resource), ("RESOURCE_SCOPES", "a\"b")]));
    assert!(error.contains("P_RESOURCE_SCOPES"), "{error}");
    let error =
        fault(Auth::from_config(config(json!({}))).resource(resource).resource_scopes("\""));
    assert!(error.contains("resource_scopes"), "{error}");
}
