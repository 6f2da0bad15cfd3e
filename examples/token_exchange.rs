//! Run with `cargo run --example token_exchange`
//!
//! Exchanges and caches tokens. A drive exchanges the token of each user for a token for the vault
//! (RFC 8693). The example uses a test provider instead of ScaiKey, and a manual clock instead of
//! waiting for an hour.

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

    println!("Both users open the vault, twice each:");
    for user in [&alice, &bob, &alice, &bob] {
        print_outcome(&provider, client.exchange(&for_vault(user)).await);
    }

    println!("1,000 concurrent requests for alice's token:");
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (client, request) = (client.clone(), for_vault(&alice));
        requests.spawn(async move { client.exchange(&request).await });
    }
    let tokens = requests.join_all().await;
    println!("  {} tokens, {} requests to the provider", tokens.len(), provider.token_requests());

    println!(
        "52 minutes later, the tokens are due for renewal. The old token is returned while a background task renews it:"
    );
    clock.advance(Duration::from_secs(52 * 60));
    print_outcome(&provider, client.exchange(&for_vault(&alice)).await);
    while provider.granted("urn:ietf:params:oauth:grant-type:token-exchange") < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    print_outcome(&provider, client.exchange(&for_vault(&alice)).await);

    println!("The provider fails. The cached token of bob is valid for 8 more minutes:");
    provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    clock.advance(Duration::from_secs(5 * 60));
    print_outcome(&provider, client.exchange(&for_vault(&bob)).await);
    provider.heal(ProviderEndpoint::Token);

    println!("The drive may not get tokens for the service `payroll`. The refusal is cached:");
    clock.advance(Duration::from_secs(60));
    for _ in 0..2 {
        print_outcome(
            &provider,
            client.exchange(&ExchangeRequest::new(alice.as_str(), "payroll")).await,
        );
    }
    Ok(())
}

/// Prints the claims of the token or the error, but never the token.
fn print_outcome(provider: &Provider, outcome: Result<AccessToken, ExchangeError>) {
    let requests = provider.token_requests();
    match outcome {
        Ok(token) => {
            let status = token.cache_status().as_str();
            let claims: serde_json::Value =
                insecure_decode_claims(token.secret().expose()).unwrap_or_default();
            let (sub, aud, scope) = (&claims["sub"], &claims["aud"], &claims["scope"]);
            println!("  {status:9} sub {sub} aud {aud} scope {scope}; requests so far: {requests}");
        }
        Err(error) => println!("  {error}; requests so far: {requests}"),
    }
}
