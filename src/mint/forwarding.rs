//! [`ForwardingMinter`]: the provider mints, asked by RFC 8693.

use async_trait::async_trait;

use super::{MintRequest, Minted, Minter};
use crate::exchange::{ExchangeError, ExchangeRequest, TokenExchangeClient, TokenType};

/// Has the provider mint (feature `trust`): hands on the foreign token, whose issuer the provider must trust as well,
/// and asks for the granted scopes and for this service, by its `audience` alone (RFC 8693). The
/// service proves itself by its own client authentication.
///
/// Neither the answer nor a JWT in it (`scope`, `scp`, `scopes`) may permit more than was granted. A
/// JWT must name the audience in `aud`, and if it has a `tenant_id`, that must be the granted one.
/// Opaque tokens cannot be looked into. `sub`, and roles and groups, are the provider's to say.
///
/// Nothing is kept: each token of a workload is judged anew, and one of single use is never answered
/// twice. A token may outlive the foreign one, as the provider sees fit.
#[derive(Debug, Clone)]
pub struct ForwardingMinter(TokenExchangeClient);

impl ForwardingMinter {
    /// By this client.
    pub fn new(client: TokenExchangeClient) -> Self {
        Self(client)
    }
}

#[async_trait]
impl Minter for ForwardingMinter {
    async fn mint(&self, order: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        let granted = order.granted;
        let mut request = ExchangeRequest::new(order.subject_token.clone(), order.audience)
            .scopes(granted.scopes.clone())
            .in_tenant(granted.tenant.clone());
        request.subject_type = TokenType::Jwt;
        let token = self.0.exchange_foreign(request).await?;
        let scopes = token.scopes().unwrap_or(&granted.scopes).clone();
        Ok(Minted::new(token.secret().clone(), token.lifetime(), scopes))
    }
}
