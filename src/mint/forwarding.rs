//! [`ForwardingMinter`]: requests tokens from the provider (RFC 8693).

use async_trait::async_trait;

use super::{MintRequest, Minted, Minter};
use crate::exchange::{ExchangeError, ExchangeRequest, TokenExchangeClient, TokenType};

/// A minter that forwards the foreign token to the provider (feature `trust`). The provider must
/// also trust the issuer of the foreign token.
///
/// The request (RFC 8693) contains the granted scopes and the service's `audience`. The workload's
/// `resource` is not forwarded. The service authenticates as an OAuth client.
///
/// A response is rejected (502) if it, or the claims `scope`, `scp` or `scopes` of a JWT in it,
/// contain scopes that were not granted. A JWT is also rejected if `aud` lacks the audience, or if
/// its `tenant_id` is not the granted tenant. Opaque tokens are not inspected. The provider decides
/// about `sub`, roles and groups.
///
/// Responses are not cached, so that the policy decides about each request, and a single-use token
/// is exchanged only once. The provider's token may live longer than the foreign token.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::mint::{ForwardingMinter, WorkloadExchange};
/// use scaikey_auth::trust::TrustEvaluator;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::basic("scaivault", "the secret"))
///     .build()?;
/// let trusts = TrustEvaluator::builder().own_issuer("https://scaikey.example").build()?;
/// let exchange = WorkloadExchange::new(trusts, ForwardingMinter::new(client), "scaivault");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ForwardingMinter(TokenExchangeClient);

impl ForwardingMinter {
    /// Creates a minter that uses `client`.
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
