//! Tokens that processes share through Redis.

use std::time::Duration;

use scaikey_auth::exchange::{
    CacheStatus, OAuthError, PasswordRequest, RefreshRequest, ServiceTokenRequest,
};
use scaikey_auth::testing::{Client, ManualClock, Provider};
use scaikey_auth::{AuthConfig, TenantId, TokenCache, TokenExchangeClient};

use super::fixture::{NEW, OLD, builder, client, fresh, keys, layered, provider, redis};
use super::server::Redis;

#[tokio::test]
async fn processes_share_exchanged_tokens() {
    let (server, provider) = (Redis::start(), provider().await);
    let behind_memory = || client(&provider, layered(&server.url()));
    let alone = || client(&provider, redis(&server.url()));
    for (one, two) in [(behind_memory(), behind_memory()), (alone(), behind_memory())] {
        let (request, before) = (fresh(&provider), provider.token_requests());
        let got = one.exchange(&request).await.unwrap();
        let found = two.exchange(&request).await.unwrap();
        assert_eq!(
            (got.cache_status(), found.cache_status()),
            (CacheStatus::Miss, CacheStatus::Hit)
        );
        assert_eq!((found.secret(), found.scopes()), (got.secret(), got.scopes()));
        let again = alone().exchange(&request).await.unwrap();
        assert_eq!(again.secret(), got.secret());
        assert_eq!(provider.token_requests() - before, 1);
    }
}

#[tokio::test]
async fn client_with_other_keys_finds_nothing() {
    let (server, provider) = (Redis::start(), provider().await);
    let request = fresh(&provider);
    let got = client(&provider, redis(&server.url())).exchange(&request).await.unwrap();
    let other = builder(&provider.issuer()).cache(redis(&server.url())).cache_keys(keys(NEW));
    let token = other.build().unwrap().exchange(&request).await.unwrap();
    assert_eq!(token.cache_status(), CacheStatus::Miss);
    assert_ne!(token.secret(), got.secret());
    assert_eq!(server.tokens().len(), 2);
}

#[tokio::test]
async fn key_rotation_loses_no_tokens() {
    let (server, provider) = (Redis::start(), provider().await);
    let steps = [OLD.to_owned(), format!("{OLD},{NEW}"), format!("{NEW},{OLD}"), NEW.to_owned()];
    let with = |step: &String| {
        let client = builder(&provider.issuer()).cache(redis(&server.url()));
        client.cache_keys(keys(step)).build().unwrap()
    };
    // During a step, servers before and after it run together, so both directions are tested.
    for (before, after) in steps.iter().zip(&steps[1..]) {
        for (first, second) in [(before, after), (after, before)] {
            let request = fresh(&provider);
            let asked = provider.token_requests();
            let got = with(first).exchange(&request).await.unwrap();
            let found = with(second).exchange(&request).await.unwrap();
            assert_eq!(found.secret(), got.secret(), "from {first} to {second}");
            assert_eq!(provider.token_requests() - asked, 1);
            let session = signed_in(&with(first)).await;
            let one = with(first).refresh(&session).await.unwrap();
            let two = with(second).refresh(&session).await.unwrap();
            assert_eq!(one.refresh_token(), two.refresh_token());
        }
    }
    assert_eq!(provider.refresh_reuses(), 0);
}

async fn signed_in(client: &TokenExchangeClient) -> RefreshRequest {
    let session = client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
    RefreshRequest::new(session.refresh_token().unwrap().expose())
}

#[tokio::test]
async fn redis_keys_have_prefix_tenant_and_expiry() {
    let (server, provider) = (Redis::start(), provider().await);
    // The provider issues tokens of another tenant than requested.
    let client = builder(&provider.issuer()).insecure_any_subject();
    let client = client.cache(redis(&server.url()).prefix("sw")).build().unwrap();
    // Without a tenant in the request, the name has that of the subject token.
    for tenant in [Some("acme"), Some("{}"), None] {
        let mut request = fresh(&provider);
        request.tenant = tenant.map(|id| TenantId::new(id).unwrap());
        client.exchange(&request).await.unwrap();
    }
    let mut names = server.tokens();
    names.sort();
    assert_eq!(names.len(), 3);
    for name in &names {
        let begins = ["sw:acme:token:{", "sw:%7B%7D:token:{", "sw:tenant-1:token:{"];
        assert!(begins.iter().any(|begin| name.starts_with(begin)), "{name}");
        let digest = name.split_once(":token:{").unwrap().1;
        assert!(digest.len() == 44 && digest.ends_with('}'), "{name}");
        let left: i64 = server.ask(&["PTTL", name]);
        assert!((3_500_000..=3_570_000).contains(&left), "{name} expires in {left} ms");
    }
}

#[tokio::test]
async fn store_contains_no_secrets() {
    let (server, provider) = (Redis::start(), provider().await);
    let client = client(&provider, layered(&server.url()));
    let request = fresh(&provider);
    let exchanged = client.exchange(&request).await.unwrap();
    let own = client.service_token(ServiceTokenRequest::default()).await.unwrap();
    let session = signed_in(&client).await;
    let renewed = client.refresh(&session).await.unwrap();
    let stored = server.stored();
    assert_eq!(stored.len(), 3, "a token of each kind, and no lock left");
    let canaries = [
        request.subject.expose(),
        exchanged.secret().expose(),
        own.secret().expose(),
        session.refresh_token.expose(),
        renewed.secret().expose(),
        renewed.refresh_token().unwrap().expose(),
        "client-secret-canary",
        "hunter2",
        "vault",
        "bob",
        "drive",
        OLD,
    ];
    for (name, value) in &stored {
        for canary in canaries {
            // A part of a token must not appear either: the middle of a JWT has its claims.
            let middle = &canary[canary.len() / 3..canary.len() / 3 * 2];
            for text in [canary, middle].into_iter().filter(|text| text.len() > 2) {
                let shows =
                    |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
                assert!(!shows(value) && !shows(name.as_bytes()), "{name} shows {text}");
            }
        }
    }
}

#[tokio::test]
async fn tenants_do_not_share_service_tokens() {
    let (server, provider) = (Redis::start(), provider().await);
    let ids = ["acme", "umbrella"];
    for id in ids {
        provider.tenant(id, id).register_client(Client::new("drive", "client-secret-canary"));
    }
    let url = format!("{}/api/v1/auth/tenants/{{tenant_id}}/oauth/token", provider.url());
    let with = |cache: Box<dyn FnOnce() -> std::sync::Arc<dyn TokenCache>>| {
        builder(&provider.issuer()).token_url(url.as_str()).cache(cache()).build().unwrap()
    };
    for status in [CacheStatus::Miss, CacheStatus::Hit] {
        let far = redis(&server.url());
        let client = with(Box::new(move || std::sync::Arc::new(far)));
        for id in ids {
            let token = client.service_token(&TenantId::new(id).unwrap()).await.unwrap();
            assert_eq!(tenant_of(token.secret().expose()), id);
            assert_eq!(token.cache_status(), status);
        }
    }
}

fn tenant_of(token: &str) -> String {
    let claims: serde_json::Value = scaikey_auth::validator::insecure_decode_claims(token).unwrap();
    claims["tenant_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn expired_entry_cannot_be_restored() {
    let (server, provider, clock) = (Redis::start(), provider().await, ManualClock::new());
    let with = || {
        let builder = builder(&provider.issuer()).cache(redis(&server.url()));
        builder.clock(clock.clone()).build().unwrap()
    };
    let session = signed_in(&with()).await;
    let successor = with().refresh(&session).await.unwrap();
    let (name, sealed) = server.stored().remove(0);
    // An entry lives for one minute, plus ten minutes of tolerated clock difference.
    clock.advance(Duration::from_secs(655));
    let found = with().refresh(&session).await.unwrap();
    assert_eq!(found.refresh_token(), successor.refresh_token());
    clock.advance(Duration::from_secs(10));
    server.overwrite(&name, &sealed);
    let refused = with().refresh(&session).await.unwrap_err();
    assert_eq!(refused.oauth_error(), Some(&OAuthError::InvalidGrant), "{refused}");
}

#[tokio::test]
async fn password_is_never_printed() {
    let url = "redis://user:hunter2@127.0.0.1:1".into();
    let cache = layered(&url);
    let provider: Provider = provider().await;
    let client = client(&provider, cache.clone());
    assert!(!format!("{cache:?} {client:?}").contains("hunter2"));
    client.exchange(&fresh(&provider)).await.unwrap();
    assert!(!format!("{cache:?} {client:?}").contains("hunter2"));
}

#[tokio::test]
async fn environment_configures_a_shared_cache() {
    let (server, provider) = (Redis::start(), provider().await);
    let url = server.url();
    let variables = [
        ("P_ISSUER", provider.issuer()),
        ("P_ALLOW_LOOPBACK_HTTP", "true".to_owned()),
        ("P_CLIENT_ID", "drive".to_owned()),
        ("P_CLIENT_SECRET", "client-secret-canary".to_owned()),
        ("P_REDIS_URL", url.expose().to_owned()),
        ("P_CACHE_KEYS", OLD.to_owned()),
    ];
    let build = |count: usize| {
        let some = variables.iter().take(count);
        let config =
            AuthConfig::from_vars("P", some.map(|(name, value)| (name.to_string(), value.clone())));
        TokenExchangeClient::from_config(&config).build()
    };
    // These clients have the default budget, which a busy machine may exceed.
    crate::support::eventually(async || {
        let request = fresh(&provider);
        let got = build(6).unwrap().exchange(&request).await.unwrap();
        let found = build(6).unwrap().exchange(&request).await.unwrap();
        found.secret() == got.secret()
    })
    .await;
    assert!(!server.tokens().is_empty());
    let without_keys = build(5).unwrap_err().to_string();
    assert!(without_keys.contains("P_CACHE_KEYS"), "{without_keys}");
}
