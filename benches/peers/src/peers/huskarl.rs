//! huskarl-axum with its validator for the RFC 9068 profile, configured from the provider's
//! metadata.

use huskarl_axum::extractors::ValidatedToken;
use huskarl_axum::layers::ValidatorLayer;
use huskarl_axum::resource_server::core::server_metadata::AuthorizationServerMetadata;
use huskarl_axum::resource_server::validator::rfc9068::{
    Rfc9068AccessTokenClaims, Rfc9068Validator,
};
use huskarl_reqwest::ReqwestClient;
use huskarl_reqwest::mtls::NoMtls;

use super::Built;
use super::router::{SubjectAnswer, pair, subject_answer, unprotected};
use crate::protocol::Provider;

pub(super) async fn build(provider: &Provider) -> Built {
    let client = ReqwestClient::builder().mtls(NoMtls).build().await?;
    let metadata = AuthorizationServerMetadata::fetch()
        .http_client(&client)
        .issuer(provider.issuer.as_str())
        .call()
        .await?;
    let validator = Rfc9068Validator::builder_from_metadata(&metadata)
        .audience(provider.audience.as_str())
        .jwks_source(client)
        .build()
        .await?;
    let layer = ValidatorLayer::builder().validator(validator).build();
    Ok(Some(pair(unprotected(subject).layer(layer.authenticated()))))
}

async fn subject(token: ValidatedToken<Rfc9068AccessTokenClaims>) -> SubjectAnswer {
    subject_answer(token.sub.as_deref().unwrap_or_default())
}
