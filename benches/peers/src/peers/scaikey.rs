//! scaikey-auth with the settings of its README, with and without the cache of verified tokens.

use std::time::Duration;

use bytes::Bytes;
use scaikey_auth::config::{Algorithm, JwksSettings};
use scaikey_auth::{Auth, AuthBuilder, AuthContext, IssuerConfig};
use tower::Layer;

use super::Built;
use super::tower_service::small_service;
use crate::protocol::Provider;
use crate::service::Pair;

pub(super) async fn cached(provider: &Provider) -> Built {
    build(builder(provider)).await
}

pub(super) async fn uncached(provider: &Provider) -> Built {
    build(builder(provider).verified_tokens_bytes(0)).await
}

fn builder(provider: &Provider) -> AuthBuilder {
    // The key set does not expire during the run, so that no refresh disturbs a round.
    let mut jwks = JwksSettings::default();
    jwks.ttl = Duration::from_secs(24 * 3600);
    jwks.max_stale = jwks.ttl;
    let issuer = IssuerConfig::new(provider.issuer.as_str())
        .algorithms([Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519])
        .allow_loopback_http(true)
        .jwks(jwks);
    Auth::builder().issuer(issuer).audience(provider.audience.as_str())
}

async fn build(builder: AuthBuilder) -> Built {
    let auth = builder.build()?;
    auth.ready().await?;
    // The layer requires a body type; an empty string is the cheapest.
    let service = small_service::<String, Bytes>(|extensions| {
        extensions.get::<AuthContext>().map(|context| context.identity().subject().to_owned())
    });
    Ok(Some(Pair::new::<String, _, _, _, _>(auth.layer().layer(service.clone()), service)))
}
