//! Registrations behind PgBouncer in transaction mode, where no statement outlives its transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use scaikey_auth::registrar::{Registrar, SqlRegistrar};
use scaikey_auth::testing::identity;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::task::JoinSet;

use crate::postgres::{Bouncer, Postgres};

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Registrars of six services, one of which uses an existing pool.
async fn services(bouncer: &Bouncer) -> Vec<SqlRegistrar> {
    let connect = |_| SqlRegistrar::connect_lazy_with_timeout(&bouncer.url(), TIMEOUT).unwrap();
    let mut registrars: Vec<_> = (0..5).map(connect).collect();
    let options: PgConnectOptions = bouncer.url().expose().parse().unwrap();
    let pool = PgPoolOptions::new()
        .acquire_timeout(TIMEOUT)
        .connect_lazy_with(options.extra_float_digits(None));
    registrars.push(SqlRegistrar::from_postgres(pool));
    registrars.into_iter().map(|registrar| registrar.timeout(TIMEOUT)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_works_behind_pgbouncer() {
    let server = Postgres::start();
    let bouncer = Bouncer::before(&server);
    let services = services(&bouncer).await;
    let mut calls = JoinSet::new();
    for number in 0..120 {
        let registrar = services[number % services.len()].clone();
        let user = identity(json!({"sub": format!("user-{number}"), "name": "Some"}));
        calls.spawn(async move { registrar.register(&user).await });
    }
    let mut seen = BTreeSet::new();
    for outcome in calls.join_all().await {
        let registration = outcome.unwrap();
        assert!(registration.created && seen.insert(registration.participant_id.to_string()));
    }
    let renamed = identity(json!({"sub": "user-7", "name": "Other"}));
    for registrar in &services {
        registrar.migrate().await.unwrap();
        let again = registrar.register(&renamed).await.unwrap();
        assert!(!again.created && seen.contains(&again.participant_id.to_string()));
        let profile = registrar.profile(&again.participant_id).await.unwrap().unwrap();
        assert_eq!(profile.display_name.as_deref(), Some("Other"));
    }
}
