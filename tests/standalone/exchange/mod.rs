//! Tokens for downstream services: grants, client authentication and answers, over real sockets.

mod answers;
mod caching;
mod client_auth;
mod endpoints;
mod grants;
mod on_behalf_of;
mod outages;
mod revoked;
mod sessions;
mod single_use;
mod telemetry;
mod workload;

use scaikey_auth::TokenExchangeClient;
use scaikey_auth::exchange::TokenExchangeBuilder;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, ManualClock, Provider, User};

const SECRET: &str = "s+%: /é";

/// Returns a provider where the client `drive` may use every grant.
async fn provider() -> Provider {
    with_accounts(Provider::start().await)
}

fn with_accounts(provider: Provider) -> Provider {
    let drive = Client::new("drive:1 %", SECRET).scopes("read write");
    provider.register_client(drive.may_exchange("scaivault", "vault:read vault:write"));
    provider.register_user(User::new("bob", "hunter2"));
    provider
}

fn drive() -> ClientAuth {
    ClientAuth::basic("drive:1 %", SECRET)
}

fn builder(provider: &Provider) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(provider.issuer()).allow_loopback_http(true).client_auth(drive())
}

fn client(provider: &Provider) -> TokenExchangeClient {
    builder(provider).build().unwrap()
}

/// Returns a provider and a client with one manual clock.
async fn timed() -> (Provider, TokenExchangeClient, ManualClock) {
    timed_with(|builder| builder).await
}

async fn timed_with(
    configure: impl FnOnce(TokenExchangeBuilder) -> TokenExchangeBuilder,
) -> (Provider, TokenExchangeClient, ManualClock) {
    let clock = ManualClock::new();
    let provider = with_accounts(Provider::builder().clock(clock.clone()).start().await);
    let client = configure(builder(&provider)).clock(clock.clone()).build().unwrap();
    (provider, client, clock)
}
