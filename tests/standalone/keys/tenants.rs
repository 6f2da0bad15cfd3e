//! One issuer per tenant: opened when needed, for tenants that exist, and for nobody else's tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{AuthError, IssuerConfig};
use tokio::sync::Semaphore;

use super::fixture::{
    provider, service, service_of_tenants, status, statuses, strange, token, verdict,
};
use super::town::{Town, invented, template};
use crate::support::Log;
use crate::support::until;

/// What a tenant that does not exist is called here.
const INVENTED: &str = "tnt-invented";

#[tokio::test]
async fn a_template_finds_keys_by_the_tenants_id() {
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
        assert_eq!(verdict(&auth, &token(&provider)).await, "token_issuer", "{config:?}");
    }
}

#[tokio::test]
async fn invented_tenants_share_their_warnings() {
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
        // A tenant that is there is told of by itself.
        let acme = provider.tenant("acme", "acme");
        assert_eq!(status(&auth, &token(&acme)).await, 200);
        let before = log.lines("WARN").len();
        acme.fail(ProviderEndpoint::Jwks, Fault::Status(500));
        clock.advance(Duration::from_secs(400));
        assert_eq!(status(&auth, &token(&acme)).await, 200);
        until(|| log.lines("WARN").len() > before).await;
    }
}

/// A directory that can be away.
#[derive(Debug, Clone, Default)]
struct Away(Arc<AtomicBool>);

#[async_trait::async_trait]
impl scaikey_auth::issuer::TenantIssuers for Away {
    async fn resolve(
        &self,
        _: &scaikey_auth::TenantId,
        _: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, scaikey_auth::error::BoxError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err("the directory is away".into()),
            false => Ok(None),
        }
    }
}

#[tokio::test]
async fn failing_resolver_is_warned_of_once() {
    let log = Log::start();
    let (provider, clock) = provider().await;
    let directory = Away::default();
    let auth = service_of_tenants(template(&provider), directory.clone(), &clock);
    let told = |level: &str| {
        let lines = log.lines(level);
        lines.iter().filter(|line| line.contains("resolver of tenants' issuers")).count()
    };
    for round in 1..=2 {
        directory.0.store(true, Ordering::SeqCst);
        for nth in 0..20 {
            let token = invented(&provider, &format!("{round}-{nth}"));
            assert_eq!(status(&auth, &token).await, 503);
        }
        assert_eq!(told("WARN"), round);
        assert!(log.lines("WARN").iter().any(|line| line.contains("the directory is away")));
        directory.0.store(false, Ordering::SeqCst);
        let token = invented(&provider, &format!("{round}-back"));
        assert_eq!(status(&auth, &token).await, 401);
        assert_eq!(told("INFO"), round);
    }
}

#[tokio::test]
async fn a_directory_finds_keys_by_slug() {
    let town = Town::new().await;
    assert!(town.auth.issuers().health().is_empty());
    for _ in 0..10 {
        assert_eq!(town.status(&token(&town.acme)).await, 200);
        assert_eq!(town.status(&token(&town.globex)).await, 200);
    }
    assert_eq!(town.directory.asked(), 2);
    assert_eq!((town.acme.jwks_requests(), town.globex.jwks_requests()), (1, 1));
    let health = town.auth.issuers().health();
    assert_eq!(health.len(), 2);
    assert!(health.iter().all(|one| one.state == KeyState::Fresh), "{health:?}");
}

#[tokio::test]
async fn a_tenants_issuer_speaks_for_its_tenant_only() {
    let Town { provider, acme, globex, auth, .. } = Town::new().await;
    let table = [
        (acme.token().tenant("tnt-2").sign(), "token_issuer_tenant"),
        (acme.token().without("tenant_id").sign(), "token_issuer_tenant"),
        (acme.token().issuer(&globex.issuer()).sign(), "token_issuer_tenant"),
        // Acme's key under globex's name.
        (acme.token().issuer(&globex.issuer()).tenant("tnt-2").sign(), "token_key_unknown"),
        (globex.token().kid(Some(&acme.kid())).sign(), "token_key_unknown"),
        (provider.token().issuer(&acme.issuer()).tenant("tnt-1").sign(), "token_key_unknown"),
        (acme.token().sign(), "accepted"),
        (globex.token().sign(), "accepted"),
    ];
    for (token, expected) in table {
        assert_eq!(verdict(&auth, &token).await, expected);
    }
}

#[tokio::test]
async fn a_hostile_id_in_iss_reaches_neither_directory_nor_network() {
    let Town { provider, acme, directory, auth, .. } = Town::new().await;
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
        assert_eq!(verdict(&auth, &token).await, "token_issuer", "{id:?}");
    }
    assert_eq!(directory.asked(), 0);
    assert_eq!(
        (provider.stray_requests(), acme.discovery_requests(), acme.jwks_requests()),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_tenant_the_directory_does_not_know_is_refused_and_not_asked_for_each_time() {
    let town = Town::new().await;
    let stranger = invented(&town.provider, INVENTED);
    for _ in 0..100 {
        assert_eq!(verdict(&town.auth, &stranger).await, "token_issuer");
    }
    assert_eq!(town.directory.asked(), 1);
    assert_eq!(town.provider.stray_requests(), 0);
    // A tenant that was just made is known a moment later.
    town.clock.advance(Duration::from_secs(10));
    assert_eq!(verdict(&town.auth, &stranger).await, "token_issuer");
    assert_eq!(town.directory.asked(), 2);
    assert_eq!(town.status(&token(&town.acme)).await, 200);
}

#[tokio::test]
async fn a_directory_that_fails_or_hangs_is_answered_with_503() {
    let town = Town::new().await;
    town.directory.answers.forget_permits(Semaphore::MAX_PERMITS);
    let error = town.auth.authenticate(&token(&town.acme)).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable { what: "issuer", .. }), "hangs: {error}");
    town.directory.answers.close();
    town.clock.advance(Duration::from_secs(10));
    let error = town.auth.authenticate(&token(&town.acme)).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable { what: "issuer", .. }), "fails: {error}");
    assert!(error.retry_after().unwrap() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_directory_that_panics_strands_nobody() {
    let town = Town::new().await;
    for nth in 1..4 {
        assert_eq!(town.status(&invented(&town.provider, "tnt-9")).await, 503);
        assert_eq!(town.directory.asked(), nth);
    }
    assert_eq!(town.status(&token(&town.acme)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_first_tokens_of_a_tenant_open_its_issuer_once() {
    let town = Town::new().await;
    let token = token(&town.acme);
    let requests: Vec<_> = (0..500)
        .map(|_| {
            let (auth, token) = (town.auth.clone(), token.clone());
            tokio::spawn(async move { status(&auth, &token).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!((town.directory.asked(), town.acme.jwks_requests()), (1, 1));
}

#[tokio::test]
async fn a_flood_of_invented_tenants_opens_a_bounded_number() {
    let town = Town::new().await;
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    let flood = (0..300).map(|nth| invented(&town.provider, &format!("flood-{nth}")));
    let statuses = statuses(&town.auth, flood).await;
    assert!(statuses.iter().all(|status| [401, 503].contains(status)));
    assert!(town.directory.asked() <= 200, "{}", town.directory.asked());
    assert_eq!(town.status(&token(&town.acme)).await, 200, "open issuers go on");
    town.clock.advance(Duration::from_secs(2));
    assert_eq!(town.status(&token(&town.globex)).await, 200, "and so do new ones, soon");
}

#[tokio::test]
async fn invented_tenants_cost_the_provider_what_opening_costs_and_nothing_later() {
    // Without a directory the provider itself is asked whether there is such a tenant.
    let (provider, clock) = provider().await;
    let acme = provider.tenant("acme", "acme");
    let place =
        format!("{}/api/v1/auth/tenants/{{tenant_id}}/.well-known/jwks.json", provider.url());
    let auth = service([template(&provider).jwks_uri(place)], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    let flood = (0..300).map(|nth| invented(&provider, &format!("flood-{nth}")));
    assert!(statuses(&auth, flood).await.iter().all(|status| *status == 503));
    let asked = provider.stray_requests();
    assert!(asked <= 200, "{asked}");
    // A probe does not ask for what never was, and an operator is not told about it.
    clock.advance(Duration::from_secs(100));
    for _ in 0..10 {
        assert_eq!(auth.issuers().health().len(), 1);
        assert_eq!(status(&auth, &token(&acme)).await, 200);
    }
    acme.wait_for_jwks_requests(1).await;
    assert_eq!(provider.stray_requests(), asked);
}

#[tokio::test]
async fn a_tenant_whose_keys_are_away_is_answered_with_503_and_then_recovers() {
    for fault in [Fault::Status(404), Fault::Status(500), Fault::HangUp, Fault::html()] {
        let town = Town::new().await;
        town.acme.fail(ProviderEndpoint::Jwks, fault.clone());
        for _ in 0..20 {
            let error = town.auth.authenticate(&token(&town.acme)).await.unwrap_err();
            assert_eq!(error.status(), 503, "{fault:?}");
            assert!(error.retry_after().is_some(), "{fault:?}");
        }
        assert_eq!(town.acme.jwks_requests(), 1, "{fault:?}");
        assert_eq!(town.status(&token(&town.globex)).await, 200, "{fault:?}");
        town.acme.heal(ProviderEndpoint::Jwks);
        town.clock.advance(Duration::from_secs(61));
        assert_eq!(town.status(&token(&town.acme)).await, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn a_tenant_whose_keys_hang_is_waited_for_only_so_long() {
    let town = Town::new().await;
    let mut template = template(&town.provider);
    template.jwks.wait = Duration::from_millis(50);
    let auth = service_of_tenants(template, town.directory.clone(), &town.clock);
    town.acme.fail(ProviderEndpoint::Jwks, Fault::Hang);
    for _ in 0..3 {
        assert_eq!(status(&auth, &token(&town.acme)).await, 503);
    }
    town.acme.wait_for_jwks_requests(1).await;
    assert_eq!((town.directory.asked(), town.acme.jwks_requests()), (1, 1));
    town.acme.heal(ProviderEndpoint::Jwks);
    crate::support::until(|| !auth.issuers().health().is_empty()).await;
    assert_eq!(status(&auth, &token(&town.acme)).await, 200);
    assert_eq!(town.acme.jwks_requests(), 1);
}

#[tokio::test]
async fn a_tenants_keys_live_as_those_of_other_issuers() {
    let town = Town::new().await;
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    let old = token(&town.acme);
    town.acme.rotate();
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    town.acme.remove_old_keys();
    town.auth.issuers().purge(&town.acme.issuer());
    assert_eq!(town.status(&old).await, 401);
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    for _ in 0..10 {
        assert_eq!(town.status(&strange(&town.acme)).await, 401);
    }
    assert!(town.acme.jwks_requests() <= 5, "{}", town.acme.jwks_requests());
    assert_eq!((town.directory.asked(), town.globex.jwks_requests()), (1, 0));
}

#[tokio::test]
async fn a_tenant_whose_keys_died_is_looked_up_anew() {
    let town = Town::new().await;
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    town.acme.fail(ProviderEndpoint::Jwks, Fault::Status(404));
    town.clock.advance(Duration::from_secs(23 * 3600));
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    assert_eq!(town.directory.asked(), 1);
    town.clock.advance(Duration::from_secs(3600));
    assert_eq!(town.status(&token(&town.acme)).await, 503);
    assert_eq!(town.directory.asked(), 2);
    town.acme.heal(ProviderEndpoint::Jwks);
    town.clock.advance(Duration::from_secs(61));
    assert_eq!(town.status(&token(&town.acme)).await, 200);
}

#[tokio::test]
async fn keys_of_a_tenant_that_were_on_their_way_when_they_were_purged_are_not_used() {
    let town = Town::new().await;
    let old = token(&town.acme);
    town.acme.fail(ProviderEndpoint::Jwks, Fault::Stall);
    let (auth, first) = (town.auth.clone(), old.clone());
    let waiting = tokio::spawn(async move { status(&auth, &first).await });
    town.acme.wait_for_jwks_requests(1).await;
    town.acme.rotate();
    town.acme.remove_old_keys();
    town.auth.issuers().purge(&town.acme.issuer());
    town.acme.heal(ProviderEndpoint::Jwks);
    assert_eq!(waiting.await.unwrap(), 401);
    assert_eq!(verdict(&town.auth, &old).await, "token_key_unknown");
    assert_eq!(town.status(&token(&town.acme)).await, 200);
}

#[tokio::test]
async fn templates_come_and_go() {
    let town = Town::new().await;
    let name = format!("{}/tenants/{{tenant_id}}", town.provider.url());
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    town.auth.issuers().remove(&name);
    assert_eq!(verdict(&town.auth, &token(&town.acme)).await, "token_issuer");
    assert!(town.auth.issuers().health().is_empty());
    let directory = Arc::new(town.directory.clone());
    town.auth.issuers().add_tenant_issuers(template(&town.provider), directory.clone()).unwrap();
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    let single = IssuerConfig::new(town.provider.issuer()).allow_loopback_http(true);
    assert!(town.auth.issuers().add_tenant_issuers(single, directory).is_err(), "no placeholder");
}

#[tokio::test]
async fn a_listed_issuer_goes_before_a_template_that_fits_it() {
    let town = Town::new().await;
    let listed = IssuerConfig::new(town.acme.issuer())
        .jwks_uri(town.globex.jwks_uri())
        .algorithms([Algorithm::ES256])
        .allow_loopback_http(true);
    town.auth.issuers().add(listed).unwrap();
    let by_globex = town.acme.token().signed_by(&town.globex.key()).sign();
    assert_eq!(town.status(&by_globex).await, 200);
    assert_eq!(town.directory.asked(), 0);
}

/// Uses up what tenants that may be invented are given at once.
async fn exhaust(town: &Town) {
    for nth in 0..200 {
        assert_eq!(town.status(&invented(&town.provider, &format!("flood-{nth}"))).await, 401);
    }
    assert_eq!(town.directory.asked(), 200);
}

#[tokio::test]
async fn a_token_that_is_wrong_opens_nothing() {
    let town = Town::new().await;
    let named = |id: &str| {
        let iss = format!("{}/tenants/{id}", town.provider.url());
        town.provider.token().issuer(&iss).tenant(id)
    };
    let bare = |id: &str| {
        let token = named(id).without("aud").without("exp").without("iat");
        token.without("sub").without("nbf").sign()
    };
    for nth in 0..300 {
        assert_eq!(town.status(&bare(&format!("bare-{nth}"))).await, 401);
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
        assert_eq!(verdict(&town.auth, &token).await, expected);
    }
    assert_eq!((town.directory.asked(), town.provider.stray_requests()), (0, 0));
    assert_eq!(town.status(&token(&town.acme)).await, 200);
}

#[tokio::test]
async fn a_tenant_opened_before_passes_the_budget() {
    let town = Town::new().await;
    assert_eq!(town.status(&token(&town.acme)).await, 200);
    town.acme.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    town.clock.advance(Duration::from_secs(24 * 3600));
    town.acme.heal(ProviderEndpoint::Jwks);
    let stale = token(&town.acme);
    for nth in 0..200 {
        assert_eq!(town.status(&invented(&town.provider, &format!("flood-{nth}"))).await, 401);
    }
    assert_eq!(town.directory.asked(), 1 + 200);
    assert_eq!(town.status(&stale).await, 200, "its keys died, and it is opened anew");
}

#[tokio::test]
async fn a_listed_tenant_passes_the_budget() {
    let town = Town::new().await;
    let ids = (0..250).map(|nth| format!("flood-{nth}")).chain(["tnt-1".to_owned()]);
    let ids: Vec<_> = ids.map(|id| scaikey_auth::TenantId::new(&id).unwrap()).collect();
    let listed = template(&town.provider).tenants(ids);
    let auth = service_of_tenants(listed, town.directory.clone(), &town.clock);
    let flood = (0..250).map(|nth| invented(&town.provider, &format!("flood-{nth}")));
    assert!(statuses(&auth, flood).await.iter().all(|status| *status == 401));
    assert_eq!(town.directory.asked(), 250, "nobody else can be invented");
    assert_eq!(verdict(&auth, &invented(&town.provider, "tnt-3")).await, "token_issuer_tenant");
    assert_eq!(status(&auth, &token(&town.acme)).await, 200);
}

/// A directory that has its tenants in memory.
#[derive(Debug)]
struct InMemory(super::town::Directory);

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
async fn a_directory_that_knows_refuses_without_resolving() {
    let town = Town::new().await;
    let directory = InMemory(town.directory.clone());
    let auth = service_of_tenants(template(&town.provider), directory, &town.clock);
    let flood = (0..300).map(|nth| invented(&town.provider, &format!("flood-{nth}")));
    assert!(statuses(&auth, flood).await.iter().all(|status| *status == 401));
    assert_eq!(town.directory.asked(), 0);
    assert_eq!(status(&auth, &token(&town.acme)).await, 200);
}

#[tokio::test]
async fn a_tenant_waits_for_its_turn() {
    let town = Town::with(|mut template| {
        template.jwks.wait = Duration::from_secs(3600);
        template
    })
    .await;
    exhaust(&town).await;
    let (auth, first) = (town.auth.clone(), token(&town.acme));
    let mut waiting = std::pin::pin!(status(&auth, &first));
    for _ in 0..3 {
        let step = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::future::Future::poll(waiting.as_mut(), context))
        });
        assert!(step.await.is_pending());
    }
    town.clock.advance(Duration::from_millis(50));
    assert_eq!(waiting.await, 200, "the budget gave it a turn");
}

#[tokio::test]
async fn an_issuer_of_common_keys_is_kept_once_verified() {
    let (provider, clock) = provider().await;
    let auth = service([template(&provider).jwks_uri(provider.jwks_uri())], &clock);
    for nth in 0..100 {
        let iss = format!("{}/tenants/flood-{nth}", provider.url());
        let stranger = scaikey_auth::testing::SigningKey::generate(Algorithm::ES256);
        let forged = provider.token().issuer(&iss).tenant(&format!("flood-{nth}"));
        assert_eq!(status(&auth, &forged.signed_by(&stranger).sign()).await, 401);
    }
    assert!(auth.issuers().health().is_empty(), "nobody was verified");
    assert_eq!(status(&auth, &invented(&provider, "real")).await, 200);
    until(|| auth.issuers().health().len() == 1).await;
    assert!(provider.jwks_requests() <= 3, "{}", provider.jwks_requests());
}
