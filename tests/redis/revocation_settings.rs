//! Processes that are configured by environment variables alone share revocations.

use std::time::Duration;

use axum::Router;
use http::Request;
use scaikey_auth::testing::{Provider, TestIssuer};
use scaikey_auth::{Auth, AuthConfig};
use serde_json::json;

use crate::support::process::{Program, job, ready};
use crate::support::{Server, Spy, eventually};

use super::fixture::OLD;
use super::server::Redis;

/// Returns the configuration of a service, as in its environment.
fn configuration(issuer: &str, redis: &str) -> AuthConfig {
    let variables = [
        ("ISSUER", issuer),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("ALGORITHMS", "RS256 ES256 Ed25519"),
        ("AUDIENCE", "scaiwave"),
        ("CLIENT_ID", "wave"),
        ("CLIENT_SECRET", "secret"),
        ("REDIS_URL", redis),
        ("CACHE_KEYS", OLD),
        ("BACKCHANNEL_LOGOUT", "true"),
        ("REVOCATION_LOG", "redis"),
    ];
    let variables = variables.map(|(name, value)| (format!("WAVE_{name}"), value.to_owned()));
    AuthConfig::from_vars("WAVE", variables)
}

async fn service(issuer: &str, redis: &str) -> (Auth, Server) {
    let config = configuration(issuer, redis);
    let auth = Auth::from_config(config.clone()).build().unwrap();
    auth.ready().await.unwrap();
    let endpoints = auth.endpoints().configured(&config).build().unwrap();
    let app: Router = Spy::default().app().layer(auth.layer()).layer(endpoints);
    let server = Server::axum(app).await;
    (auth, server)
}

fn logout_token(issuer: &TestIssuer, sid: &str) -> String {
    let event = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let token = issuer.token().without("tenant_id").without("preferred_username").without("email");
    let token = token.typ(Some("logout+jwt")).audience("wave").subject("alice").claim("sid", sid);
    token.claim("events", event).expires_in(Duration::from_secs(120)).sign()
}

async fn report(server: &Server, token: &str) -> u16 {
    let request = Request::post("/v1/auth/backchannel_logout");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    server.send(request.body(format!("logout_token={token}")).unwrap()).await.status
}

#[test]
#[ignore = "started by the test below, as a process of its own"]
fn child() {
    let Some(job) = job() else { return };
    let job: Vec<_> = job.split(' ').collect();
    let [issuer, url, token] = job[..] else { panic!("{job:?}") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (auth, server) = service(issuer, url).await;
        assert_eq!(server.get_as("/", token).await.status, 200);
        ready().await;
        eventually(async || server.get_as("/", token).await.status == 401).await;
        let error = auth.authenticate(token).await.unwrap_err();
        println!("child: {}", error.reason());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_counts_in_every_process() {
    let (redis, provider) = (Redis::start(), Provider::start().await);
    let (issuer, url) = (provider.issuer(), redis.url());
    let (_, here) = service(&issuer, url.expose()).await;
    let token = provider.token().subject("alice").claim("sid", "17").sign();
    assert_eq!(here.get_as("/", &token).await.status, 200);
    let job = format!("{issuer} {} {token}", url.expose());
    let mut there = Program::child("revocation_settings::child", job).await;
    there.go().await;
    assert_eq!(report(&here, &logout_token(&provider, "17")).await, 200);
    assert_eq!(here.get_as("/", &token).await.status, 401);
    assert_eq!(there.next_message().await, "token_revoked");
    // A process that starts after the report.
    let (_, late) = service(&issuer, url.expose()).await;
    assert_eq!(late.get_as("/", &token).await.status, 401);
    let other = provider.token().subject("alice").claim("sid", "18").sign();
    assert_eq!(late.get_as("/", &other).await.status, 200);
}
