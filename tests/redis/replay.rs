//! A log of used tokens that all processes share.

use std::sync::Arc;
use std::time::SystemTime;

use scaikey_auth::testing::conformance::replay_log;
use scaikey_auth::testing::{Provider, TokenBuilder};
use scaikey_auth::trust::{TrustPolicy, Trusts};
use scaikey_auth::{RedisCache, Scopes};
use tokio::task::JoinSet;

use super::server::Redis;
use super::support::redis;

fn trusts(cluster: &Provider, log: RedisCache) -> Trusts {
    let policy = format!(
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
    );
    let policy = TrustPolicy::from_toml(&policy).unwrap();
    Trusts::builder().policy(policy).replay_log(log).build().unwrap()
}

fn pod(cluster: &Provider) -> TokenBuilder {
    let token = cluster.token().audience("scaivault");
    token.subject("system:serviceaccount:reports:reporter").without("tenant_id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_callers_at_many_processes_exactly_one_wins() {
    let (server, cluster) = (Redis::start(), Provider::start().await);
    // Each has a connection of its own: nothing but the server is shared.
    let processes: Vec<_> = (0..4).map(|_| trusts(&cluster, redis(&server.url()))).collect();
    for _ in 0..10 {
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
async fn while_the_server_cannot_tell_every_token_is_denied() {
    let (mut server, cluster) = (Redis::start(), Provider::start().await);
    let trusts = trusts(&cluster, redis(&server.url()));
    let why = async || {
        let outcome = trusts.evaluate(&pod(&cluster).sign(), None, &Scopes::new()).await;
        outcome.map_err(|denied| (denied.reason().as_str(), denied.code()))
    };
    assert!(why().await.is_ok());
    let away = Err(("unavailable", "temporarily_unavailable"));
    server.pause();
    assert_eq!(why().await.map(drop), away);
    server.resume();
    server.kill();
    assert_eq!(why().await.map(drop), away);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes_the_exam() {
    let server = Redis::start();
    replay_log(Arc::new(redis(&server.url())), SystemTime::now()).await;
}
