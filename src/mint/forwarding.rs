//! [`ForwardingMinter`]: requests tokens from the provider (RFC 8693).

use async_trait::async_trait;

use super::{MintRequest, Minted, Minter};
use crate::exchange::{ExchangeError, ExchangeRequest, TokenExchangeClient, TokenType};

/// A minter that forwards the foreign token to the provider (feature `trust`). The provider must
/// trust its issuer too.
///
/// The request (RFC 8693) has the granted scopes and the service's `audience`, but no `resource`.
/// The service authenticates as an OAuth client.
///
/// Neither the response nor a JWT in it (`scope`, `scp`, `scopes`) may have scopes that were not
/// granted. A JWT must have the audience in `aud`, and its `tenant_id`, if any, must be the granted
/// tenant. Opaque tokens are not inspected. The provider decides about `sub`, roles and groups.
///
/// Responses are not cached: the policy decides about each request, and a single-use token never
/// gets two responses. The provider's token may live longer than the foreign one.
#[derive(Debug, Clone)]
pub struct ForwardingMinter(TokenExchangeClient);

impl ForwardingMinter {
    /// Makes a minter that uses this client.
    pub fn new(client: TokenExchangeClient) -> Self {
        Self(client)
    }
}

#[async_trait]
impl Minter for ForwardingMinter {
    async fn mint(&self, request: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        let granted = request.granted;
        let mut exchange = ExchangeRequest::new(request.subject_token.clone(), request.audience)
            .scopes(granted.scopes.clone())
            .in_tenant(granted.tenant.clone());
        exchange.subject_type = TokenType::Jwt;
        let token = self.0.exchange_foreign(exchange).await?;
        let scopes = token.scopes().unwrap_or(&granted.scopes).clone();
        Ok(Minted::new(token.secret().clone(), token.lifetime(), scopes))
    }
}
