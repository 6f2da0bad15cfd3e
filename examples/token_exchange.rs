//! Run with `cargo run --example token_exchange`
//!
//! The story of a plugin: a drive whose users keep secrets in a vault. The drive holds each user's
//! token and needs another one for the vault, which it gets by token exchange (RFC 8693) and keeps.
//! Time is moved by hand, so that an hour passes at once; a provider in a box stands for ScaiKey.

use std::time::Duration;

use scaikey_auth::exchange::{AccessToken, ExchangeError};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Fault, ManualClock, Provider, ProviderEndpoint};
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = ManualClock::new();
    let provider = Provider::builder().clock(clock.clone()).start().await;
    let drive = Client::new("scaidrive", "a secret").may_exchange("scaivault", "vault:read");
    provider.register_client(drive);

    let client = TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("scaidrive", "a secret"))
        .allow_loopback_http(true)
        .clock(clock.clone())
        .build()?;
    let session = Duration::from_secs(8 * 3600);
    let alice = provider.token().subject("alice").expires_in(session).sign();
    let bob = provider.token().subject("bob").expires_in(session).sign();
    let for_vault = |subject: &str| ExchangeRequest::new(subject, "scaivault");

    println!("Both users open their vault, and open it again:");
    for user in [&alice, &bob, &alice, &bob] {
        tell(&provider, client.exchange(&for_vault(user)).await);
    }

    println!("A thousand requests of alice's at once:");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (client, request) = (client.clone(), for_vault(&alice));
        requests.spawn(async move { client.exchange(&request).await });
    }
    let tokens = requests.join_all().await;
    println!("  {} tokens, {} requests to the provider", tokens.len(), provider.token_requests());

    println!("52 minutes later the tokens are due. They serve while the next ones are got:");
    clock.advance(Duration::from_secs(52 * 60));
    tell(&provider, client.exchange(&for_vault(&alice)).await);
    while provider.granted("urn:ietf:params:oauth:grant-type:token-exchange") < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell(&provider, client.exchange(&for_vault(&alice)).await);

    println!("The provider goes away. Nobody notices, for bob's token is good for 8 minutes more:");
    provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    clock.advance(Duration::from_secs(5 * 60));
    tell(&provider, client.exchange(&for_vault(&bob)).await);
    provider.heal(ProviderEndpoint::Token);

    println!("The drive may not have tokens for the payroll, and asks for them once:");
    clock.advance(Duration::from_secs(60));
    for _ in 0..2 {
        tell(&provider, client.exchange(&ExchangeRequest::new(alice.as_str(), "payroll")).await);
    }
    Ok(())
}

/// Prints what came, but never a token.
fn tell(provider: &Provider, outcome: Result<AccessToken, ExchangeError>) {
    let asked = provider.token_requests();
    match outcome {
        Ok(token) => {
            let status = token.cache_status().as_str();
            let claims: serde_json::Value =
                insecure_decode_claims(token.secret().expose()).unwrap_or_default();
            let (sub, aud, scope) = (&claims["sub"], &claims["aud"], &claims["scope"]);
            println!("  {status:9} sub {sub} aud {aud} scope {scope}; {asked} requests so far");
        }
        Err(error) => println!("  {error}; {asked} requests so far"),
    }
}
