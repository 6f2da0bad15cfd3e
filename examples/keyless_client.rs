//! Run with `cargo run --example keyless_client`
//!
//! Authenticates a service at its provider with the token that its cluster puts into a file, and so without
//! a client secret (RFC 7523 §2.2). The cluster replaces the file while the service runs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process};

use scaikey_auth::exchange::ServiceTokenRequest;
use scaikey_auth::issuer::{ClientAuth, WorkloadToken};
use scaikey_auth::testing::{Client, ManualClock, Provider, ProviderEndpoint, TestIssuer};
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};

/// The name of the pod's service account, as in the `sub` of its tokens.
const POD: &str = "system:serviceaccount:prod:wave";

/// The part of Kubernetes that writes the tokens of a pod.
struct Kubelet {
    cluster: TestIssuer,
    /// The audience of the projected volume: the issuer of the provider.
    audience: String,
    file: PathBuf,
}

impl Kubelet {
    /// Writes the first token, or replaces it. A reader sees the old file or the new one.
    fn renew(&self, lifetime: Duration) -> Result<(), Box<dyn Error>> {
        let token = self.cluster.token().subject(POD).audience(&self.audience);
        self.write(&token.expires_in(lifetime).sign())
    }

    /// Writes the token that every pod has by default.
    fn write_for_api_server(&self) -> Result<(), Box<dyn Error>> {
        let token = self.cluster.token().subject(POD).audience("https://kubernetes.default.svc");
        let pod = serde_json::json!({ "namespace": "prod" });
        self.write(&token.claim("kubernetes.io", pod).sign())
    }

    fn write(&self, token: &str) -> Result<(), Box<dyn Error>> {
        let next = self.file.with_extension("next");
        fs::write(&next, token)?;
        Ok(fs::rename(next, &self.file)?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::temp_dir().join(format!("keyless_client-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = run(&folder.join("provider")).await;
    fs::remove_dir_all(&folder)?;
    outcome
}

async fn run(file: &Path) -> Result<(), Box<dyn Error>> {
    // The provider trusts the issuer of the cluster, and maps the service account to the client `wave`.
    let clock = ManualClock::new();
    let provider = Provider::builder().clock(clock.clone()).start().await;
    let cluster = provider.issuer_at("/cluster");
    let wave = Client::federated("wave", &cluster, POD).may_exchange("scaivault", "vault:read");
    provider.register_client(wave.scopes("jobs:run").token_lifetime(Duration::from_secs(300)));
    provider.trust_workloads(&cluster, "wave-service", "acme");
    let kubelet = Kubelet { cluster, audience: provider.issuer(), file: file.to_owned() };
    kubelet.renew(Duration::from_secs(600))?;

    // In a deployment: `SCAIWAVE_WORKLOAD_TOKEN=kubernetes`, and a projected volume.
    let client = |token: WorkloadToken| {
        TokenExchangeClient::builder(provider.issuer())
            .client_auth(ClientAuth::assertion("wave", token))
            .allow_loopback_http(true)
            .clock(clock.clone())
            .build()
    };
    let tokens = client(WorkloadToken::file(file))?;
    let service_token = async || tokens.service_token(ServiceTokenRequest::default()).await;

    println!("1. The first token of the cluster authenticates the service.");
    println!("   status: {}", service_token().await?.cache_status().as_str());

    println!(
        "2. The cluster replaces the file; the next request to the provider has the new token."
    );
    clock.advance(Duration::from_secs(480));
    kubelet.renew(Duration::from_secs(600))?;
    println!("   status: {}", service_token().await?.cache_status().as_str());
    let sent = provider.received(ProviderEndpoint::Token);
    let assertions = sent.iter().flat_map(|request| request.form());
    let mut assertions: Vec<_> =
        assertions.filter(|(name, _)| name == "client_assertion").map(|(_, value)| value).collect();
    assertions.dedup();
    println!("   different assertions so far: {}", assertions.len());

    println!("3. The same token is exchanged for one of another service.");
    let request = ExchangeRequest::of_workload(WorkloadToken::file(file), "scaivault");
    let token = tokens.exchange(&request.scopes("vault:read".parse()?)).await?;
    println!("   scopes: {}", token.scopes().map(ToString::to_string).unwrap_or_default());

    println!("4. The cluster stops renewing. The error names the file, and nothing is sent.");
    clock.advance(Duration::from_secs(601));
    let before = provider.token_requests();
    match service_token().await {
        Ok(_) => return Err("an expired token was used".into()),
        Err(error) => println!("   {error}"),
    }
    println!("   requests: {}", provider.token_requests() - before);

    println!("5. The token for the API server is refused at the start.");
    kubelet.write_for_api_server()?;
    match client(WorkloadToken::file(file)) {
        Ok(_) => return Err("the token for the API server was accepted".into()),
        Err(error) => println!("   {error}"),
    }
    Ok(())
}
