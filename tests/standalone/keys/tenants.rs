//! Issuers of tenants: opened when needed, only for existing tenants, and only for their tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use scaikey_auth::clock::Clock;
use scaikey_auth::config::{Algorithm, TokenProfile};
use scaikey_auth::error::BoxError;
use scaikey_auth::identity::ClaimsMapping;
use scaikey_auth::issuer::{KeyState, TenantIssuers};
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{AuthError, IssuerConfig, TenantId};
use tokio::sync::Semaphore;

use super::fixture::{
    outcome, provider, service, service_of_tenants, status, statuses, token, unknown_kid,
};
use super::tenant_fixture::{Directory, TenantWorld, invented, template};
use crate::support::Log;
use crate::support::until;

/// The id of a tenant that does not exist.
const INVENTED: &str = "tnt-invented";

#[tokio::test]
async fn template_inserts_tenant_id_into_url() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("acme", "acme");
    let place = format!("{}/api/v1/auth/tenants/{{tenant_id}}/.well-known", provider.url());
    for config in [
        template(&provider).jwks_uri(format!("{place}/jwks.json")),
        template(&provider).discovery_url(format!("{place}/openid-configuration")),
        template(&provider)
            .expected_issuer(format!("{}/tenants/{{tenant_id}}", provider.url()))
            .jwks_uri(format!("{place}/jwks.json")),
    ] {
        let auth = service([config.clone()], &clock);
        let context = auth.authenticate(&token(&acme)).await.unwrap();
        assert_eq!(context.identity().tenant_id().unwrap().as_str(), "acme");
        assert_eq!(context.identity().issuer(), acme.issuer());
        assert_eq!(outcome(&auth, &token(&provider)).await, "token_issuer", "{config:?}");
    }
}

#[tokio::test]
async fn invented_tenants_share_one_warning() {
    let place = "/api/v1/auth/tenants/{tenant_id}/.well-known";
    for by_metadata in [false, true] {
        let log = Log::start();
        let (provider, clock) = provider().await;
        let place = format!("{}{place}", provider.url());
        let template = match by_metadata {
            true => template(&provider).discovery_url(format!("{place}/openid-configuration")),
            false => template(&provider).jwks_uri(format!("{place}/jwks.json")),
        };
        let auth = service([template], &clock);
        for nth in 0..50 {
            assert_eq!(status(&auth, &invented(&provider, &format!("no-{nth}"))).await, 503);
        }
        let warnings = log.lines("WARN");
        assert!((1..=8).contains(&warnings.len()), "{by_metadata}: {warnings:#?}");
        // An existing tenant has its own log line.
        let acme = provider.tenant("acme", "acme");
        assert_eq!(status(&auth, &token(&acme)).await, 200);
        let before = log.lines("WARN").len();
        acme.fail(ProviderEndpoint::Jwks, Fault::Status(500));
        clock.advance(Duration::from_secs(400));
        assert_eq!(status(&auth, &token(&acme)).await, 200);
        until(|| log.lines("WARN").len() > before).await;
    }
}

/// A directory that can be unavailable.
#[derive(Debug, Clone, Default)]
struct Unavailable(Arc<AtomicBool>);

#[async_trait::async_trait]
impl scaikey_auth::issuer::TenantIssuers for Unavailable {
    async fn resolve(
        &self,
        _: &scaikey_auth::TenantId,
        _: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, scaikey_auth::error::BoxError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err("the directory is unavailable".into()),
            false => Ok(None),
        }
    }
}

#[tokio::test]
async fn failing_resolver_logs_one_warning() {
    let log = Log::start();
    let (provider, clock) = provider().await;
    let directory = Unavailable::default();
    let auth = service_of_tenants(template(&provider), directory.clone(), &clock);
    let lines = |level: &str| {
        let lines = log.lines(level);
        lines.iter().filter(|line| line.contains("resolver of tenants' issuers")).count()
    };
    for round in 1..=2 {
        directory.0.store(true, Ordering::SeqCst);
        for nth in 0..20 {
            let token = invented(&provider, &format!("{round}-{nth}"));
            assert_eq!(status(&auth, &token).await, 503);
        }
        assert_eq!(lines("WARN"), round);
        assert!(log.lines("WARN").iter().any(|line| line.contains("the directory is unavailable")));
        directory.0.store(false, Ordering::SeqCst);
        let token = invented(&provider, &format!("{round}-back"));
        assert_eq!(status(&auth, &token).await, 401);
        assert_eq!(lines("INFO"), round);
    }
}

#[tokio::test]
async fn resolver_finds_keys_by_slug() {
    let world = TenantWorld::new().await;
    assert!(world.auth.issuers().health().is_empty());
    for _ in 0..10 {
        assert_eq!(world.status(&token(&world.acme)).await, 200);
        assert_eq!(world.status(&token(&world.globex)).await, 200);
    }
    assert_eq!(world.directory.calls(), 2);
    assert_eq!((world.acme.jwks_requests(), world.globex.jwks_requests()), (1, 1));
    let health = world.auth.issuers().health();
    assert_eq!(health.len(), 2);
    assert!(health.iter().all(|one| one.state == KeyState::Fresh), "{health:?}");
}

#[tokio::test]
async fn tenant_issuer_is_limited_to_its_tenant() {
    let TenantWorld { provider, acme, globex, auth, .. } = TenantWorld::new().await;
    let table = [
        (acme.token().tenant("tnt-2").sign(), "token_issuer_tenant"),
        (acme.token().without("tenant_id").sign(), "token_issuer_tenant"),
        (acme.token().issuer(&globex.issuer()).sign(), "token_issuer_tenant"),
        // Acme's key with the issuer of globex.
        (acme.token().issuer(&globex.issuer()).tenant("tnt-2").sign(), "token_key_unknown"),
        (globex.token().kid(Some(&acme.kid())).sign(), "token_key_unknown"),
        (provider.token().issuer(&acme.issuer()).tenant("tnt-1").sign(), "token_key_unknown"),
        (acme.token().sign(), "accepted"),
        (globex.token().sign(), "accepted"),
    ];
    for (token, expected) in table {
        assert_eq!(outcome(&auth, &token).await, expected);
    }
}

#[tokio::test]
async fn hostile_tenant_id_reaches_no_resolver() {
    let TenantWorld { provider, acme, directory, auth, .. } = TenantWorld::new().await;
    let long = "x".repeat(200);
    let ids = [
        "",
        ".",
        "..",
        "a/b",
        "../acme",
        "%2e",
        "%2e%2e",
        "a%2fb",
        "a?b",
        "a#b",
        "a b",
        "a\\b",
        "a@b",
        "a:b",
        "ä",
        "a\n",
        "\0",
        "{tenant_id}",
        &long,
    ];
    for id in ids {
        let iss = format!("{}/tenants/{id}", provider.url());
        let token = acme.token().issuer(&iss).tenant(id).sign();
        assert_eq!(outcome(&auth, &token).await, "token_issuer", "{id:?}");
    }
    assert_eq!(directory.calls(), 0);
    assert_eq!(
        (provider.stray_requests(), acme.discovery_requests(), acme.jwks_requests()),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn unknown_tenant_is_refused_and_cached() {
    let world = TenantWorld::new().await;
    let unknown = invented(&world.provider, INVENTED);
    for _ in 0..100 {
        assert_eq!(outcome(&world.auth, &unknown).await, "token_issuer");
    }
    assert_eq!(world.directory.calls(), 1);
    assert_eq!(world.provider.stray_requests(), 0);
    // A new tenant is accepted when the cached refusal has expired.
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(outcome(&world.auth, &unknown).await, "token_issuer");
    assert_eq!(world.directory.calls(), 2);
    assert_eq!(world.status(&token(&world.acme)).await, 200);
}

#[tokio::test]
async fn failing_or_hanging_resolver_answers_503() {
    let world = TenantWorld::new().await;
    world.directory.answers.forget_permits(Semaphore::MAX_PERMITS);
    let error = world.auth.authenticate(&token(&world.acme)).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable { component: "issuer", .. }), "hangs: {error}");
    world.directory.answers.close();
    world.clock.advance(Duration::from_secs(10));
    let error = world.auth.authenticate(&token(&world.acme)).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable { component: "issuer", .. }), "fails: {error}");
    assert!(error.retry_after().unwrap() >= Duration::from_secs(1));
}

#[tokio::test]
async fn service_survives_a_panicking_resolver() {
    let world = TenantWorld::new().await;
    for nth in 1..4 {
        assert_eq!(world.status(&invented(&world.provider, "tnt-9")).await, 503);
        assert_eq!(world.directory.calls(), nth);
    }
    assert_eq!(world.status(&token(&world.acme)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_first_tokens_open_issuer_once() {
    let world = TenantWorld::new().await;
    let token = token(&world.acme);
    let requests: Vec<_> = (0..500)
        .map(|_| {
            let (auth, token) = (world.auth.clone(), token.clone());
            tokio::spawn(async move { status(&auth, &token).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!((world.directory.calls(), world.acme.jwks_requests()), (1, 1));
}

#[tokio::test]
async fn flood_of_tenants_opens_limited_number() {
    let world = TenantWorld::new().await;
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    let flood = (0..300).map(|nth| invented(&world.provider, &format!("flood-{nth}")));
    let statuses = statuses(&world.auth, flood).await;
    assert!(statuses.iter().all(|status| [401, 503].contains(status)));
    assert!(world.directory.calls() <= 200, "{}", world.directory.calls());
    assert_eq!(world.status(&token(&world.acme)).await, 200, "open issuers still work");
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.status(&token(&world.globex)).await, 200, "new issuers are opened soon");
}

#[tokio::test]
async fn invented_tenants_are_never_refreshed() {
    // Without a directory, the provider's answer decides whether the tenant exists.
    let (provider, clock) = provider().await;
    let acme = provider.tenant("acme", "acme");
    let place =
        format!("{}/api/v1/auth/tenants/{{tenant_id}}/.well-known/jwks.json", provider.url());
    let auth = service([template(&provider).jwks_uri(place)], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    let flood = (0..300).map(|nth| invented(&provider, &format!("flood-{nth}")));
    assert!(statuses(&auth, flood).await.iter().all(|status| *status == 503));
    let requests = provider.stray_requests();
    assert!(requests <= 200, "{requests}");
    // A probe does not ask for what never was, and an operator sees none.
    clock.advance(Duration::from_secs(100));
    for _ in 0..10 {
        assert_eq!(auth.issuers().health().len(), 1);
        assert_eq!(status(&auth, &token(&acme)).await, 200);
    }
    acme.wait_for_jwks_requests(1).await;
    assert_eq!(provider.stray_requests(), requests);
}

#[tokio::test]
async fn unavailable_tenant_keys_answer_503_then_recover() {
    for fault in [Fault::Status(404), Fault::Status(500), Fault::HangUp, Fault::html()] {
        let world = TenantWorld::new().await;
        world.acme.fail(ProviderEndpoint::Jwks, fault.clone());
        for _ in 0..20 {
            let error = world.auth.authenticate(&token(&world.acme)).await.unwrap_err();
            assert_eq!(error.status(), 503, "{fault:?}");
            assert!(error.retry_after().is_some(), "{fault:?}");
        }
        assert_eq!(world.acme.jwks_requests(), 1, "{fault:?}");
        assert_eq!(world.status(&token(&world.globex)).await, 200, "{fault:?}");
        world.acme.heal(ProviderEndpoint::Jwks);
        world.clock.advance(Duration::from_secs(61));
        assert_eq!(world.status(&token(&world.acme)).await, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn wait_for_tenant_keys_is_limited() {
    let world = TenantWorld::new().await;
    let mut template = template(&world.provider);
    template.jwks.wait = Duration::from_millis(50);
    let auth = service_of_tenants(template, world.directory.clone(), &world.clock);
    world.acme.fail(ProviderEndpoint::Jwks, Fault::Hang);
    for _ in 0..3 {
        assert_eq!(status(&auth, &token(&world.acme)).await, 503);
    }
    world.acme.wait_for_jwks_requests(1).await;
    assert_eq!((world.directory.calls(), world.acme.jwks_requests()), (1, 1));
    world.acme.heal(ProviderEndpoint::Jwks);
    crate::support::until(|| !auth.issuers().health().is_empty()).await;
    assert_eq!(status(&auth, &token(&world.acme)).await, 200);
    assert_eq!(world.acme.jwks_requests(), 1);
}

#[tokio::test]
async fn tenant_keys_have_usual_life_cycle() {
    let world = TenantWorld::new().await;
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    let old = token(&world.acme);
    world.acme.rotate();
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    world.acme.remove_old_keys();
    world.auth.issuers().purge(&world.acme.issuer());
    assert_eq!(world.status(&old).await, 401);
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    for _ in 0..10 {
        assert_eq!(world.status(&unknown_kid(&world.acme)).await, 401);
    }
    assert!(world.acme.jwks_requests() <= 5, "{}", world.acme.jwks_requests());
    assert_eq!((world.directory.calls(), world.globex.jwks_requests()), (1, 0));
}

#[tokio::test]
async fn tenant_with_dead_keys_is_resolved_again() {
    let world = TenantWorld::new().await;
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    world.acme.fail(ProviderEndpoint::Jwks, Fault::Status(404));
    world.clock.advance(Duration::from_secs(23 * 3600));
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    assert_eq!(world.directory.calls(), 1);
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.status(&token(&world.acme)).await, 503);
    assert_eq!(world.directory.calls(), 2);
    world.acme.heal(ProviderEndpoint::Jwks);
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(world.status(&token(&world.acme)).await, 200);
}

#[tokio::test]
async fn tenant_keys_fetched_before_purge_are_discarded() {
    let world = TenantWorld::new().await;
    let old = token(&world.acme);
    world.acme.fail(ProviderEndpoint::Jwks, Fault::Stall);
    let (auth, first) = (world.auth.clone(), old.clone());
    let waiting = tokio::spawn(async move { status(&auth, &first).await });
    world.acme.wait_for_jwks_requests(1).await;
    world.acme.rotate();
    world.acme.remove_old_keys();
    world.auth.issuers().purge(&world.acme.issuer());
    world.acme.heal(ProviderEndpoint::Jwks);
    assert_eq!(waiting.await.unwrap(), 401);
    assert_eq!(outcome(&world.auth, &old).await, "token_key_unknown");
    assert_eq!(world.status(&token(&world.acme)).await, 200);
}

#[tokio::test]
async fn templates_change_while_requests_run() {
    let world = TenantWorld::new().await;
    let name = format!("{}/tenants/{{tenant_id}}", world.provider.url());
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    world.auth.issuers().remove(&name);
    assert_eq!(outcome(&world.auth, &token(&world.acme)).await, "token_issuer");
    assert!(world.auth.issuers().health().is_empty());
    let directory = Arc::new(world.directory.clone());
    world.auth.issuers().add_tenant_issuers(template(&world.provider), directory.clone()).unwrap();
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    let single = IssuerConfig::new(world.provider.issuer()).allow_loopback_http(true);
    assert!(world.auth.issuers().add_tenant_issuers(single, directory).is_err(), "no placeholder");
}

#[tokio::test]
async fn exact_issuer_takes_precedence_over_template() {
    let world = TenantWorld::new().await;
    let listed = IssuerConfig::new(world.acme.issuer())
        .jwks_uri(world.globex.jwks_uri())
        .algorithms([Algorithm::ES256])
        .allow_loopback_http(true);
    world.auth.issuers().add(listed).unwrap();
    let by_globex = world.acme.token().signed_by(&world.globex.key()).sign();
    assert_eq!(world.status(&by_globex).await, 200);
    assert_eq!(world.directory.calls(), 0);
}

/// Exhausts the budget for unknown tenants.
async fn exhaust(world: &TenantWorld) {
    for nth in 0..200 {
        assert_eq!(world.status(&invented(&world.provider, &format!("flood-{nth}"))).await, 401);
    }
    assert_eq!(world.directory.calls(), 200);
}

#[tokio::test]
async fn invalid_token_opens_no_issuer() {
    let world = TenantWorld::new().await;
    let named = |id: &str| {
        let iss = format!("{}/tenants/{id}", world.provider.url());
        world.provider.token().issuer(&iss).tenant(id)
    };
    let bare = |id: &str| {
        let token = named(id).without("aud").without("exp").without("iat");
        token.without("sub").without("nbf").sign()
    };
    for nth in 0..300 {
        assert_eq!(world.status(&bare(&format!("bare-{nth}"))).await, 401);
    }
    let table = [
        (named("a").without("exp").sign(), "token_claim_missing"),
        (named("a").without("aud").sign(), "token_claim_missing"),
        (named("a").audience("another").sign(), "token_audience"),
        (named("a").expired().sign(), "token_expired"),
        (named("a").typ(Some("logout+jwt")).sign(), "token_type"),
        (named("a").tenant("b").sign(), "token_issuer_tenant"),
        (named("a").algorithm(Algorithm::RS384).sign(), "token_algorithm"),
    ];
    for (token, expected) in table {
        assert_eq!(outcome(&world.auth, &token).await, expected);
    }
    assert_eq!((world.directory.calls(), world.provider.stray_requests()), (0, 0));
    assert_eq!(world.status(&token(&world.acme)).await, 200);
}

/// A directory that changes the rules of each tenant.
#[derive(Debug)]
struct ChangesRules(Directory, fn(IssuerConfig) -> IssuerConfig);

#[async_trait]
impl TenantIssuers for ChangesRules {
    async fn resolve(
        &self,
        tenant: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        Ok(self.0.resolve(tenant, template).await?.map(self.1))
    }
}

#[tokio::test]
async fn resolver_cannot_relax_the_template() {
    let world = TenantWorld::new().await;
    let relax = |tenant: IssuerConfig| {
        let tenant =
            tenant.audience("scaiwave").audience("another").leeway(Duration::from_secs(600));
        let tenant = tenant.algorithms(Algorithm::ALL).insecure_accept_id_tokens(true);
        tenant.audience_claims(["azp", "aud"]).claims(ClaimsMapping::default().tenant_id(["tid"]))
    };
    let resolver = ChangesRules(world.directory.clone(), relax);
    let auth = service_of_tenants(template(&world.provider), resolver, &world.clock);
    let good = || world.acme.token().claim("tid", "tnt-1");
    let now = world.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // The first token opens the issuer.
    for _ in 0..2 {
        for (token, expected) in [
            (good(), "accepted"),
            (good().claim("azp", "scaiwave"), "accepted"),
            (good().audience("another"), "token_audience"),
            (good().without("aud").claim("azp", "scaiwave"), "token_claim_missing"),
            (good().claim("azp", "third"), "token_audience"),
            (good().claim("exp", now - 300), "token_expired"),
            (good().claim("at_hash", "77Qm"), "token_type"),
            (good().algorithm(Algorithm::ES384), "token_algorithm"),
            (good().tenant("tnt-2"), "token_issuer_tenant"),
            (good().without("tenant_id"), "token_issuer_tenant"),
            (good().claim("tid", "tnt-2"), "token_issuer_tenant"),
        ] {
            let token = token.sign();
            assert_eq!(outcome(&auth, &token).await, expected, "{token}");
        }
    }
    // A cached token expires by the shorter leeway.
    let token = good().expires_in(Duration::from_secs(100)).sign();
    for (seconds, expected) in [(0, "accepted"), (159, "accepted"), (1, "token_expired")] {
        world.clock.advance(Duration::from_secs(seconds));
        assert_eq!(outcome(&auth, &token).await, expected);
    }
}

#[tokio::test]
async fn resolver_cannot_admit_missing_subjects() {
    let world = TenantWorld::new().await;
    let token = world.acme.service_token("robot").without("sub").sign();
    for (of_template, of_tenant) in [(false, true), (true, false), (true, true)] {
        let rules: fn(IssuerConfig) -> IssuerConfig = match of_tenant {
            true => |tenant| tenant.legacy_service_tokens(true),
            false => |tenant| tenant.legacy_service_tokens(false),
        };
        let resolver = ChangesRules(world.directory.clone(), rules);
        let template = template(&world.provider).legacy_service_tokens(of_template);
        let auth = service_of_tenants(template, resolver, &world.clock);
        let expected = if of_template && of_tenant { "accepted" } else { "token_claim_missing" };
        assert_eq!(outcome(&auth, &token).await, expected, "{of_template} {of_tenant}");
    }
}

#[tokio::test]
async fn resolver_may_return_stricter_rules() {
    let world = TenantWorld::new().await;
    let strict = |tenant: IssuerConfig| tenant.profile(TokenProfile::Rfc9068);
    let resolver = ChangesRules(world.directory.clone(), strict);
    let auth = service_of_tenants(template(&world.provider), resolver, &world.clock);
    let strict = world.acme.token().typ(Some("at+jwt")).claim("client_id", "app").sign();
    assert_eq!(outcome(&auth, &token(&world.acme)).await, "token_type");
    assert_eq!(outcome(&auth, &strict).await, "accepted");
    assert_eq!(outcome(&auth, &token(&world.acme)).await, "token_type");
}

#[tokio::test]
async fn reopened_tenant_ignores_the_budget() {
    let world = TenantWorld::new().await;
    assert_eq!(world.status(&token(&world.acme)).await, 200);
    world.acme.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.acme.heal(ProviderEndpoint::Jwks);
    let stale = token(&world.acme);
    for nth in 0..200 {
        assert_eq!(world.status(&invented(&world.provider, &format!("flood-{nth}"))).await, 401);
    }
    assert_eq!(world.directory.calls(), 1 + 200);
    assert_eq!(world.status(&stale).await, 200, "its keys died, and it is opened again");
}

#[tokio::test]
async fn listed_tenant_ignores_the_budget() {
    let world = TenantWorld::new().await;
    let ids = (0..250).map(|nth| format!("flood-{nth}")).chain(["tnt-1".to_owned()]);
    let ids: Vec<_> = ids.map(|id| scaikey_auth::TenantId::new(&id).unwrap()).collect();
    let listed = template(&world.provider).tenants(ids);
    let auth = service_of_tenants(listed, world.directory.clone(), &world.clock);
    let flood = (0..250).map(|nth| invented(&world.provider, &format!("flood-{nth}")));
    assert!(statuses(&auth, flood).await.iter().all(|status| *status == 401));
    assert_eq!(world.directory.calls(), 250, "the budget is exhausted");
    assert_eq!(outcome(&auth, &invented(&world.provider, "tnt-3")).await, "token_issuer_tenant");
    assert_eq!(status(&auth, &token(&world.acme)).await, 200);
}

/// A directory with its tenants in memory.
#[derive(Debug)]
struct InMemory(super::tenant_fixture::Directory);

#[async_trait::async_trait]
impl scaikey_auth::issuer::TenantIssuers for InMemory {
    async fn resolve(
        &self,
        tenant: &scaikey_auth::TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, scaikey_auth::error::BoxError> {
        self.0.resolve(tenant, template).await
    }

    fn knows(&self, tenant: &scaikey_auth::TenantId) -> Option<bool> {
        Some(!tenant.as_str().starts_with("flood"))
    }
}

#[tokio::test]
async fn tenant_refused_by_knows_is_not_resolved() {
    let world = TenantWorld::new().await;
    let directory = InMemory(world.directory.clone());
    let auth = service_of_tenants(template(&world.provider), directory, &world.clock);
    let flood = (0..300).map(|nth| invented(&world.provider, &format!("flood-{nth}")));
    assert!(statuses(&auth, flood).await.iter().all(|status| *status == 401));
    assert_eq!(world.directory.calls(), 0);
    assert_eq!(status(&auth, &token(&world.acme)).await, 200);
}

#[tokio::test]
async fn tenant_waits_for_the_budget() {
    let world = TenantWorld::with(|mut template| {
        template.jwks.wait = Duration::from_secs(3600);
        template
    })
    .await;
    exhaust(&world).await;
    let (auth, first) = (world.auth.clone(), token(&world.acme));
    let mut waiting = std::pin::pin!(status(&auth, &first));
    for _ in 0..3 {
        let step = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::future::Future::poll(waiting.as_mut(), context))
        });
        assert!(step.await.is_pending());
    }
    world.clock.advance(Duration::from_millis(50));
    assert_eq!(waiting.await, 200, "the budget allowed it");
}

#[tokio::test]
async fn verified_issuer_with_shared_keys_is_cached() {
    let (provider, clock) = provider().await;
    let auth = service([template(&provider).jwks_uri(provider.jwks_uri())], &clock);
    for nth in 0..100 {
        let iss = format!("{}/tenants/flood-{nth}", provider.url());
        let unknown = scaikey_auth::testing::SigningKey::generate(Algorithm::ES256);
        let forged = provider.token().issuer(&iss).tenant(&format!("flood-{nth}"));
        assert_eq!(status(&auth, &forged.signed_by(&unknown).sign()).await, 401);
    }
    assert!(auth.issuers().health().is_empty(), "no token was verified");
    assert_eq!(status(&auth, &invented(&provider, "real")).await, 200);
    until(|| auth.issuers().health().len() == 1).await;
    assert!(provider.jwks_requests() <= 3, "{}", provider.jwks_requests());
}
