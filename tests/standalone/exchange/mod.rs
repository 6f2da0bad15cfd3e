//! Tokens for downstream services: grants, client authentication and answers, over real sockets.

mod answers;
mod grants;
mod kept;
mod outages;
mod places;
mod proofs;
mod sessions;
mod signals;
mod spent_once;

use scaikey_auth::TokenExchangeClient;
use scaikey_auth::exchange::TokenExchangeBuilder;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, ManualClock, Provider, User};

const SECRET: &str = "s+%: /é";

/// A provider at which `drive` may do everything.
async fn provider() -> Provider {
    furnished(Provider::start().await)
}

fn furnished(provider: Provider) -> Provider {
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

/// A provider and a client that live by a clock to be moved.
async fn timed() -> (Provider, TokenExchangeClient, ManualClock) {
    timed_with(|builder| builder).await
}

async fn timed_with(
    set_up: impl FnOnce(TokenExchangeBuilder) -> TokenExchangeBuilder,
) -> (Provider, TokenExchangeClient, ManualClock) {
    let clock = ManualClock::new();
    let provider = furnished(Provider::builder().clock(clock.clone()).start().await);
    let client = set_up(builder(&provider)).clock(clock.clone()).build().unwrap();
    (provider, client, clock)
}
