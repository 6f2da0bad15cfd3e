//! Tokens and other secrets do not appear in logs, errors, `Debug` output or answers.

use scaikey_auth::error::{Challenge, InvalidToken};
use scaikey_auth::guard::GuardRequest;
use scaikey_auth::layer::{RequestHead, TenantSource, TokenSource};
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::{Client, Fault, ProviderEndpoint, TokenBuilder, User};
use scaikey_auth::validator::Credentials;
use scaikey_auth::{Auth, AuthConfig, AuthError, AuthMode, Secret, scope};
use serde_json::json;

use crate::support::Log;
use crate::support::{Server, Spy, World, config, request};

const CANARY: &str = "cAnArY-5up3r-53cr3t";

/// Returns a token with the canary in every claim that is not an identifier.
fn token(world: &World) -> TokenBuilder {
    let token = world.provider.token();
    ["email", "name", "preferred_username", "jti", "secret", "partner_id"]
        .iter()
        .fold(token, |token, name| token.claim(name, CANARY))
}

/// Returns the forbidden texts: each part of the token that differs between tokens, and the canary.
fn needles(token: &str) -> Vec<String> {
    let parts = token.split('.').skip(1).filter(|part| part.len() > 9);
    parts.chain([CANARY]).map(str::to_owned).collect()
}

fn assert_clean(text: &str, token: &str, place: &str) {
    for needle in needles(token) {
        assert!(!text.contains(&needle), "{place} contains {needle}: {text}");
    }
}

#[tokio::test]
async fn no_token_appears_in_logs_or_answers() {
    let log = Log::start();
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = Spy::default().app().layer(auth.require(scope("admin"))).layer(auth.layer());
    let server = Server::axum(app).await;
    let mut sent = Vec::new();
    let mut send = async |token: String, status: u16| {
        let answer = server.get_as("/", &token).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_clean(&format!("{answer:?}"), &token, "the answer");
        sent.push(token);
    };
    // The keys are unavailable, are being fetched, are cached, and then lack the token's key.
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    send(token(&world).sign(), 503).await;
    world.provider.heal(ProviderEndpoint::Jwks);
    world.clock.advance(std::time::Duration::from_secs(61));
    send(token(&world).scope("admin").sign(), 200).await;
    send(token(&world).scope("admin").sign(), 200).await;
    send(token(&world).sign(), 403).await;
    send(token(&world).kid(Some(CANARY)).sign(), 401).await;
    send(token(&world).expired().sign(), 401).await;
    send(token(&world).issuer(&format!("https://{CANARY}.example")).sign(), 401).await;
    send(token(&world).audience(CANARY).sign(), 401).await;
    send(token(&world).claim("exp", CANARY).sign(), 401).await;
    send(token(&world).without("tenant_id").sign(), 403).await;
    let mut tampered = token(&world).sign();
    tampered.truncate(tampered.len() - 4);
    send(tampered + "AAAA", 401).await;
    send(format!("{CANARY}.x"), 401).await;
    let text = log.text();
    assert!(text.contains("request refused") && text.contains("key set refreshed"), "{text}");
    for token in sent {
        assert_clean(&text, &token, "the log");
    }
}

#[tokio::test]
async fn no_public_type_prints_a_secret() {
    let world = World::new().await;
    let auth = world.auth().mode(AuthMode::Hybrid).insecure_allow_mock_in_production();
    let auth = auth.tenants(MemoryTenants::new()).tenant_optional();
    let token = token(&world).without("tenant_id").sign();
    let builder = format!("{auth:?}");
    let auth = auth.build().unwrap();
    let context = auth.authenticate(&token).await.unwrap();
    let refusal = auth.authenticate(&format!("{token}x")).await.unwrap_err();
    let guard = auth.require(scope("a"));
    let source = TokenSource::Custom(std::sync::Arc::new(|_| Ok(None)));
    let layer =
        auth.layer().tokens_from([source.clone()]).tenant_from(TenantSource::path("/{tenant_id}"));
    let file = config(json!({ "database_url": format!("postgres://u:{CANARY}@db/x") }));
    let vars = [("X_DATABASE_URL".to_owned(), format!("postgres://u:{CANARY}@db/x"))];
    let env = AuthConfig::from_vars("X", vars);
    let bearer = format!("Bearer {token}");
    let target = format!("/path?access_token={token}&code={CANARY}");
    let request = request("GET", &target, &[("authorization", &bearer), ("x-api-key", CANARY)]);
    let head = format!("{:?}", RequestHead::of(&request));
    assert!(head.contains("GET") && head.contains("/path"), "{head}");
    let extended = AuthError::from(InvalidToken::Unproven)
        .with_challenge(Challenge::new("DPoP"))
        .with_header("dpop-nonce".parse().unwrap(), CANARY.parse().unwrap());
    let extended = format!("{extended:?}");
    assert!(extended.contains("dpop-nonce") && extended.contains("DPoP"), "{extended}");
    let printed = [
        builder,
        head,
        format!("{:?}", GuardRequest::new(&request, &context, std::time::SystemTime::UNIX_EPOCH)),
        extended,
        format!("{auth:?} {context:?} {:?} {guard:?} {layer:?} {source:?}", context.identity()),
        format!("{:?}", context.identity().key()),
        format!("{refusal:?} {refusal} {}", refusal.public_message()),
        format!("{:?} {:?}", Credentials::bearer(&token), Secret::new(token.as_str())),
        format!("{file:?} {env:?}"),
        format!("{:?} {:?}", Auth::from_config(file.clone()), Auth::from_config(env.clone())),
        format!("{:?} {:?}", Client::new("c", CANARY), User::new("u", CANARY)),
        format!("{:?} {:?}", world.provider, world.provider.key()),
        format!("{:?}", auth.issuers().health()),
    ];
    for text in printed {
        assert_clean(&text, &token, "Debug");
    }
}

#[test]
fn configuration_faults_do_not_repeat_passwords() {
    let url = format!("https://user:{CANARY}@scaikey.example");
    let refused = Auth::builder().issuer(url.as_str()).audience("a").build().unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains(CANARY), "{refused}");
}

#[tokio::test]
async fn line_breaks_cannot_inject_headers() {
    let log = Log::start();
    let world = World::new().await;
    let auth = world.auth().tenants(MemoryTenants::new()).build().unwrap();
    let layer = auth
        .layer()
        .tenant_from(TenantSource::header(http::HeaderName::from_static("x-tenant-id")));
    let server = Server::axum(Spy::default().app().layer(layer)).await;
    const BREAK: &str = "x\r\nset-cookie: evil=1\r\n\r\n<script>";
    let mut tokens: Vec<_> =
        ["sub", "tenant_id", "iss", "aud", "scope", "roles", "exp", "client_id", "act"]
            .map(|name| world.provider.token().claim(name, BREAK))
            .to_vec();
    tokens.extend(
        ["kid", "typ", "alg", "cty"].map(|name| world.provider.token().header(name, BREAK)),
    );
    for token in tokens {
        let answer = server.get_as("/", &token.sign()).await;
        assert!(matches!(answer.status, 401 | 403), "{answer:?}");
        assert!(answer.headers.get("set-cookie").is_none());
        assert!(!answer.body.contains("evil") && !format!("{:?}", answer.headers).contains("evil"));
    }
    let good = format!("Bearer {}", world.provider.token().sign());
    let named = request("GET", "/", &[("authorization", &good), ("x-tenant-id", "evil")]);
    assert!(!format!("{:?}", server.send(named).await).contains("evil"));
    assert!(!log.text().contains("evil"), "{}", log.text());
}

#[tokio::test]
async fn cause_is_only_in_log() {
    let log = Log::start();
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(599));
    let auth = world.auth().build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!(answer.status, 503);
    assert!(!format!("{answer:?}").contains("599"));
    assert!(log.text().contains("599"), "{}", log.text());
}

/// The author of a wrongly assembled service must find the error in the log at its default level.
#[tokio::test]
async fn missing_layer_log_names_the_remedy() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let handler = |_: scaikey_auth::Identity| async {};
    let always = |_: &scaikey_auth::AuthContext| Ok(());
    for app in [
        axum::Router::new().fallback(axum::routing::any(handler)),
        Spy::default().app().layer(auth.require(always)),
    ] {
        let log = Log::start();
        let server = Server::axum(app).await;
        assert_eq!(server.get("/", &[]).await.status, 500);
        let text = log.text();
        let line = text.lines().find(|line| line.contains("ERROR"));
        assert!(line.is_some_and(|line| line.contains(".layer(auth.layer())")), "{text}");
    }
}
