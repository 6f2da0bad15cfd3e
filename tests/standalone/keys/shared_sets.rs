//! Shared key sets: all issuers with the same URL share one set, which is fetched once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::{KeyState, TenantIssuers};
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::testing::{
    Fault, ManualClock, Provider, ProviderEndpoint, SigningKey, TestIssuer,
};
use scaikey_auth::{Auth, IssuerConfig, TenantId};

use super::fixture::{PAST_TTL, outcome, provider, service, service_of_tenants, status, statuses};
use super::tenant_fixture::{invented, template};

/// Longer than any request needs. A test that waits this long hangs visibly.
const FOREVER: Duration = Duration::from_secs(3600);

/// A template with one key set URL for all tenants.
fn shared(provider: &Provider) -> IssuerConfig {
    let mut template = template(provider).jwks_uri(provider.jwks_uri());
    (template.jwks.wait, template.jwks.timeout) = (FOREVER, FOREVER);
    template
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("tnt-{nth}")).collect()
}

fn all_are(expected: u16, statuses: &[u16]) -> bool {
    statuses.iter().all(|status| *status == expected)
}

/// A token of the tenant's issuer that an unpublished key signed.
fn forged(provider: &Provider, id: &str, key: &SigningKey, kid: &str) -> String {
    let iss = format!("{}/tenants/{id}", provider.url());
    provider.token().issuer(&iss).tenant(id).signed_by(key).kid(Some(kid)).sign()
}

/// Tenants whose metadata name the same key set.
fn with_metadata(provider: &Provider, count: usize) -> Vec<TestIssuer> {
    let tenants: Vec<_> = ids(count).iter().map(|id| provider.tenant(id, id)).collect();
    for tenant in &tenants {
        tenant.fail(
            ProviderEndpoint::Discovery,
            Fault::replace_member("jwks_uri", provider.jwks_uri()),
        );
    }
    tenants
}

fn discovered(provider: &Provider) -> IssuerConfig {
    let place = format!("{}/api/v1/auth/tenants/{{tenant_id}}", provider.url());
    let place = format!("{place}/.well-known/openid-configuration");
    let mut template = template(provider).discovery_url(place);
    (template.jwks.wait, template.jwks.timeout) = (FOREVER, FOREVER);
    template
}

#[tokio::test]
async fn many_tenants_fetch_shared_keys_once() {
    let (provider, clock) = provider().await;
    let auth = service([shared(&provider)], &clock);
    for id in ids(300) {
        assert_eq!(status(&auth, &invented(&provider, &id)).await, 200, "{id}");
    }
    assert_eq!(
        (provider.jwks_requests(), provider.discovery_requests(), provider.stray_requests()),
        (1, 0, 0)
    );
    assert_eq!(auth.issuers().health().len(), 300, "each is reported");
    clock.advance(PAST_TTL);
    for id in ids(300) {
        assert_eq!(status(&auth, &invented(&provider, &id)).await, 200, "{id}");
    }
    crate::support::until(|| auth.issuers().health()[0].state == KeyState::Fresh).await;
    assert_eq!(provider.jwks_requests(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cold_start_of_tenants_refuses_no_token() {
    let (provider, clock) = provider().await;
    let auth = service([shared(&provider)], &clock);
    let tokens = ids(300).into_iter().map(|id| invented(&provider, &id));
    assert!(all_are(200, &statuses(&auth, tokens).await));
    assert_eq!(provider.jwks_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cold_start_with_discovery_refuses_no_token() {
    let (provider, clock) = provider().await;
    let tenants = with_metadata(&provider, 300);
    let auth = service([discovered(&provider)], &clock);
    let tokens: Vec<_> =
        tenants.iter().map(|tenant| tenant.token().signed_by(&provider.key()).sign()).collect();
    let statuses = statuses(&auth, tokens).await;
    let refused = statuses.iter().filter(|status| **status != 200).count();
    assert_eq!((refused, provider.jwks_requests()), (0, 1));
    assert!(
        tenants
            .iter()
            .all(|tenant| tenant.discovery_requests() == 1 && tenant.jwks_requests() == 0)
    );
}

/// A resolver that returns the same key set URL for every tenant.
#[derive(Debug)]
struct Central(String);

#[async_trait]
impl TenantIssuers for Central {
    async fn resolve(
        &self,
        _: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        Ok(Some(template.jwks_uri(self.0.clone())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cold_start_with_resolver_refuses_no_token() {
    let (provider, clock) = provider().await;
    let mut template = template(&provider);
    (template.jwks.wait, template.jwks.timeout) = (FOREVER, FOREVER);
    let auth = service_of_tenants(template, Central(provider.jwks_uri()), &clock);
    let tokens = ids(300).into_iter().map(|id| invented(&provider, &id));
    assert!(all_are(200, &statuses(&auth, tokens).await));
    assert_eq!(provider.jwks_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_of_shared_keys_costs_one_fetch() {
    let (provider, clock) = provider().await;
    let auth = service([shared(&provider)], &clock);
    let tokens = || ids(300).into_iter().map(|id| invented(&provider, &id)).collect::<Vec<_>>();
    assert!(all_are(200, &statuses(&auth, tokens()).await));
    provider.rotate();
    provider.remove_old_keys();
    assert!(all_are(200, &statuses(&auth, tokens()).await));
    assert_eq!(provider.jwks_requests(), 2);
}

#[tokio::test]
async fn forged_kids_share_one_budget() {
    let (provider, clock) = provider().await;
    let auth = service([shared(&provider)], &clock);
    for id in ids(100) {
        assert_eq!(status(&auth, &invented(&provider, &id)).await, 200);
    }
    let key = SigningKey::generate(Algorithm::ES256);
    for nth in 0..400 {
        let token = forged(&provider, &format!("tnt-{}", nth % 100), &key, &format!("f-{nth}"));
        assert_eq!(status(&auth, &token).await, 401);
    }
    assert_eq!(provider.jwks_requests(), 1 + 2);
    clock.advance(Duration::from_secs(5));
    for nth in 0..100 {
        let token = forged(&provider, &format!("tnt-{nth}"), &key, &format!("g-{nth}"));
        assert_eq!(status(&auth, &token).await, 401);
    }
    assert_eq!(provider.jwks_requests(), 1 + 3);
}

/// Tenants with separate keys, opened one after the other.
async fn open(provider: &Provider, clock: &ManualClock, count: usize) -> (Auth, Vec<TestIssuer>) {
    let place = format!("{}/api/v1/auth/tenants/{{tenant_id}}", provider.url());
    let template = template(provider).jwks_uri(format!("{place}/.well-known/jwks.json"));
    let auth = service([template], clock);
    let tenants: Vec<_> = ids(count).iter().map(|id| provider.tenant(id, id)).collect();
    for tenant in &tenants {
        assert_eq!(status(&auth, &tenant.token().sign()).await, 200);
        clock.advance(Duration::from_millis(10));
    }
    (auth, tenants)
}

fn fetches(tenants: &[TestIssuer]) -> u64 {
    tenants.iter().map(TestIssuer::jwks_requests).sum()
}

#[tokio::test]
async fn template_has_one_budget_for_all_sets() {
    let (provider, clock) = provider().await;
    let (auth, tenants) = open(&provider, &clock, 40).await;
    let key = SigningKey::generate(Algorithm::ES256);
    let flood = async || {
        for nth in 0..80 {
            let id = format!("tnt-{}", nth % 40);
            let token = forged(&provider, &id, &key, &format!("f-{nth}"));
            assert_eq!(status(&auth, &token).await, 401);
        }
    };
    flood().await;
    assert_eq!(fetches(&tenants), 40 + 20);
    for nth in 1..=20 {
        clock.advance(Duration::from_millis(500));
        flood().await;
        let expected = 40 + 20 + nth;
        crate::support::until(|| fetches(&tenants) == expected).await;
    }
    // Each set was fetched once or twice, because the sets with the oldest fetch come first.
    assert!(
        tenants.iter().all(|tenant| tenant.jwks_requests() <= 2),
        "a set was fetched twice more"
    );
}

#[tokio::test]
async fn tenant_rotating_during_flood_is_refreshed() {
    let (provider, clock) = provider().await;
    let (auth, tenants) = open(&provider, &clock, 40).await;
    let key = SigningKey::generate(Algorithm::ES256);
    let last = tenants.last().unwrap();
    let flood = async || {
        for nth in 0..39 {
            let token = forged(&provider, &format!("tnt-{nth}"), &key, &format!("f-{nth}"));
            assert_eq!(status(&auth, &token).await, 401);
        }
    };
    flood().await;
    last.rotate();
    let mut seconds = 0;
    loop {
        flood().await;
        if status(&auth, &last.token().sign()).await == 200 {
            break;
        }
        seconds += 1;
        assert!(seconds <= 20, "20 sets that were fetched earlier take 10 s");
        clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn refused_sets_leave_the_queue_after_flood() {
    let (provider, clock) = provider().await;
    let (auth, tenants) = open(&provider, &clock, 80).await;
    let key = SigningKey::generate(Algorithm::ES256);
    let flood = async || {
        for nth in 0..80 {
            let token = forged(&provider, &format!("tnt-{nth}"), &key, &format!("f-{nth}"));
            assert_eq!(status(&auth, &token).await, 401);
        }
    };
    flood().await;
    flood().await;
    let last = tenants.last().unwrap();
    // Some sets in line are fetched, and so is the requested one.
    clock.advance(Duration::from_secs(1));
    last.rotate();
    assert_eq!(status(&auth, &last.token().sign()).await, 200);
    crate::support::until(|| fetches(&tenants) == 80 + 20 + 2).await;
    clock.advance(Duration::from_secs(9));
    last.rotate();
    assert_eq!(status(&auth, &last.token().sign()).await, 200);
    assert_eq!(fetches(&tenants), 80 + 20 + 2 + 1, "the line is empty");
}

#[tokio::test]
async fn purge_affects_all_issuers_of_set() {
    let (provider, clock) = provider().await;
    let auth = service([shared(&provider)], &clock);
    let [a, b] = ["a", "b"].map(|id| invented(&provider, id));
    assert_eq!((status(&auth, &a).await, status(&auth, &b).await), (200, 200));
    provider.rotate();
    provider.remove_old_keys();
    auth.issuers().purge(&format!("{}/tenants/a", provider.url()));
    assert_eq!(outcome(&auth, &b).await, "token_key_unknown", "it is the same key");
    assert_eq!(provider.jwks_requests(), 2);
    assert_eq!(outcome(&auth, &a).await, "token_key_unknown");
}

/// Two issuers with the same key set URL.
fn two(provider: &Provider) -> [IssuerConfig; 2] {
    ["a", "b"].map(|id| {
        IssuerConfig::new(format!("{}/tenants/{id}", provider.url()))
            .jwks_uri(provider.jwks_uri())
            .allow_loopback_http(true)
    })
}

#[tokio::test]
async fn removing_an_issuer_keeps_keys_of_others() {
    let (provider, clock) = provider().await;
    let auth = service(two(&provider), &clock);
    let [a, b] = ["a", "b"].map(|id| invented(&provider, id));
    assert_eq!((status(&auth, &a).await, status(&auth, &b).await), (200, 200));
    auth.issuers().remove(&format!("{}/tenants/a", provider.url()));
    assert_eq!((outcome(&auth, &a).await, status(&auth, &b).await), ("token_issuer", 200));
    assert_eq!(provider.jwks_requests(), 1);
}

#[tokio::test]
async fn issuers_with_other_algorithms_share_no_set() {
    let (provider, clock) = provider().await;
    let [a, b] = two(&provider);
    let auth = service([a, b.algorithms([Algorithm::RS256])], &clock);
    assert_eq!(status(&auth, &invented(&provider, "a")).await, 200);
    let by_es256 = invented(&provider, "b");
    assert_eq!(outcome(&auth, &by_es256).await, "token_algorithm");
}

#[tokio::test]
async fn issuer_with_moved_keys_leaves_shared_set() {
    let (provider, clock) = provider().await;
    let tenants = with_metadata(&provider, 2);
    let auth = service([discovered(&provider)], &clock);
    let token = |tenant: &TestIssuer, key: &SigningKey| {
        let month = Duration::from_secs(30 * 24 * 3600);
        tenant.token().expires_in(month).signed_by(key).sign()
    };
    let [moved, stays] = [&tenants[0], &tenants[1]];
    let old = token(moved, &provider.key());
    for _ in 0..3 {
        assert_eq!(status(&auth, &old).await, 200);
        assert_eq!(status(&auth, &token(stays, &provider.key())).await, 200);
    }
    moved.heal(ProviderEndpoint::Discovery);
    clock.advance(Duration::from_secs(3601));
    // The other issuer keeps the shared set fresh.
    assert_eq!(status(&auth, &token(stays, &provider.key())).await, 200);
    assert_eq!(status(&auth, &old).await, 200, "the removal is not known yet");
    moved.wait_for_jwks_requests(1).await;
    let new = token(moved, &moved.key());
    crate::support::until(|| auth.issuers().health().iter().all(|it| it.last_error.is_none()))
        .await;
    assert_eq!(status(&auth, &new).await, 200);
    assert_eq!(outcome(&auth, &old).await, "token_key_unknown", "also a cached token");
    assert_eq!(status(&auth, &token(stays, &provider.key())).await, 200);
}

#[test]
fn opened_tenant_takes_at_most_two_kilobytes() {
    const TENANTS: usize = 1000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (provider, clock) = runtime.block_on(provider());
    let builder =
        Auth::builder().audience("scaiwave").clock(clock.clone()).verified_tokens_bytes(0);
    let auth = builder.issuer(shared(&provider)).tenants(AnyTenant).build().unwrap();
    let tokens: Arc<[String]> = ids(TENANTS).iter().map(|id| invented(&provider, id)).collect();
    let first = invented(&provider, "first");
    assert_eq!(runtime.block_on(status(&auth, &first)), 200);
    let allocated = allocations::measure(|| {
        for token in tokens.iter() {
            assert_eq!(runtime.block_on(status(&auth, token)), 200);
        }
    });
    let each = allocated.bytes / TENANTS as i64;
    assert!(each <= 2048, "{each} bytes a tenant");
    assert!(each > 0, "nothing was measured");
}
