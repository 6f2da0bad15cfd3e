//! Several issuers: each has its own keys, and only configured issuers are contacted.

use scaikey_auth::IssuerConfig;
use scaikey_auth::config::Algorithm;
use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Provider, SigningKey};

use super::fixture::{World, outcome, provider, service, status, token, trust};
use crate::support::Log;

fn silent(provider: &Provider) -> bool {
    (provider.discovery_requests(), provider.jwks_requests(), provider.stray_requests())
        == (0, 0, 0)
}

#[tokio::test]
async fn key_belongs_to_its_issuer_only() {
    let ((a, clock), (b, _)) = (provider().await, provider().await);
    let key = |issuer: &Provider| {
        let key = SigningKey::with_kid(Algorithm::ES256, "shared");
        issuer.rotate_to(key.clone());
        key
    };
    let (key_a, key_b) = (key(&a), key(&b));
    let auth = service([trust(&a), trust(&b)], &clock);
    assert_eq!(status(&auth, &token(&a)).await, 200);
    assert_eq!(status(&auth, &token(&b)).await, 200);
    assert_eq!((a.jwks_requests(), b.jwks_requests()), (1, 1));
    for (token, what) in [
        (a.token().signed_by(&key_b).sign(), "b's key under a's name"),
        (b.token().signed_by(&key_a).sign(), "a's key under b's name"),
    ] {
        assert_eq!(outcome(&auth, &token).await, "token_signature", "{what}");
    }
    let elsewhere = a.token().signed_by(&b.key_for(Algorithm::RS256)).sign();
    assert_eq!(outcome(&auth, &elsewhere).await, "token_key_unknown");
    assert_eq!(b.jwks_requests(), 2, "an unknown key of `a` causes no fetch from `b`");
}

#[tokio::test]
async fn nearly_right_issuer_is_told_once() {
    let (provider, clock) = provider().await;
    let template = format!("{}/tenants/{{tenant_id}}", provider.url());
    let template = IssuerConfig::new(&template).allow_loopback_http(true);
    let auth = service([trust(&provider), template], &clock);
    let log = Log::start();
    let (url, https) = (provider.issuer(), provider.issuer().replace("http:", "https:"));
    for name in
        [format!("{url}/"), https.clone(), format!("{url}/tenants/acme/"), url.to_uppercase()]
    {
        for _ in 0..3 {
            let token = provider.token().issuer(&name).sign();
            assert_eq!(outcome(&auth, &token).await, "token_issuer", "{name}");
        }
    }
    let warnings = log.lines("WARN").join("\n");
    assert_eq!(warnings.matches("almost, but not exactly").count(), 3, "{warnings}");
    for iss in [format!("{url}/"), https, format!("{url}/tenants/{{tenant_id}}/")] {
        assert!(warnings.contains(&format!("iss=\"{iss}\"")), "{iss} in {warnings}");
    }
    assert!(!warnings.contains("acme"), "text of a token is not logged");
    let remedy =
        "set issuer to this `iss`, or, if the provider is not reached there, expected_issuer";
    assert!(warnings.contains(remedy), "{warnings}");
}

#[tokio::test]
async fn unconfigured_issuer_is_not_contacted() {
    let world = World::warm().await;
    let (unconfigured, _) = provider().await;
    let url = world.provider.url();
    let names = [
        unconfigured.issuer(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("{url}/"),
        format!("{url}/evil"),
        format!("{url}@{}", unconfigured.address()),
        url.replace("http", "HTTP"),
        format!(" {url}"),
        String::new(),
        "file:///etc/passwd".to_owned(),
    ];
    for name in names {
        let token = unconfigured.token().issuer(&name).sign();
        assert_eq!(outcome(&world.auth, &token).await, "token_issuer", "{name}");
    }
    assert!(silent(&unconfigured));
    assert_eq!((world.provider.jwks_requests(), world.provider.stray_requests()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn issuers_change_while_requests_run() {
    let world = World::warm().await;
    let (guest, _) = provider().await;
    let requests: Vec<_> = (0..4)
        .map(|_| {
            let (auth, token) = (world.auth.clone(), world.token());
            tokio::spawn(async move {
                for _ in 0..500 {
                    assert_eq!(status(&auth, &token).await, 200);
                }
            })
        })
        .collect();
    let token = token(&guest);
    for _ in 0..20 {
        assert_eq!(outcome(&world.auth, &token).await, "token_issuer");
        world.auth.issuers().add(trust(&guest)).unwrap();
        assert_eq!(outcome(&world.auth, &token).await, "accepted");
        world.auth.issuers().remove(&guest.issuer());
    }
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(world.provider.jwks_requests(), 1);
}

#[tokio::test]
async fn replaced_issuer_starts_without_keys() {
    let world = World::warm().await;
    let only_rsa = trust(&world.provider).algorithms([Algorithm::RS256]);
    world.auth.issuers().add(only_rsa).unwrap();
    assert_eq!(world.auth.issuers().health().len(), 1);
    assert_eq!(outcome(&world.auth, &world.token()).await, "token_algorithm");
    world.auth.issuers().add(trust(&world.provider)).unwrap();
    assert_eq!(world.state(), KeyState::Never);
    assert_eq!(world.good().await, 200);
}

#[tokio::test]
async fn invalid_issuer_is_not_added() {
    let world = World::warm().await;
    for bad in ["http://keys.example", "ftp://keys.example", "not a url", ""] {
        assert!(world.auth.issuers().add(bad).is_err(), "{bad}");
    }
    assert_eq!(world.auth.issuers().health().len(), 1);
}

#[tokio::test]
async fn unavailable_provider_affects_only_its_tokens() {
    let mut world = World::warm().await;
    let (other, _) = provider().await;
    world.auth.issuers().add(trust(&other)).unwrap();
    world.provider.pause().await;
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(world.good().await, 503);
    assert_eq!(world.status(&token(&other)).await, 200);
    assert!(world.auth.ready().await.is_err());
}
