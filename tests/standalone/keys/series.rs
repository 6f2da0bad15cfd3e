//! What metrics count: nobody can make new time series by inventing tokens.

use std::collections::BTreeSet;
use std::sync::Mutex;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::fixture::{World, provider, service, status, token};
use super::town::{invented, template};

/// Remembers which series there are.
#[derive(Default)]
struct Series(Mutex<BTreeSet<String>>);

impl Series {
    fn all(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Recorder for Series {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.lock().unwrap().insert(key.to_string());
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.lock().unwrap().insert(key.to_string());
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.lock().unwrap().insert(key.to_string());
        Histogram::noop()
    }
}

#[tokio::test]
async fn strange_key_ids_and_issuers_make_no_series() {
    let series = Series::default();
    let _counting = metrics::set_default_local_recorder(&series);
    let world = World::warm().await;
    world.strange().await;
    let before = series.all();
    assert!(before.iter().any(|name| name.contains("jwks_refreshes")), "{before:?}");
    for nth in 0..1000 {
        let token = world.provider.token().kid(Some(&format!("kid-{nth}")));
        world.status(&token.clone().sign()).await;
        world.status(&token.issuer(&format!("https://{nth}.example")).sign()).await;
    }
    assert_eq!(series.all(), before);
}

#[tokio::test]
async fn invented_tenants_make_no_series() {
    let series = Series::default();
    let _counting = metrics::set_default_local_recorder(&series);
    let (provider, clock) = provider().await;
    let acme = provider.tenant("acme", "acme");
    let keys =
        format!("{}/api/v1/auth/tenants/{{tenant_id}}/.well-known/jwks.json", provider.url());
    let auth = service([template(&provider).jwks_uri(keys)], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    assert_eq!(status(&auth, &invented(&provider, "nobody")).await, 503);
    let before = series.all();
    assert!(before.iter().any(|name| name.contains("{tenant_id}")), "{before:?}");
    for nth in 0..100 {
        status(&auth, &invented(&provider, &format!("nobody-{nth}"))).await;
    }
    assert_eq!(series.all(), before);
}
