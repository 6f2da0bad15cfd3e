//! Run with `cargo run --example background_worker`
//!
//! Runs a background worker that has no users. It reads the documents of every tenant with a
//! service token for that tenant (client credentials, RFC 6749 §4.4). The document service verifies
//! the tokens.

use axum::{Router, routing::get};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::testing::{Client, Provider};
use scaikey_auth::{Auth, Identity, IssuerConfig, Tenant, TenantId, TokenExchangeClient};

mod serve;

const TENANTS: [&str; 3] = ["acme", "umbrella", "initech"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Provider::start().await;
    for tenant in TENANTS {
        // As in ScaiKey, each tenant has its own issuer and token endpoint.
        provider.tenant(tenant, tenant).register_client(Client::new("indexer", "a secret"));
    }
    let documents = start_document_service(&provider).await?;

    let client = TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("indexer", "a secret"))
        .allow_loopback_http(true)
        .token_url(format!("{}/api/v1/auth/tenants/{{tenant_id}}/oauth/token", provider.url()))
        .build()?;
    let http = reqwest::Client::new();
    for round in 1..=3 {
        for tenant in TENANTS {
            let token = client.service_token(TenantId::new(tenant)?).await?;
            let status = token.cache_status().as_str();
            let request = http.get(format!("{documents}/documents"));
            let answer = request.bearer_auth(token.secret().expose()).send().await?.text().await?;
            println!("round {round}, {status:4}: {answer}");
        }
    }
    Ok(())
}

/// Starts the document service, which accepts tokens of every tenant, and returns its URL.
async fn start_document_service(provider: &Provider) -> Result<String, Box<dyn std::error::Error>> {
    let url = provider.url();
    let issuer = IssuerConfig::new(format!("{url}/tenants/{{tenant_id}}"))
        .jwks_uri(format!("{url}/api/v1/auth/tenants/{{tenant_id}}/.well-known/jwks.json"))
        .allow_loopback_http(true);
    // Accepts every tenant of this provider.
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").tenants(AnyTenant).build()?;
    let documents = async |identity: Identity, tenant: Tenant| {
        format!("the documents of {}, for {}", tenant.id(), identity.subject())
    };
    let app: Router = Router::new().route("/documents", get(documents)).layer(auth.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { serve::serve(listener, app, serve::HEAD_TIMEOUT).await });
    Ok(url)
}
