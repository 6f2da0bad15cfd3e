//! A log of used tokens that all processes share.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use scaikey_auth::clock::Clock;
use scaikey_auth::endpoints::Endpoints;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::RedisCache;
use scaikey_auth::identity::Scopes;
use scaikey_auth::replay::{ReplayKey, ReplayLog};
use scaikey_auth::testing::conformance::replay_log;
use scaikey_auth::testing::{Client, ManualClock, Provider, TokenBuilder};
use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
use scaikey_auth::{Auth, AuthConfig};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::fixture::{OLD, redis};
use super::server::Redis;
use crate::support::{File, eventually};

fn policy(cluster: &Provider) -> String {
    format!(
        r#"
        [[trust]]
        id = "k8s"
        issuer = "{}"
        allow_loopback_http = true
        audiences = ["scaivault"]
        single_use_jti = true
        [[trust.grant]]
        name = "reporting"
        subject = "system:serviceaccount:reports:reporter"
        map = {{ identity = "sa:reporter", tenant = "tnt_acme", scopes = ["secrets:read"] }}
        "#,
        cluster.issuer()
    )
}

fn trusts(cluster: &Provider, log: impl ReplayLog) -> TrustEvaluator {
    let policy = TrustPolicy::from_toml(&policy(cluster)).unwrap();
    TrustEvaluator::builder().policy(policy).replay_log(log).build().unwrap()
}

fn log(server: &Redis) -> RedisCache {
    redis(&server.url())
}

fn pod(cluster: &Provider) -> TokenBuilder {
    let token = cluster.token().audience("scaivault");
    token.subject("system:serviceaccount:reports:reporter").without("tenant_id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_one_of_many_uses_is_first() {
    let (server, cluster) = (Redis::start(), Provider::start().await);
    // Each has its own connection, so only the server is shared.
    let processes: Vec<_> = (0..4).map(|_| trusts(&cluster, log(&server))).collect();
    for _ in 0..50 {
        let token = pod(&cluster).sign();
        let mut callers = JoinSet::new();
        for nth in 0..40 {
            let (trusts, token) = (processes[nth % 4].clone(), token.clone());
            callers.spawn(async move {
                let none = Scopes::new();
                trusts.evaluate(&token, None, &none).await.map_err(|it| it.reason().as_str())
            });
        }
        let outcomes = callers.join_all().await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let replayed = outcomes.iter().filter(|it| matches!(it, Err("replayed"))).count();
        assert_eq!((won, replayed), (1, 39), "{outcomes:?}");
    }
}

#[tokio::test]
async fn unavailable_server_denies_every_token() {
    let (mut server, cluster) = (Redis::start(), Provider::start().await);
    let trusts = trusts(&cluster, redis(&server.url()).write_timeout(Duration::from_millis(500)));
    let why = async || {
        // Without a time limit the call would hang with the server.
        let outcome = trusts.evaluate(&pod(&cluster).sign(), None, &Scopes::new()).await;
        outcome.map(drop).map_err(|denied| (denied.reason().as_str(), denied.code()))
    };
    let unavailable = Err(("unavailable", "temporarily_unavailable"));
    eventually(async || why().await == Ok(())).await;
    server.pause();
    for _ in 0..5 {
        assert_eq!(why().await, unavailable);
    }
    server.resume();
    eventually(async || why().await == Ok(())).await;
    server.kill();
    for _ in 0..5 {
        assert_eq!(why().await, unavailable);
    }
    server.restart();
    eventually(async || why().await == Ok(())).await;
}

#[tokio::test]
async fn log_entries_are_opaque_and_expire() {
    let (server, cluster) = (Redis::start(), Provider::start().await);
    let trusts = trusts(&cluster, log(&server).prefix("vault"));
    let token = pod(&cluster).claim("jti", "jti-canary").expires_in(Duration::from_secs(600));
    let token = token.sign();
    trusts.evaluate(&token, None, &Scopes::new()).await.unwrap();
    let stored = server.stored();
    let [(name, value)] = stored.as_slice() else { panic!("{stored:?}") };
    assert_eq!(value.len(), 22, "a random text");
    let digest = name.strip_prefix("vault:-:used:").unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    // The token's 600 s, plus the leeway of the policy and of the log, rounded down to a second.
    let left: i64 = server.ask(&["PTTL", name]);
    assert!((660_000..=721_000).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replay_log_passes_conformance_suite() {
    let (server, clock) = (Redis::start(), ManualClock::new());
    let log = log(&server);
    replay_log(Arc::new(log.clone()), SystemTime::now()).await;
    replay_log(Arc::new(log.clock(clock.clone())), clock.now()).await;
}

#[tokio::test]
async fn token_beyond_maximum_lifetime_is_denied() {
    let server = Redis::start();
    let keys = Arc::new(Keys::default());
    let cluster = Provider::start().await;
    let trusts = trusts(&cluster, keys.clone());
    let key = async || {
        trusts.evaluate(&pod(&cluster).sign(), None, &Scopes::new()).await.unwrap();
        keys.0.lock().unwrap().unwrap()
    };
    let log = log(&server);
    let day = Duration::from_secs(24 * 3600);
    assert!(log.first_use(key().await, SystemTime::now() + day * 364).await.unwrap());
    let key = key().await;
    for days in [366, 1000, 10_000_000] {
        log.first_use(key, SystemTime::now() + day * days).await.unwrap_err();
    }
    assert_eq!(server.stored().len(), 1);
}

/// A log that stores the last key.
#[derive(Debug, Default)]
struct Keys(Mutex<Option<ReplayKey>>);

#[async_trait]
impl ReplayLog for Keys {
    async fn first_use(&self, key: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        *self.0.lock().unwrap() = Some(key);
        Ok(true)
    }
}

#[tokio::test]
async fn processes_configured_by_environment_share_the_log() {
    let (server, cluster, scaikey) =
        (Redis::start(), Provider::start().await, Provider::start().await);
    scaikey
        .register_client(Client::new("vault", "secret").may_exchange("scaivault", "secrets:read"));
    scaikey.trust_workloads(&cluster, "reporting-service", "tnt_acme");
    let file = File::new("trust.toml", &policy(&cluster));
    let variables = [
        ("P_ISSUER", scaikey.issuer()),
        ("P_AUDIENCE", "scaivault".to_owned()),
        ("P_ALLOW_LOOPBACK_HTTP", "true".to_owned()),
        ("P_CLIENT_ID", "vault".to_owned()),
        ("P_CLIENT_SECRET", "secret".to_owned()),
        ("P_REDIS_URL", server.url().expose().to_owned()),
        ("P_CACHE_KEYS", OLD.to_owned()),
        ("P_TRUST_FILE", file.path_text()),
    ];
    let process = || -> Endpoints {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let config = AuthConfig::from_vars("P", variables);
        let auth = Auth::from_config(config.clone()).build().unwrap();
        auth.endpoints().configured(&config).build().unwrap()
    };
    let (one, other) = (process(), process());
    file.remove();
    let ask = async |process: &Endpoints, token: &str| {
        let form = format!(
            "grant_type=token_exchange&subject_token={token}&subject_token_type=urn:ietf:params:oauth:token-type:jwt"
        );
        let request = Request::post("/v1/auth/exchange")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        process.service().oneshot(request).await.unwrap().status().as_u16()
    };
    for (first, second) in [(&one, &other), (&other, &one)] {
        // A call that times out is denied, but the token may have been logged.
        let mut token = String::new();
        eventually(async || {
            token = pod(&cluster).sign();
            ask(first, &token).await == 200
        })
        .await;
        for process in [second, first] {
            eventually(async || match ask(process, &token).await {
                400 => true,
                status => {
                    assert_eq!(status, 503);
                    false
                }
            })
            .await;
        }
    }
}
