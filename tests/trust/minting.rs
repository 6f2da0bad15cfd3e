//! From a foreign token to one of ours, by way of `POST /v1/auth/exchange`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use scaikey_auth::mint::{ForwardingMinter, LocalMinter, Minter, WorkloadExchange};
use scaikey_auth::testing::{Client, Endpoint, Fault, ManualClock, Provider, SigningKey};
use scaikey_auth::{
    Algorithm, Auth, ClientAuth, Endpoints, IdentityKind, IssuerConfig, TokenExchangeClient,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::support::{platform, pod, reporter, trust, trusts};

const RESOURCE: &str = "https://scaivault.example";

struct House {
    clock: ManualClock,
    cluster: Provider,
    scaikey: Provider,
}

impl House {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let cluster = platform(&clock).await;
        let scaikey = platform(&clock).await;
        let vault = Client::new("vault", "secret");
        scaikey.register_client(vault.may_exchange("scaivault", "secrets:read secrets:list admin"));
        scaikey.trust_workloads(&cluster, "reporting-service", "tnt_acme");
        Self { clock, cluster, scaikey }
    }

    fn workloads(&self, minter: impl Minter, more: &str) -> WorkloadExchange {
        let trusts = trusts(&self.clock, &[trust("k8s", &self.cluster, more), reporter()]);
        WorkloadExchange::new(trusts, minter, "scaivault")
            .resource(RESOURCE)
            .clock(self.clock.clone())
    }

    fn forwarded(&self) -> ForwardingMinter {
        let client = TokenExchangeClient::builder(self.scaikey.issuer())
            .allow_loopback_http(true)
            .client_auth(ClientAuth::basic("vault", "secret"))
            .clock(self.clock.clone());
        ForwardingMinter::new(client.build().unwrap())
    }

    fn auth(&self, issuer: IssuerConfig) -> Auth {
        let auth = Auth::builder().issuer(issuer).audience("scaivault").clock(self.clock.clone());
        auth.build().unwrap()
    }

    fn endpoints(&self, workloads: WorkloadExchange) -> Endpoints {
        let issuer = IssuerConfig::new(self.scaikey.issuer()).allow_loopback_http(true);
        self.auth(issuer).endpoints().workloads(workloads).build().unwrap()
    }
}

/// As the product's reference has it.
fn question(token: &str) -> Value {
    json!({
        "grant_type": "token_exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "scaivault",
        "resource": RESOURCE,
    })
}

async fn ask(endpoints: &Endpoints, question: &Value) -> (u16, Value) {
    let request = Request::post("/v1/auth/exchange")
        .header("content-type", "application/json")
        .header("authorization", "Bearer of-nobody")
        .body(Body::from(question.to_string()))
        .unwrap();
    let answer = endpoints.service::<Body>().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn refused(endpoints: &Endpoints, question: &Value) -> (u16, String) {
    let (status, answer) = ask(endpoints, question).await;
    (status, answer["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_pod_gets_a_token_of_the_providers_by_the_request_of_the_reference() {
    let house = House::new().await;
    let endpoints = house.endpoints(house.workloads(house.forwarded(), ""));
    let token = pod(&house.cluster).sign();
    let (status, mut answer) = ask(&endpoints, &question(&token)).await;
    assert_eq!(status, 200, "{answer}");
    let minted = answer["access_token"].take();
    let expected = json!({
        "access_token": null,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "secrets:read secrets:list",
    });
    assert_eq!(answer, expected);
    // It is the provider's, and the service takes it.
    let issuer = IssuerConfig::new(house.scaikey.issuer()).allow_loopback_http(true);
    let auth = house.auth(issuer.algorithms([Algorithm::ES256]));
    let context = auth.authenticate(minted.as_str().unwrap()).await.unwrap();
    assert_eq!(context.identity().subject(), "reporting-service");
    assert_eq!(context.tenant().unwrap().id().as_str(), "tnt_acme");
    // What went to the provider: the foreign token, and the service's own proof.
    let received = house.scaikey.received(Endpoint::Token);
    let sent: BTreeMap<_, _> = received[0].form().into_iter().collect();
    assert_eq!(sent["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(sent["subject_token"], token);
    assert_eq!(sent["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(sent["audience"], "scaivault");
    assert_eq!(sent["scope"], "secrets:read secrets:list");
    let proof = received[0].headers["authorization"].to_str().unwrap();
    assert!(proof.starts_with("Basic ") && !proof.contains("of-nobody"));
}

#[tokio::test]
async fn the_request_must_be_for_this_service_and_of_the_right_shape() {
    let house = House::new().await;
    let endpoints = house.endpoints(house.workloads(house.forwarded(), ""));
    let token = pod(&house.cluster).sign();
    let with = |name: &str, value: Value| {
        let mut question = question(&token);
        question.as_object_mut().unwrap().insert(name.to_owned(), value);
        question
    };
    let urn = |kind: &str| json!(format!("urn:ietf:params:oauth:token-type:{kind}"));
    let exchange = json!("urn:ietf:params:oauth:grant-type:token-exchange");
    let table = [
        ("grant_type", exchange, 200, ""),
        ("grant_type", json!("client_credentials"), 400, "unsupported_grant_type"),
        ("grant_type", json!(null), 400, "invalid_request"),
        ("subject_token", json!(null), 400, "invalid_request"),
        ("subject_token_type", json!(null), 400, "invalid_request"),
        ("subject_token_type", urn("id_token"), 200, ""),
        ("subject_token_type", urn("saml2"), 400, "invalid_request"),
        ("requested_token_type", urn("jwt"), 200, ""),
        ("requested_token_type", urn("refresh_token"), 400, "invalid_request"),
        ("audience", json!(null), 200, ""),
        ("audience", json!("scaidrive"), 400, "invalid_target"),
        ("audience", json!(["scaivault", "scaidrive"]), 400, "invalid_request"),
        ("resource", json!(null), 200, ""),
        ("resource", json!("https://evil.example"), 400, "invalid_target"),
        ("resource", json!("https://scaivault.example/"), 400, "invalid_target"),
        ("resource", json!("/relative"), 400, "invalid_target"),
        ("scope", json!("secrets:read"), 200, ""),
        ("scope", json!("secrets:read admin"), 400, "invalid_scope"),
        ("scope", json!("a\"b"), 400, "invalid_scope"),
        ("actor_token", json!("x"), 400, "invalid_request"),
        ("trust_id", json!("k8s"), 200, ""),
        ("trust_id", json!("other"), 400, "invalid_request"),
    ];
    for (name, value, status, code) in table {
        let told = refused(&endpoints, &with(name, value.clone())).await;
        assert_eq!(told, (status, code.to_owned()), "{name} {value}");
    }
}

#[tokio::test]
async fn who_is_not_trusted_learns_no_more_than_that() {
    let house = House::new().await;
    let endpoints = house.endpoints(house.workloads(house.forwarded(), "single_use_jti = true"));
    let once = pod(&house.cluster).sign();
    assert_eq!(ask(&endpoints, &question(&once)).await.0, 200);
    let mut told = Vec::new();
    for token in [
        once,
        pod(&house.cluster).expired().sign(),
        pod(&house.cluster).audience("other").sign(),
        pod(&house.cluster).subject("system:serviceaccount:billing:x").sign(),
        pod(&house.scaikey).sign(),
        "not a token".to_owned(),
    ] {
        let (status, answer) = ask(&endpoints, &question(&token)).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
        told.push(answer);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    assert_eq!(house.scaikey.requests(Endpoint::Token), 1);
}

#[tokio::test]
async fn a_provider_that_refuses_fails_or_gives_too_much_is_not_believed() {
    let house = House::new().await;
    let endpoints = house.endpoints(house.workloads(house.forwarded(), ""));
    let foreign = |claim: &str, value: &str| {
        let token = house.scaikey.token().audience("scaivault").tenant("tnt_acme");
        Fault::member("access_token", token.claim(claim, value).sign())
    };
    let error = |code: &'static str| Fault::rewrite(move |_| format!(r#"{{"error":"{code}"}}"#));
    let table = [
        (Fault::Status(503), (503, "temporarily_unavailable")),
        (Fault::member("scope", "secrets:read admin"), (502, "server_error")),
        (foreign("tenant_id", "tnt_other"), (502, "server_error")),
        (foreign("aud", "scaidrive"), (502, "server_error")),
        (Fault::member("token_type", "N_A"), (502, "server_error")),
        (error("x"), (502, "server_error")),
    ];
    for (fault, expected) in table {
        house.scaikey.fail(Endpoint::Token, fault.clone());
        let told = refused(&endpoints, &question(&pod(&house.cluster).sign())).await;
        assert_eq!((told.0, told.1.as_str()), expected, "{fault:?}");
        // A breaker may have opened.
        house.clock.advance(Duration::from_secs(61));
    }
    house.scaikey.heal(Endpoint::Token);
    assert_eq!(ask(&endpoints, &question(&pod(&house.cluster).sign())).await.0, 200);
    // The provider trusts the cluster no more, and says so in its way.
    let other = platform(&house.clock).await;
    let trusts = trusts(&house.clock, &[trust("k8s", &other, ""), reporter()]);
    let workloads = WorkloadExchange::new(trusts, house.forwarded(), "scaivault");
    let endpoints = house.endpoints(workloads.resource(RESOURCE));
    let told = refused(&endpoints, &question(&pod(&other).sign())).await;
    assert_eq!(told, (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn a_service_without_a_provider_mints_by_itself_and_believes_its_own() {
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::RS256, Algorithm::Ed25519] {
        let house = House::new().await;
        let pem = SigningKey::generate(algorithm).private_pem();
        let minter = LocalMinter::new("https://vault.example", algorithm, pem, "m-1").unwrap();
        let auth = house.auth(minter.issuer());
        let endpoints = house.endpoints(house.workloads(minter, ""));
        let token = pod(&house.cluster).expires_in(Duration::from_secs(300)).sign();
        let (status, answer) = ask(&endpoints, &question(&token)).await;
        assert_eq!((status, &answer["expires_in"]), (200, &json!(300)), "{answer}");
        let minted = answer["access_token"].as_str().unwrap();
        let context = auth.authenticate(minted).await.unwrap();
        let identity = context.identity();
        assert_eq!(identity.kind(), IdentityKind::Workload, "{algorithm}");
        assert_eq!(identity.issuer(), "https://vault.example");
        assert_eq!(identity.scopes().as_str(), "secrets:read secrets:list");
        assert_eq!(identity.tenant_id().unwrap().as_str(), "tnt_acme");
        assert!(identity.subject().starts_with("sa:"), "{}", identity.subject());
        house.clock.advance(Duration::from_secs(361));
        auth.authenticate(minted).await.unwrap_err();
        let long = pod(&house.cluster).sign();
        assert_eq!(ask(&endpoints, &question(&long)).await.1["expires_in"], 900);
    }
    let pem = SigningKey::generate(Algorithm::ES256).private_pem();
    for (algorithm, pem) in [(Algorithm::RS256, pem.as_str()), (Algorithm::ES256, "no key")] {
        LocalMinter::new("https://vault.example", algorithm, pem, "m-1").unwrap_err();
    }
}
