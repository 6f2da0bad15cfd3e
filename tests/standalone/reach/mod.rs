//! Ways to reach a provider: plain `http` in a mesh, a private CA, proxies, and clients of the service's own.

mod ca_file;
mod environment;
mod http_client;
mod plain_http;

use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::{ServiceTokenRequest, TokenExchangeBuilder};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, ManualClock, Provider};
use scaikey_auth::{Auth, AuthBuilder, ConfigError, IssuerConfig, TokenExchangeClient};

/// A provider with one ES256 key, where the client `wave` may get tokens for itself.
async fn provider(clock: &ManualClock) -> Provider {
    let builder = Provider::builder().algorithms([Algorithm::ES256]).clock(clock.clone());
    let provider = builder.start().await;
    provider.register_client(Client::new("wave", "s3cr3t").scopes("read"));
    provider
}

/// Returns a service that trusts `issuer`.
fn auth(issuer: IssuerConfig, clock: &ManualClock) -> AuthBuilder {
    let builder = Auth::builder().verified_tokens_bytes(1 << 20);
    builder.issuer(patient(issuer)).audience("scaiwave").clock(clock.clone())
}

/// Sets a long timeout, for busy machines.
fn patient(mut issuer: IssuerConfig) -> IssuerConfig {
    issuer.jwks.wait = std::time::Duration::from_secs(60);
    issuer
}

fn client(issuer: &str, clock: &ManualClock) -> TokenExchangeBuilder {
    let auth = ClientAuth::basic("wave", "s3cr3t");
    TokenExchangeClient::builder(issuer).client_auth(auth).clock(clock.clone())
}

/// Requests a token for the service itself. Returns whether there is one.
async fn has_token(client: &TokenExchangeClient) -> bool {
    client.service_token(ServiceTokenRequest::default()).await.is_ok()
}

async fn is_accepted(auth: &Auth, token: &str) -> bool {
    auth.authenticate(token).await.is_ok()
}

fn last_error(auth: &Auth) -> String {
    auth.issuers().health().remove(0).last_error.unwrap_or_default()
}

/// Returns the faults as lines of `field problem`.
fn faults<T: std::fmt::Debug>(built: Result<T, ConfigError>) -> Vec<String> {
    let error = built.expect_err("builds");
    error.faults().iter().map(|fault| format!("{} {}", fault.field, fault.problem)).collect()
}
