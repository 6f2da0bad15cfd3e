//! Metrics: invented tokens add no time series.

use crate::support::MetricsRecorder;

use super::fixture::{World, provider, service, status, token};
use super::tenant_fixture::{invented, template};

#[tokio::test]
async fn unknown_kids_and_issuers_add_no_series() {
    let counts = MetricsRecorder::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let world = World::warm().await;
    world.unknown_kid().await;
    let before = counts.series();
    assert!(before.iter().any(|name| name.contains("jwks_refreshes")), "{before:?}");
    for nth in 0..1000 {
        let token = world.provider.token().kid(Some(&format!("kid-{nth}")));
        world.status(&token.clone().sign()).await;
        world.status(&token.issuer(&format!("https://{nth}.example")).sign()).await;
    }
    assert_eq!(counts.series(), before);
}

#[tokio::test]
async fn invented_tenants_add_no_series() {
    let counts = MetricsRecorder::default();
    let _counting = metrics::set_default_local_recorder(&counts);
    let (provider, clock) = provider().await;
    let acme = provider.tenant("acme", "acme");
    let keys =
        format!("{}/api/v1/auth/tenants/{{tenant_id}}/.well-known/jwks.json", provider.url());
    let auth = service([template(&provider).jwks_uri(keys)], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    assert_eq!(status(&auth, &invented(&provider, "unknown")).await, 503);
    let before = counts.series();
    assert!(before.iter().any(|name| name.contains("{tenant_id}")), "{before:?}");
    for nth in 0..100 {
        status(&auth, &invented(&provider, &format!("unknown-{nth}"))).await;
    }
    assert_eq!(counts.series(), before);
}
