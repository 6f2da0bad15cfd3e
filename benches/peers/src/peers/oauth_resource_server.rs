//! oauth-resource-server with an initial key set, and its layer for any tower service.

use std::sync::Arc;

use bytes::Bytes;
use oauth_resource_server::http_layer::HttpAuthLayer;
use oauth_resource_server::{Credential, KeyNaming, OAuthConfig, OAuthValidator};
use tower::Layer;

use super::Built;
use super::tower_service::small_service;
use crate::protocol::Provider;
use crate::service::Pair;

pub(super) fn build(provider: &Provider) -> Built {
    let config = OAuthConfig {
        enabled: true,
        issuer: provider.issuer.clone(),
        jwks_uri: Some(provider.jwks_uri.clone()),
        audience: provider.audience.clone(),
        resource: "https://api.example.com".to_owned(),
        algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
        required_scope: Some("profile".to_owned()),
        ..OAuthConfig::default()
    };
    let resolved =
        config.resolve(KeyNaming::Dotted("oauth"))?.ok_or("the configuration is disabled")?;
    let validator = OAuthValidator::builder(&resolved).initial_jwks(&provider.jwks).build()?;
    let layer = HttpAuthLayer::builder().oauth(Arc::new(validator)).build()?;
    let service =
        small_service::<(), Bytes>(|extensions| match extensions.get::<Credential>()? {
            Credential::OAuth(token) => token.subject.clone(),
            _ => None,
        });
    Ok(Some(Pair::new::<(), _, _, _, _>(layer.layer(service.clone()), service)))
}
