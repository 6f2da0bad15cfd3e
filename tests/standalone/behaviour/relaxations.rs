//! Relaxed rules for tokens: other audience claims, and ID tokens as bearer tokens. Each accepts what it names
//! and nothing else.

use scaikey_auth::config::{Algorithm, TokenProfile};
use scaikey_auth::identity::ClaimTest;
use scaikey_auth::testing::{SigningKey, TokenBuilder, forge};
use scaikey_auth::{Auth, AuthConfig, IssuerConfig};
use serde_json::{Value, json};

use crate::support::{Log, Server, Spy, World, config};

async fn outcome(auth: &Auth, token: &TokenBuilder) -> &'static str {
    match auth.authenticate(&token.clone().sign()).await {
        Ok(_) => "accepted",
        Err(error) => error.reason(),
    }
}

fn fault_of(config: AuthConfig) -> String {
    Auth::from_config(config).build().unwrap_err().to_string()
}

/// An access token as Amazon Cognito issues it, with `client_id` and without `aud`.
fn cognito(world: &World) -> TokenBuilder {
    let token = world.provider.token().without("aud").claim("token_use", "access");
    token.claim("client_id", "scaiwave").claim("version", 2)
}

#[tokio::test]
async fn token_without_aud_needs_audience_claims() {
    let world = World::new().await;
    let strict = world.auth().build().unwrap();
    assert_eq!(outcome(&strict, &cognito(&world)).await, "token_claim_missing");
    let issuer = world.issuer().audience_claims(["aud", "client_id"]);
    let auth = world.auth_with(issuer).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    for _ in 0..2 {
        assert_eq!(server.get_as("/", &cognito(&world).sign()).await.status, 200);
    }
    for (change, value, expected) in [
        ("client_id", json!("another"), "token_audience"),
        ("client_id", json!(["scaiwave"]), "token_claim_malformed"),
        ("client_id", Value::Null, "token_claim_malformed"),
        ("aud", json!("another"), "token_audience"),
        ("aud", json!([]), "token_audience"),
        ("aud", Value::Null, "token_claim_malformed"),
        ("aud", json!(["another", "scaiwave"]), "accepted"),
        ("token_use", json!("id"), "token_type"),
        ("token_use", json!("refresh"), "token_type"),
    ] {
        let token = cognito(&world).claim(change, value.clone());
        assert_eq!(outcome(&auth, &token).await, expected, "{change} {value}");
    }
    let bare = cognito(&world).without("client_id").claim("azp", "scaiwave");
    assert_eq!(outcome(&auth, &bare).await, "token_claim_missing");
}

#[tokio::test]
async fn log_names_refused_audience_claim() {
    let world = World::new().await;
    let issuer = world.issuer().audience_claims(["/app/id", "azp"]);
    let auth = world.auth_with(issuer).build().unwrap();
    let log = Log::start();
    let token = world.provider.token().claim("azp", "the-other-client");
    assert_eq!(outcome(&auth, &token).await, "token_audience");
    assert_eq!(outcome(&auth, &token.without("azp")).await, "token_claim_missing");
    let text = log.text();
    for expected in [
        "the token's audience is not this service issuer=",
        "claim=azp",
        "the token has no audience claim issuer=",
        r#"claims=["/app/id", "azp"]"#,
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("the-other-client"), "{text}");
}

#[tokio::test]
async fn log_names_mark_of_other_token() {
    let world = World::new().await;
    let auth = world.auth_with(world.issuer()).build().unwrap();
    let token = || world.provider.token().without("scope").without("client_id");
    let signed_in = token().claim("nonce", "n-0S6_WzA2Mj");
    let log = Log::start();
    assert_eq!(outcome(&auth, &signed_in).await, "token_type");
    assert_eq!(outcome(&auth, &token().claim("at_hash", "n-0S6_WzA2Mj")).await, "token_type");
    assert_eq!(outcome(&auth, &token().claim("typ", "Refresh")).await, "token_type");
    // Access tokens of Keycloak before 25 have `nonce`, too.
    assert_eq!(outcome(&auth, &signed_in.claim("scope", "openid")).await, "accepted");
    let text = log.text();
    for mark in ["nonce", "at_hash", "typ"] {
        assert!(text.contains(&format!("mark=\"{mark}\"")), "{mark}: {text}");
    }
    assert!(!text.contains("n-0S6_WzA2Mj"), "{text}");
}

#[tokio::test]
async fn forged_tokens_stay_refused_with_audience_claims() {
    let world = World::with(Algorithm::ALL).await;
    let issuer = world.issuer().audience_claims(["aud", "client_id", "azp"]);
    let auth = world.auth_with(issuer).build().unwrap();
    for forged in forge::all(&world.provider) {
        let result = auth.authenticate(&forged.token).await;
        assert!(result.is_err(), "{}: accepted, although {}", forged.name, forged.why);
    }
}

#[test]
fn unusable_audience_claims_are_faults() {
    let fault = |issuer: Value| {
        let issuer = json!([{ "issuer": "https://id.example", "audience": ["me"] }, issuer]);
        fault_of(config(json!({ "issuers": issuer })))
    };
    let with = |claims: Value, profile: &str| {
        fault(json!({ "issuer": "https://two.example", "audience": ["me"],
            "audience_claims": claims, "profile": profile }))
    };
    let empty = with(json!([]), "lenient");
    assert!(empty.contains("issuers[1].audience_claims is empty: name the claim"), "{empty}");
    let strict = with(json!(["aud", "azp"]), "rfc9068");
    assert!(strict.contains("issuers[1].audience_claims must be `aud`"), "{strict}");
    let issuer = IssuerConfig::new("https://id.example").audience("me");
    let invalid = issuer.audience_claims(["aud", "/~", ""]);
    let error = Auth::builder().issuer(invalid).build().unwrap_err().to_string();
    assert!(error.contains("issuers[0].audience_claims entry 2: write a claim's name"), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
    let text = r#"{"issuers":[{"issuer":"https://a","audience_claims":["/~"]}]}"#;
    assert!(serde_json::from_str::<AuthConfig>(text).is_err());
    let unset = [("W_ISSUER", "https://id.example"), ("W_AUDIENCE", "me")];
    let vars = unset.into_iter().chain([("W_AUDIENCE_CLAIMS", "aud,/~")]);
    let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let error = fault_of(AuthConfig::from_vars("W", vars));
    assert!(error.contains("W_AUDIENCE_CLAIMS entry 2"), "{error}");
}

/// An ID token as Dex issues it.
fn id_token(world: &World) -> TokenBuilder {
    let token = world.provider.token().claim("at_hash", "77QmUPtjPfzWtF2AnpK9RQ");
    token.claim("nonce", "n-0S6_WzA2Mj").claim("email_verified", true)
}

fn accepts_id_tokens(world: &World) -> IssuerConfig {
    world.issuer().insecure_accept_id_tokens(true)
}

#[tokio::test]
async fn id_token_is_accepted_only_if_named() {
    let world = World::new().await;
    let strict = world.auth().build().unwrap();
    let auth = world.auth_with(accepts_id_tokens(&world)).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let base = || world.provider.token();
    for (token, what) in [
        (id_token(&world), "at_hash and nonce"),
        (base().claim("c_hash", "x"), "c_hash"),
        (base().claim("s_hash", "x"), "s_hash"),
        (base().claim("nonce", "x"), "nonce"),
        (base().claim("typ", "ID"), "typ"),
        (base().claim("token_use", "id"), "token_use"),
        (base().claim("token_type", "id_token"), "token_type"),
    ] {
        assert_eq!(outcome(&strict, &token).await, "token_type", "{what}");
        for _ in 0..2 {
            let answer = server.get_as("/", &token.clone().sign()).await;
            assert_eq!(answer.status, 200, "{what}");
        }
    }
}

#[tokio::test]
async fn near_misses_of_id_tokens_are_refused() {
    let world = World::new().await;
    let auth = world.auth_with(accepts_id_tokens(&world)).build().unwrap();
    for (token, expected) in [
        (id_token(&world).claim("aud", "another-client"), "token_audience"),
        (id_token(&world).without("aud"), "token_claim_missing"),
        (id_token(&world).without("aud").claim("azp", "scaiwave"), "token_claim_missing"),
        (id_token(&world).expired(), "token_expired"),
        (id_token(&world).issuer("https://other.example"), "token_issuer"),
        (id_token(&world).claim("typ", "Refresh"), "token_type"),
        (id_token(&world).claim("typ", "Offline"), "token_type"),
        (id_token(&world).claim("typ", "Logout"), "token_type"),
        (id_token(&world).claim("token_use", "refresh"), "token_type"),
        (id_token(&world).claim("token_type", "refresh_token"), "token_type"),
        (id_token(&world).claim("events", json!({})), "token_type"),
        (id_token(&world).typ(Some("logout+jwt")), "token_type"),
        (id_token(&world).typ(Some("dpop+jwt")), "token_type"),
        (
            id_token(&world)
                .claim("cnf", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" })),
            "token_unproven",
        ),
    ] {
        let what = token.clone().sign();
        assert_eq!(outcome(&auth, &token).await, expected, "{what}");
    }
}

/// Of all forged tokens, exactly the ID tokens are accepted.
#[tokio::test]
async fn other_forged_tokens_stay_refused() {
    let world = World::with(Algorithm::ALL).await;
    let auth = world.auth_with(accepts_id_tokens(&world)).tenant_optional().build().unwrap();
    for forged in forge::all(&world.provider) {
        let is_accepted = auth.authenticate(&forged.token).await.is_ok();
        assert_eq!(is_accepted, forged.name.starts_with("ID token"), "{}", forged.name);
    }
}

#[tokio::test]
async fn accepted_id_tokens_are_warned_about_once() {
    let world = World::new().await;
    for is_accepted in [false, true] {
        let issuer = world.issuer().insecure_accept_id_tokens(is_accepted);
        let log = Log::start();
        world.auth_with(issuer).build().unwrap();
        let warnings: Vec<_> = log.text().lines().map(str::to_owned).collect();
        let warnings: Vec<_> =
            warnings.iter().filter(|line| line.contains("insecure_accept_id_tokens")).collect();
        assert_eq!(warnings.len(), usize::from(is_accepted), "{warnings:?}");
        assert!(warnings.iter().all(|line| {
            line.contains("WARN")
                && line.contains(&format!("issuer=\"{}\"", world.provider.issuer()))
        }));
    }
}

#[test]
fn id_tokens_contradict_strict_profile() {
    let issuer = IssuerConfig::new("https://id.example").insecure_accept_id_tokens(true);
    assert!(Auth::builder().issuer(issuer.clone()).audience("me").build().is_ok());
    let issuer = issuer.profile(TokenProfile::Rfc9068);
    let error = Auth::builder().issuer(issuer).audience("me").build().unwrap_err().to_string();
    assert!(error.contains("issuers[0].insecure_accept_id_tokens has no effect with the profile"));
    let vars = [
        ("W_ISSUER", "https://id.example"),
        ("W_AUDIENCE", "me"),
        ("W_TOKEN_PROFILE", "rfc9068"),
        ("W_INSECURE_ACCEPT_ID_TOKENS", "true"),
    ];
    let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let error = fault_of(AuthConfig::from_vars("W", vars));
    assert!(error.contains("W_INSECURE_ACCEPT_ID_TOKENS has no effect"), "{error}");
}

#[tokio::test]
async fn access_token_must_pass_one_test() {
    let world = World::new().await;
    let tests = [ClaimTest::is_present("azp"), ClaimTest::equals("token_use", "access")];
    let issuer = || world.issuer().access_token(tests.clone());
    let auth = world.auth_with(issuer()).build().unwrap();
    let token = || world.provider.token();
    for (token, expected) in [
        (token(), "token_type"),
        (token().claim("azp", "web"), "accepted"),
        (token().claim("token_use", "access"), "accepted"),
        (token().claim("token_use", "other"), "token_type"),
        (token().claim("azp", "web").claim("at_hash", "x"), "token_type"),
    ] {
        assert_eq!(outcome(&auth, &token).await, expected);
    }
}

/// An ID token of version 2.0, by the code flow without nonce, of a client that has the id of this service
/// (<https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference>).
#[tokio::test]
async fn id_token_of_entra_is_refused() {
    const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
    let service = "6e74172b-be56-4843-9ff4-e66a39bb12e3";
    let key = SigningKey::generate(Algorithm::ES256);
    let id_token = json!({
        "ver": "2.0", "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "aud": service, "tid": TENANT,
        "oid": "00000000-0000-0000-66f3-3332eca7ea81", "preferred_username": "abeli@example.com",
        "name": "Abe Lincoln", "exp": 4_000_000_000_u64, "iat": 1_700_000_000, "uti": "x",
    });
    let header = json!({ "alg": key.algorithm(), "kid": key.kid(), "typ": "JWT" });
    let token = key.token(header.to_string(), id_token.to_string());
    for (accepts_id_tokens, is_accepted) in [(false, false), (true, true)] {
        let issuer = IssuerConfig::entra(TENANT).keys(&key.public_pem());
        let issuer = issuer.insecure_accept_id_tokens(accepts_id_tokens);
        let auth = Auth::builder().issuer(issuer).audience(service).build().unwrap();
        assert_eq!(auth.authenticate(&token).await.is_ok(), is_accepted);
    }
}

#[test]
fn unusable_tests_of_access_tokens_are_faults() {
    let fault = |issuer: IssuerConfig| {
        Auth::builder().issuer(issuer).audience("me").build().unwrap_err().to_string()
    };
    let issuer = || IssuerConfig::new("https://id.example");
    let invalid = issuer().access_token([ClaimTest::is_present("azp"), ClaimTest::equals("a", "")]);
    let error = fault(invalid);
    assert!(error.contains("issuers[0].access_token entry 2: write `claim`"), "{error}");
    let both =
        issuer().access_token([ClaimTest::is_present("azp")]).insecure_accept_id_tokens(true);
    let error = fault(both);
    assert!(error.contains("issuers[0].access_token has no effect with"), "{error}");
    let text = r#"{"issuers":[{"issuer":"https://a.example","access_token":[{"claim":"azp"}]}]}"#;
    let config: AuthConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.issuers[0].access_token, [ClaimTest::is_present("azp")]);
}
