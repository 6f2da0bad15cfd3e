//! tower-oauth2-resource-server with its key set in memory. The build selects its crypto library.

use std::time::Duration;

use bytes::Bytes;
use tower::Layer;
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;
use tower_oauth2_resource_server::validation::ClaimsValidationSpec;

use super::Built;
use super::claims::Claims;
use super::tower_service::small_service;
use crate::protocol::Provider;
use crate::service::Pair;

pub(super) async fn build(provider: &Provider) -> Built {
    let audiences = vec![provider.audience.clone()];
    let tenant = TenantConfiguration::static_builder(provider.jwks.as_str())
        .identifier(&provider.issuer)
        .audiences(&audiences)
        .claims_validation(ClaimsValidationSpec::recommended(&provider.issuer, &audiences))
        .build()?;
    let server = OAuth2ResourceServer::<Claims>::builder().add_tenant(tenant).build().await?;
    // It loads its keys in a background task.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let service =
        small_service::<(), Bytes>(|extensions| Some(extensions.get::<Claims>()?.sub.clone()));
    Ok(Some(Pair::new::<(), _, _, _, _>(server.into_layer().layer(service.clone()), service)))
}
