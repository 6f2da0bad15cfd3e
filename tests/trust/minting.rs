//! The exchange of foreign tokens for tokens of this service by `POST /v1/auth/exchange`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use scaikey_auth::clock::Clock;
use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::Endpoints;
use scaikey_auth::exchange::{ExchangeError, OAuthError};
use scaikey_auth::identity::IdentityKind;
use scaikey_auth::issuer::{ClientAuth, SecretSource};
use scaikey_auth::mint::{
    ForwardingMinter, LocalMinter, MintRequest, Minted, Minter, WorkloadExchange, WorkloadRequest,
};
use scaikey_auth::testing::{Client, Fault, ManualClock, Provider, ProviderEndpoint, SigningKey};
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{Auth, IssuerConfig, TokenExchangeClient};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{File, Log};

use super::fixture::{evaluator, platform, pod, reporter, trust};

const RESOURCE: &str = "https://scaivault.example";

struct World {
    clock: ManualClock,
    cluster: Provider,
    scaikey: Provider,
}

impl World {
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
        let evaluator = evaluator(&self.clock, &[trust("k8s", &self.cluster, more), reporter()]);
        WorkloadExchange::new(evaluator, minter, "scaivault")
            .resource(RESOURCE)
            .clock(self.clock.clone())
    }

    fn forwarding_minter(&self) -> ForwardingMinter {
        self.forwarding_minter_of("vault", &self.scaikey.issuer())
    }

    fn forwarding_minter_of(&self, client: &str, issuer: &str) -> ForwardingMinter {
        let client = TokenExchangeClient::builder(issuer)
            .allow_loopback_http(true)
            .client_auth(ClientAuth::basic(client, "secret"))
            .clock(self.clock.clone());
        ForwardingMinter::new(client.build().unwrap())
    }

    fn auth(&self, issuer: IssuerConfig) -> Auth {
        let auth = Auth::builder().issuer(issuer).audience("scaivault").clock(self.clock.clone());
        auth.verified_tokens_bytes(1 << 20).build().unwrap()
    }

    fn endpoints(&self, workloads: WorkloadExchange) -> Endpoints {
        let issuer = IssuerConfig::new(self.scaikey.issuer()).allow_loopback_http(true);
        self.auth(issuer).endpoints().workloads(workloads).build().unwrap()
    }
}

/// The request as in the API reference.
fn exchange_request(token: &str) -> Value {
    json!({
        "grant_type": "token_exchange",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "scaivault",
        "resource": RESOURCE,
    })
}

async fn ask(endpoints: &Endpoints, request: &Value) -> (u16, Value) {
    let request = Request::post("/v1/auth/exchange")
        .header("content-type", "application/json")
        .header("authorization", "Bearer ignored")
        .body(Body::from(request.to_string()))
        .unwrap();
    let answer = endpoints.service().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status().as_u16();
    let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn refused(endpoints: &Endpoints, request: &Value) -> (u16, String) {
    let (status, answer) = ask(endpoints, request).await;
    (status, answer["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn pod_gets_provider_token() {
    let world = World::new().await;
    let endpoints = world.endpoints(world.workloads(world.forwarding_minter(), ""));
    let token = pod(&world.cluster).sign();
    let (status, mut answer) = ask(&endpoints, &exchange_request(&token)).await;
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
    // The provider issued it, and the service accepts it.
    let issuer = IssuerConfig::new(world.scaikey.issuer()).allow_loopback_http(true);
    let auth = world.auth(issuer.algorithms([Algorithm::ES256]));
    let context = auth.authenticate(minted.as_str().unwrap()).await.unwrap();
    assert_eq!(context.identity().subject(), "reporting-service");
    assert_eq!(context.tenant().unwrap().id().as_str(), "tnt_acme");
    // The provider received the foreign token and the service's client authentication.
    let received = world.scaikey.received(ProviderEndpoint::Token);
    let sent: BTreeMap<_, _> = received[0].form().into_iter().collect();
    let names: Vec<_> = sent.keys().map(String::as_str).collect();
    let expected = [
        "audience",
        "grant_type",
        "requested_token_type",
        "scope",
        "subject_token",
        "subject_token_type",
    ];
    assert_eq!(names, expected);
    assert_eq!(sent["grant_type"], "urn:ietf:params:oauth:grant-type:token-exchange");
    assert_eq!(sent["subject_token"], token);
    assert_eq!(sent["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(sent["audience"], "scaivault");
    assert_eq!(sent["scope"], "secrets:read secrets:list");
    let proof = received[0].headers["authorization"].to_str().unwrap();
    assert!(proof.starts_with("Basic ") && !proof.contains("ignored"));
}

#[tokio::test]
async fn request_parameters_are_checked() {
    let world = World::new().await;
    let endpoints = world.endpoints(world.workloads(world.forwarding_minter(), ""));
    let token = pod(&world.cluster).sign();
    let with = |name: &str, value: Value| {
        let mut request = exchange_request(&token);
        request.as_object_mut().unwrap().insert(name.to_owned(), value);
        request
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
        let answer = refused(&endpoints, &with(name, value.clone())).await;
        assert_eq!(answer, (status, code.to_owned()), "{name} {value}");
    }
}

#[tokio::test]
async fn denied_caller_gets_no_reason() {
    let world = World::new().await;
    let endpoints =
        world.endpoints(world.workloads(world.forwarding_minter(), "single_use_jti = true"));
    let once = pod(&world.cluster).sign();
    assert_eq!(ask(&endpoints, &exchange_request(&once)).await.0, 200);
    let mut answers = Vec::new();
    for token in [
        once,
        pod(&world.cluster).expired().sign(),
        pod(&world.cluster).audience("other").sign(),
        pod(&world.cluster).subject("system:serviceaccount:billing:x").sign(),
        pod(&world.scaikey).sign(),
        "not a token".to_owned(),
    ] {
        let (status, answer) = ask(&endpoints, &exchange_request(&token)).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
        answers.push(answer);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!(world.scaikey.requests(ProviderEndpoint::Token), 1);
}

#[tokio::test]
async fn provider_response_is_checked() {
    let world = World::new().await;
    let endpoints = world.endpoints(world.workloads(world.forwarding_minter(), ""));
    let foreign = |claim: &str, value: &str| {
        let token = world.scaikey.token().audience("scaivault").tenant("tnt_acme");
        Fault::replace_member("access_token", token.claim(claim, value).sign())
    };
    let error = |code: &'static str| Fault::rewrite(move |_| format!(r#"{{"error":"{code}"}}"#));
    let table = [
        (Fault::Status(503), (503, "temporarily_unavailable")),
        (Fault::replace_member("scope", "secrets:read admin"), (502, "server_error")),
        (foreign("tenant_id", "tnt_other"), (502, "server_error")),
        (foreign("aud", "scaidrive"), (502, "server_error")),
        (Fault::replace_member("token_type", "N_A"), (502, "server_error")),
        (error("x"), (502, "server_error")),
    ];
    for (fault, expected) in table {
        world.scaikey.fail(ProviderEndpoint::Token, fault.clone());
        let answer = refused(&endpoints, &exchange_request(&pod(&world.cluster).sign())).await;
        assert_eq!((answer.0, answer.1.as_str()), expected, "{fault:?}");
        // A breaker may have opened.
        world.clock.advance(Duration::from_secs(61));
    }
    world.scaikey.heal(ProviderEndpoint::Token);
    assert_eq!(ask(&endpoints, &exchange_request(&pod(&world.cluster).sign())).await.0, 200);
    // The provider does not trust this cluster and rejects its token.
    let other = platform(&world.clock).await;
    let evaluator = evaluator(&world.clock, &[trust("k8s", &other, ""), reporter()]);
    let workloads = WorkloadExchange::new(evaluator, world.forwarding_minter(), "scaivault");
    let endpoints = world.endpoints(workloads.resource(RESOURCE));
    let answer = refused(&endpoints, &exchange_request(&pod(&other).sign())).await;
    assert_eq!(answer, (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn local_minter_tokens_are_accepted() {
    use Algorithm::{ES256, ES384, ES512, Ed25519, MLDSA44, MLDSA87, PS256, RS256};
    for algorithm in [ES256, ES384, ES512, RS256, PS256, Ed25519, MLDSA44, MLDSA87] {
        let world = World::new().await;
        let pem = SigningKey::generate(algorithm).private_pem();
        let minter = LocalMinter::new("https://vault.example", algorithm, pem, "m-1").unwrap();
        let auth = world.auth(minter.issuer());
        let endpoints = world.endpoints(world.workloads(minter, ""));
        let token = pod(&world.cluster).expires_in(Duration::from_secs(300)).sign();
        let (status, answer) = ask(&endpoints, &exchange_request(&token)).await;
        assert_eq!((status, &answer["expires_in"]), (200, &json!(300)), "{answer}");
        let minted = answer["access_token"].as_str().unwrap();
        let context = auth.authenticate(minted).await.unwrap();
        let identity = context.identity();
        assert_eq!(identity.kind(), IdentityKind::Workload, "{algorithm}");
        assert_eq!(identity.issuer(), "https://vault.example");
        assert_eq!(identity.scopes().as_str(), "secrets:read secrets:list");
        assert_eq!(identity.tenant_id().unwrap().as_str(), "tnt_acme");
        assert!(identity.subject().starts_with("sa:"), "{}", identity.subject());
        world.clock.advance(Duration::from_secs(361));
        auth.authenticate(minted).await.unwrap_err();
        let long = pod(&world.cluster).sign();
        assert_eq!(ask(&endpoints, &exchange_request(&long)).await.1["expires_in"], 900);
    }
    let pem = SigningKey::generate(Algorithm::ES256).private_pem();
    for (algorithm, pem) in [(Algorithm::RS256, pem.as_str()), (Algorithm::ES256, "no key")] {
        let error = LocalMinter::new("https://vault.example", algorithm, pem, "m-1").unwrap_err();
        // As `main` prints it.
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}

#[tokio::test]
async fn scopes_in_token_override_response_scope() {
    let world = World::new().await;
    let endpoints = world.endpoints(world.workloads(world.forwarding_minter(), ""));
    let both = "secrets:read secrets:list";
    let table = [
        ("scope", json!("secrets:read admin"), None, 502),
        ("scope", json!("secrets:read admin"), Some(both), 502),
        ("scp", json!(["secrets:read", "admin"]), None, 502),
        ("scopes", json!("admin"), Some("secrets:read"), 502),
        ("scope", json!(7), None, 502),
        ("scope", json!("secrets:list secrets:read"), None, 200),
        ("scope", json!(null), Some(both), 200),
    ];
    for (claim, permits, says, expected) in table {
        let token = world.scaikey.token().audience("scaivault").tenant("tnt_acme");
        let token = token.without("scope").claim(claim, permits.clone()).sign();
        let fault = Fault::rewrite(move |mut good| {
            good["access_token"] = json!(token);
            good["scope"] = json!(says);
            good.to_string()
        });
        world.scaikey.fail(ProviderEndpoint::Token, fault);
        let (status, _) = refused(&endpoints, &exchange_request(&pod(&world.cluster).sign())).await;
        assert_eq!(status, expected, "{claim} {permits} {says:?}");
    }
}

#[tokio::test]
async fn provider_refusals_map_to_codes() {
    let world = World::new().await;
    let issuer = world.scaikey.issuer();
    world.scaikey.register_client(Client::new("elsewhere", "secret").may_exchange("drive", "x"));
    world.scaikey.register_client(Client::new("less", "secret").may_exchange("scaivault", "x"));
    let table = [
        ("elsewhere", issuer.as_str(), (400, "invalid_target")),
        ("less", &issuer, (400, "invalid_scope")),
        ("unknown", &issuer, (502, "server_error")),
        // No server listens there.
        ("vault", "http://127.0.0.1:1", (503, "temporarily_unavailable")),
    ];
    for (client, issuer, expected) in table {
        let minter = world.forwarding_minter_of(client, issuer);
        let endpoints = world.endpoints(world.workloads(minter, ""));
        let answer = refused(&endpoints, &exchange_request(&pod(&world.cluster).sign())).await;
        assert_eq!((answer.0, answer.1.as_str()), expected, "{client}");
    }
}

/// A minter that always returns the same error, or a token with the same scopes.
#[derive(Debug)]
struct FixedMinter(Result<&'static str, ExchangeError>);

#[async_trait]
impl Minter for FixedMinter {
    async fn mint(&self, _: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        let scopes = self.0.clone()?;
        Ok(Minted::new("a-token", None, scopes.parse().unwrap()))
    }
}

#[tokio::test]
async fn each_minter_failure_has_its_code() {
    let world = World::new().await;
    let refused = |code| {
        let status = StatusCode::BAD_REQUEST;
        Err(ExchangeError::Refused { status, error: code, retry_after: None, claims: None })
    };
    let unavailable = |retry_after| {
        let source: Box<dyn std::error::Error + Send + Sync> = "unavailable".into();
        Err(ExchangeError::Unavailable { retry_after, source: source.into() })
    };
    let (one, nine) = (Duration::from_secs(1), Duration::from_secs(9));
    let table = [
        (refused(Some(OAuthError::InvalidGrant)), 400, "invalid_request", None),
        (refused(Some(OAuthError::InvalidRequest)), 400, "invalid_request", None),
        (refused(Some(OAuthError::InvalidTarget)), 400, "invalid_target", None),
        (refused(Some(OAuthError::InvalidScope)), 400, "invalid_scope", None),
        (refused(Some(OAuthError::InvalidClient)), 502, "server_error", None),
        (refused(Some(OAuthError::UnauthorizedClient)), 502, "server_error", None),
        (refused(Some(OAuthError::Other("x".to_owned()))), 502, "server_error", None),
        (refused(None), 502, "server_error", None),
        (unavailable(None), 503, "temporarily_unavailable", Some(one)),
        (unavailable(Some(nine)), 503, "temporarily_unavailable", Some(nine)),
        (Err(ExchangeError::ClientAuth("no key".to_owned())), 502, "server_error", None),
        (Err(ExchangeError::NotConfigured("no client")), 502, "server_error", None),
        (Ok("secrets:read admin"), 502, "server_error", None),
    ];
    for (outcome, status, code, retry_after) in table {
        let minter = FixedMinter(outcome);
        let case = format!("{minter:?}");
        let workloads = world.workloads(minter, "");
        let request = WorkloadRequest::new(pod(&world.cluster).sign());
        let refusal = workloads.exchange(&request).await.unwrap_err();
        let answer = (refusal.status().as_u16(), refusal.code(), refusal.retry_after());
        assert_eq!(answer, (status, code, retry_after), "{case}");
        assert_eq!(refusal.public_message(), "The token could not be issued.");
    }
    let fewer = world.workloads(FixedMinter(Ok("secrets:read")), "");
    let request = WorkloadRequest::new(pod(&world.cluster).sign());
    assert_eq!(fewer.exchange(&request).await.unwrap().scopes.as_str(), "secrets:read");
}

#[tokio::test]
async fn token_counts_as_used_despite_failed_minting() {
    let world = World::new().await;
    let endpoints =
        world.endpoints(world.workloads(world.forwarding_minter(), "single_use_jti = true"));
    let token = pod(&world.cluster).sign();
    world.scaikey.fail(ProviderEndpoint::Token, Fault::Status(503));
    let answer = refused(&endpoints, &exchange_request(&token)).await;
    assert_eq!(answer, (503, "temporarily_unavailable".to_owned()));
    world.scaikey.heal(ProviderEndpoint::Token);
    world.clock.advance(Duration::from_secs(61));
    // The provider may have minted a token before it failed.
    let answer = refused(&endpoints, &exchange_request(&token)).await;
    assert_eq!(answer, (400, "invalid_request".to_owned()));
    assert_eq!(ask(&endpoints, &exchange_request(&pod(&world.cluster).sign())).await.0, 200);
}

#[tokio::test]
async fn local_minter_token_has_rfc9068_claims() {
    let world = World::new().await;
    let pem = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
    let workloads = world.workloads(minter, "");
    let mut request = WorkloadRequest::new(pod(&world.cluster).sign());
    request.scopes = "secrets:list".parse().unwrap();
    let first = workloads.exchange(&request).await.unwrap();
    let second = workloads.exchange(&request).await.unwrap();
    let (header, _) = first.access_token.expose().split_once('.').unwrap();
    let expected = json!({ "alg": "ES256", "kid": "m-1", "typ": "at+jwt" });
    assert_eq!(insecure_decode_claims::<Value>(&format!("x.{header}.x")).unwrap(), expected);
    let claims = |minted: &Minted| -> Value {
        insecure_decode_claims(minted.access_token.expose()).unwrap()
    };
    let (mut first, second) = (claims(&first), claims(&second));
    assert_ne!(first["jti"], second["jti"]);
    assert!(first["jti"].take().as_str().unwrap().len() >= 16);
    let now = world.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let expected = json!({
        "iss": "https://vault.example",
        "sub": "sa:k8s:reporting",
        "aud": "scaivault",
        "client_id": "sa:k8s:reporting",
        "tenant_id": "tnt_acme",
        "scope": "secrets:list",
        "jti": null,
        "iat": now,
        "exp": now + 900,
    });
    assert_eq!(first, expected);
}

#[tokio::test]
async fn minted_token_never_outlives_foreign_token() {
    let world = World::new().await;
    let pem = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
    let workloads = world.workloads(minter.lifetime(Duration::from_secs(3600)), "");
    let token = pod(&world.cluster).expires_in(Duration::from_secs(100)).sign();
    // In the last case the foreign token is accepted within the leeway.
    for (pause, left) in [(0, 100), (60, 40), (70, 0)] {
        world.clock.advance(Duration::from_secs(pause));
        let minted = workloads.exchange(&WorkloadRequest::new(token.as_str())).await.unwrap();
        assert_eq!(minted.expires_in, Some(Duration::from_secs(left)));
        let exp = |token: &str| insecure_decode_claims::<Value>(token).unwrap()["exp"].clone();
        assert_eq!(exp(minted.access_token.expose()), exp(&token), "after another {pause} s");
    }
}

#[tokio::test]
async fn local_minter_reads_its_key_once() {
    let world = World::new().await;
    let pem = || SigningKey::generate(Algorithm::ES256).private_pem();
    let file = File::new("minter.pem", &pem());
    let source = || SecretSource::File(file.path().into());
    let open = || LocalMinter::new("https://vault.example", Algorithm::ES256, source(), "m-1");
    let minter = open().unwrap();
    let (auth, published) = (world.auth(minter.issuer()), minter.key_set().to_owned());
    let workloads = world.workloads(minter, "");
    let mint = async || {
        let request = WorkloadRequest::new(pod(&world.cluster).sign());
        workloads.exchange(&request).await.unwrap().access_token
    };
    auth.authenticate(mint().await.expose()).await.unwrap();
    file.write(&pem());
    // The minter still signs with the key that it published.
    auth.authenticate(mint().await.expose()).await.unwrap();
    assert_ne!(open().unwrap().key_set(), published);
    file.write("no key");
    auth.authenticate(mint().await.expose()).await.unwrap();
    open().unwrap_err();
}

#[tokio::test]
async fn minting_log_has_no_token() {
    let world = World::new().await;
    let log = Log::start();
    let mut tokens = Vec::new();
    for minter in [Some(world.forwarding_minter()), None] {
        let request = WorkloadRequest::new(pod(&world.cluster).sign());
        tokens.push(request.subject_token.expose().to_owned());
        let pem = SigningKey::generate(Algorithm::ES256).private_pem();
        let own = LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
        let workloads = match minter {
            Some(forwarded) => world.workloads(forwarded, ""),
            None => world.workloads(own, ""),
        };
        let minted = workloads.exchange(&request).await.unwrap();
        assert!(!format!("{minted:?} {request:?} {workloads:?}").contains("eyJ"));
        tokens.push(minted.access_token.expose().to_owned());
    }
    world.scaikey.fail(ProviderEndpoint::Token, Fault::Status(400));
    let request = WorkloadRequest::new(pod(&world.cluster).sign());
    tokens.push(request.subject_token.expose().to_owned());
    let refusal =
        world.workloads(world.forwarding_minter(), "").exchange(&request).await.unwrap_err();
    // A token with excessive scopes counts as failed.
    let excessive = world.workloads(FixedMinter(Ok("secrets:read admin")), "");
    excessive.exchange(&WorkloadRequest::new(pod(&world.cluster).sign())).await.unwrap_err();
    let text = format!("{} {refusal} {refusal:?}", log.text());
    let count = |outcome: &str| {
        let lines = text.lines().filter(|line| line.contains("token for a workload"));
        let fields = format!("trust=\"k8s\" rule=\"reporting\" outcome=\"{outcome}\"");
        lines.filter(|line| line.contains(&fields)).count()
    };
    assert_eq!((count("minted"), count("failed")), (2, 2), "{text}");
    // Both events have the digest of the subject: `printf %s "$sub" | sha256sum`.
    let digest = "ac787648293acaaf";
    for event in ["foreign token evaluated", "token for a workload"] {
        let lines = text.lines().filter(|line| line.contains(event));
        assert_eq!(lines.filter(|line| line.contains(digest)).count(), 4, "{event} {text}");
    }
    for token in tokens {
        for part in token.split('.').skip(1) {
            assert!(!text.contains(part), "{part}");
        }
    }
}
