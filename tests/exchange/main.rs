//! Tokens for downstream services: grants, client authentication and answers, over real sockets.

mod answers;
mod grants;
mod proofs;

use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{ClientAuth, TokenExchangeBuilder, TokenExchangeClient};

const SECRET: &str = "s+%: /é";

/// A provider at which `drive` may do everything.
async fn provider() -> Provider {
    let provider = Provider::start().await;
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
