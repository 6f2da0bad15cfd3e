//! JWT-SVIDs from the SPIFFE Workload API: as client authentication, and exchanged by a trust policy.

mod workload_api;

use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::{ExchangeError, ServiceTokenRequest};
use scaikey_auth::issuer::{ClientAuth, SpiffeSource, WorkloadToken, WorkloadTokenSource as _};
use scaikey_auth::mint::{LocalMinter, WorkloadExchange};
use scaikey_auth::testing::{
    Client, ManualClock, Provider, ProviderEndpoint, SigningKey, TestIssuer, TokenBuilder,
};
use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
use scaikey_auth::{Auth, AuthConfig, ExchangeRequest, IssuerConfig, TokenExchangeClient};
use serde_json::{Value, json};
use tonic::Status;

use crate::support::{File, Server, request};
use workload_api::{Agent, Answer};

const WAVE: &str = "spiffe://prod.acme.example/ns/wave/sa/api";

/// A provider that trusts the workloads of a trust domain, and their control plane.
struct World {
    clock: ManualClock,
    plane: Provider,
    provider: Provider,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let start =
            || Provider::builder().clock(clock.clone()).algorithms([Algorithm::ES256]).start();
        let (plane, provider) = (start().await, start().await);
        // Too short to be cached, so that each call sends a request.
        let wave = Client::federated(WAVE, &plane, WAVE).token_lifetime(Duration::from_secs(20));
        provider.register_client(wave.may_exchange("scaivault", "vault:read"));
        Self { clock, plane, provider }
    }

    /// Returns the answers of an agent that issues SVIDs of [`WAVE`] for every audience.
    fn issue(&self) -> impl Fn(&workload_api::SvidRequest) -> Answer + Send + Sync + 'static {
        let plane: TestIssuer = (*self.plane).clone();
        move |request| {
            let token = svid(&plane).claim("aud", request.audience.clone());
            Answer::Issue(WAVE.to_owned(), token.sign())
        }
    }

    fn client(&self, agent: &Agent) -> TokenExchangeClient {
        self.client_with(SpiffeSource::at(&agent.address()))
    }

    fn client_with(&self, source: SpiffeSource) -> TokenExchangeClient {
        TokenExchangeClient::builder(self.provider.issuer())
            .allow_loopback_http(true)
            .client_auth(ClientAuth::assertion(WAVE, WorkloadToken::spiffe(source)))
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }
}

/// A JWT-SVID that is valid for five minutes.
fn svid(plane: &TestIssuer) -> TokenBuilder {
    let token = plane.token().subject(WAVE).typ(None).expires_in(Duration::from_secs(300));
    let user = ["iss", "nbf", "jti", "scope", "tenant_id", "preferred_username", "email"];
    user.into_iter().fold(token, TokenBuilder::without)
}

async fn ask(client: &TokenExchangeClient) -> Result<(), ExchangeError> {
    client.service_token(ServiceTokenRequest::default()).await.map(drop)
}

/// Returns the error for a missing SVID, which names the agent's socket.
async fn missing(client: &TokenExchangeClient, agent: &Agent) -> String {
    let error = ask(client).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error:?}");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let start = format!("the SPIFFE Workload API gives no workload token: {}: ", agent.address());
    assert!(text.contains(&start), "{text}");
    text
}

#[tokio::test]
async fn svid_authenticates_the_client() {
    let world = World::new().await;
    let agent = Agent::started(world.issue());
    let client = world.client(&agent);
    ask(&client).await.unwrap();
    let sent = world.provider.received(ProviderEndpoint::Token).pop().unwrap().form();
    let value = |name: &str| {
        let named = sent.iter().find(|(sent, _)| sent == name);
        named.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("{sent:?}"))
    };
    let jwt_spiffe = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
    assert_eq!(value("client_assertion_type"), jwt_spiffe);
    assert_eq!(value("client_id"), WAVE);
    let claims: Value =
        scaikey_auth::validator::insecure_decode_claims(&value("client_assertion")).unwrap();
    assert_eq!(claims["aud"], json!([world.provider.issuer()]), "the only audience");

    // The SVID is used until a minute before its end; then the agent signs with another key.
    ask(&client).await.unwrap();
    assert_eq!(agent.requests().len(), 1);
    assert_eq!(agent.requests()[0].audience, [world.provider.issuer()]);
    assert_eq!(agent.requests()[0].spiffe_id, "", "the agent chooses");
    let debug = format!("{client:?}");
    assert!(!debug.contains(&value("client_assertion")), "{debug}");
    world.plane.rotate();
    world.plane.remove_old_keys();
    world.clock.advance(Duration::from_secs(250));
    ask(&client).await.unwrap();
    assert_eq!(agent.requests().len(), 2);
}

#[tokio::test]
async fn environment_selects_the_workload_api() {
    let world = World::new().await;
    let agent = Agent::started(world.issue());
    let config = |source: &str| {
        let variables = [
            ("P_ISSUER", world.provider.issuer()),
            ("P_AUDIENCE", "wave".to_owned()),
            ("P_CLIENT_ID", WAVE.to_owned()),
            ("P_WORKLOAD_TOKEN", source.to_owned()),
            ("P_ALLOW_LOOPBACK_HTTP", "true".to_owned()),
        ];
        AuthConfig::from_vars("P", variables.map(|(name, value)| (name.to_owned(), value)))
    };
    // This process has no `SPIFFE_ENDPOINT_SOCKET`, and a test cannot set one for itself.
    let error = TokenExchangeClient::from_config(&config("spiffe")).build().unwrap_err();
    assert!(error.to_string().contains("SPIFFE_ENDPOINT_SOCKET is not set"), "{error}");
    assert!(error.to_string().contains("P_WORKLOAD_TOKEN"), "{error}");
    let builder =
        TokenExchangeClient::from_config(&config("file:/none")).clock(world.clock.clone());
    let token = WorkloadToken::spiffe(SpiffeSource::at(&agent.address()));
    let client = builder.client_auth(ClientAuth::assertion(WAVE, token)).build();
    assert!(client.is_err(), "the file is missing");
}

#[tokio::test]
async fn spiffe_id_selects_an_svid() {
    let world = World::new().await;
    let agent = Agent::started(world.issue());
    let source = SpiffeSource::at(&agent.address());
    ask(&world.client_with(source.clone().id(WAVE))).await.unwrap();
    assert_eq!(agent.requests()[0].spiffe_id, WAVE);
    let bad = WorkloadToken::spiffe(source.id("wave"));
    let builder = TokenExchangeClient::builder(world.provider.issuer()).allow_loopback_http(true);
    let error = builder.client_auth(ClientAuth::assertion(WAVE, bad)).build().unwrap_err();
    assert!(error.to_string().contains("\"wave\" is no SPIFFE ID"), "{error}");
}

#[tokio::test]
async fn denied_workload_learns_the_remedy() {
    let world = World::new().await;
    for status in
        [Status::permission_denied("no identity issued"), Status::permission_denied("not you")]
    {
        let agent = Agent::started(move |_| Answer::Deny(status.clone()));
        let error = missing(&world.client(&agent), &agent).await;
        assert!(error.contains("register this workload in the control plane"), "{error}");
    }
    assert_eq!(world.provider.token_requests(), 0, "nothing was sent");
}

#[tokio::test]
async fn agent_may_start_late_and_restart() {
    let world = World::new().await;
    let mut agent = Agent::new(world.issue());
    let client = world.client(&agent);
    let error = missing(&client, &agent).await;
    assert!(error.contains("No such file"), "{error}");
    agent.start();
    ask(&client).await.unwrap();
    agent.stop().await;
    ask(&client).await.unwrap();
    world.clock.advance(Duration::from_secs(250));
    missing(&client, &agent).await;
    agent.start();
    ask(&client).await.unwrap();
    // A restart that no request noticed: the connection is lost at the next request.
    agent.stop().await;
    agent.start();
    world.clock.advance(Duration::from_secs(250));
    ask(&client).await.unwrap();
    assert_eq!(agent.requests().len(), 3);
}

#[tokio::test]
async fn silent_agent_is_given_up() {
    let agent = Agent::started(|_| Answer::Silence);
    let token = WorkloadToken::spiffe(SpiffeSource::at(&agent.address()));
    let client = TokenExchangeClient::builder("https://scaikey.example")
        .client_auth(ClientAuth::assertion(WAVE, token))
        .token_url("https://scaikey.example/token")
        .build()
        .unwrap();
    let error = ask(&client).await.unwrap_err();
    assert!(format!("{error:?}").contains("did not answer within 5s"), "{error:?}");
}

#[tokio::test]
async fn wrong_svids_are_not_sent() {
    let world = World::new().await;
    for (kind, change) in [
        ("for another audience", json!({ "aud": ["https://other.example"] })),
        ("without audience", json!({ "aud": null })),
        ("expired", json!({ "exp": 1 })),
    ] {
        let plane: TestIssuer = (*world.plane).clone();
        let agent = Agent::started(move |request| {
            let token = svid(&plane).claim("aud", request.audience.clone());
            let changes = change.as_object().unwrap().clone().into_iter();
            let token = changes.fold(token, |token, (name, value)| match value.is_null() {
                true => token.without(&name),
                false => token.claim(&name, value),
            });
            Answer::Issue(WAVE.to_owned(), token.sign())
        });
        assert!(ask(&world.client(&agent)).await.is_err(), "{kind}");
    }
    let agent = Agent::started(|_| Answer::Issue(WAVE.to_owned(), String::new()));
    assert!(ask(&world.client(&agent)).await.is_err());
    assert_eq!(world.provider.token_requests(), 0);
}

#[tokio::test]
async fn workload_exchanges_its_svid() {
    let world = World::new().await;
    let agent = Agent::started(world.issue());
    let source = SpiffeSource::at(&agent.address());
    let mut bundle = world.plane.jwks();
    bundle["keys"][0]["use"] = "jwt-svid".into();
    let bundle = File::new("bundle.json", &bundle.to_string());
    let policy = format!(
        r#"
        [[trust]]
        id = "mesh"
        trust_domain = "prod.acme.example"
        bundle = {{ file = "{}" }}
        audiences = ["scaivault"]
        [[trust.grant]]
        name = "wave"
        subject = "spiffe://prod.acme.example/ns/wave/sa/*"
        map = {{ identity = "sa:{{trust}}:{{sub}}", tenant = "tnt_acme", scopes = ["secrets:read"] }}
        "#,
        bundle.path_text()
    );
    let policy = TrustPolicy::from_toml(&policy).unwrap();
    let trusts = TrustEvaluator::builder().policy(policy).clock(world.clock.clone()).build();
    let key = SigningKey::generate(Algorithm::ES256);
    let own = "https://scaivault.example";
    let minter = LocalMinter::new(own, Algorithm::ES256, key.private_pem(), "own").unwrap();
    let workloads = WorkloadExchange::new(trusts.unwrap(), minter, "scaivault");
    let workloads = workloads.clock(world.clock.clone());
    let auth = Auth::builder()
        .issuer(IssuerConfig::new(world.provider.issuer()).allow_loopback_http(true))
        .audience("scaivault")
        .clock(world.clock.clone())
        .build()
        .unwrap();
    let endpoints = auth.endpoints().workloads(workloads).build().unwrap();
    let server = Server::hyper(endpoints.service()).await;
    let exchange = async |token: &str| {
        let body = json!({
            "grant_type": "token_exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "audience": "scaivault",
        });
        let head = request("POST", "/v1/auth/exchange", &[("content-type", "application/json")]);
        server.send(head.map(|_| body.to_string())).await
    };
    let token = source.token("scaivault").await.unwrap();
    let answer = exchange(token.expose()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let minted = answer.json()["access_token"].as_str().unwrap().to_owned();
    let claims: Value = scaikey_auth::validator::insecure_decode_claims(&minted).unwrap();
    assert_eq!(claims["sub"], format!("sa:mesh:{WAVE}"));
    // The same workload, with a token for another service.
    let other = source.token("scaidrive").await.unwrap();
    exchange(other.expose()).await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn svid_is_subject_of_an_exchange() {
    let world = World::new().await;
    world.provider.trust_workloads(&world.plane, "wave", "tnt_acme");
    let agent = Agent::started(world.issue());
    let client = world.client(&agent);
    let token = WorkloadToken::spiffe(SpiffeSource::at(&agent.address()));
    let request = ExchangeRequest::of_workload(token, "scaivault");
    let request = request.scopes("vault:read".parse().unwrap());
    let got = client.exchange(&request).await.unwrap();
    let claims: Value =
        scaikey_auth::validator::insecure_decode_claims(got.secret().expose()).unwrap();
    assert_eq!(claims["sub"], "wave");
}
