//! Tenants behind PgBouncer in transaction mode, where no statement outlives its transaction.

use std::sync::Arc;

use scaikey_auth::tenant::{SqlTenantRow, SqlTenants, TenantStatus};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::postgres::{Bouncer, Postgres};
use crate::support::tenants::{id, status};

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_found_behind_pgbouncer() {
    let server = Postgres::start();
    let bouncer = Bouncer::before(&server);
    let mut services = JoinSet::new();
    let start = Arc::new(Barrier::new(6));
    for service in 0..6 {
        let (url, start) = (bouncer.url(), start.clone());
        services.spawn(async move {
            let tenants = SqlTenants::connect(&url).await.unwrap();
            start.wait().await;
            // One process creates the table; the others must not fail because of that.
            assert_eq!(status(&tenants, "unknown").await.unwrap(), None);
            tenants.migrate().await.unwrap();
            for number in 0..20 {
                let name = format!("tenant-{service}-{number}");
                let row = SqlTenantRow::default();
                tenants.insert(&id(&name), row, TenantStatus::Active).await.unwrap();
                assert_eq!(status(&tenants, &name).await.unwrap(), Some(TenantStatus::Active));
                tenants.remove(&id(&name)).await.unwrap();
                assert_eq!(status(&tenants, &name).await.unwrap(), None);
            }
        });
    }
    services.join_all().await;
}
