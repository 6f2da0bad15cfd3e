//! From a foreign token to one of ours, by way of `POST /v1/auth/exchange`.

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

use super::fixture::{platform, pod, reporter, trust, trusts};

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
        self.forwarded_as("vault", &self.scaikey.issuer())
    }

    fn forwarded_as(&self, client: &str, issuer: &str) -> ForwardingMinter {
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
    let answer = endpoints.service().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status().as_u16();
    let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await.unwrap();
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
    let received = house.scaikey.received(ProviderEndpoint::Token);
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
    assert_eq!(house.scaikey.requests(ProviderEndpoint::Token), 1);
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
        house.scaikey.fail(ProviderEndpoint::Token, fault.clone());
        let told = refused(&endpoints, &question(&pod(&house.cluster).sign())).await;
        assert_eq!((told.0, told.1.as_str()), expected, "{fault:?}");
        // A breaker may have opened.
        house.clock.advance(Duration::from_secs(61));
    }
    house.scaikey.heal(ProviderEndpoint::Token);
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
    use Algorithm::{ES256, ES384, ES512, Ed25519, PS256, RS256};
    for algorithm in [ES256, ES384, ES512, RS256, PS256, Ed25519] {
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

#[tokio::test]
async fn what_the_token_permits_counts_and_not_what_the_answer_says_of_it() {
    let house = House::new().await;
    let endpoints = house.endpoints(house.workloads(house.forwarded(), ""));
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
        let token = house.scaikey.token().audience("scaivault").tenant("tnt_acme");
        let token = token.without("scope").claim(claim, permits.clone()).sign();
        let fault = Fault::rewrite(move |mut good| {
            good["access_token"] = json!(token);
            good["scope"] = json!(says);
            good.to_string()
        });
        house.scaikey.fail(ProviderEndpoint::Token, fault);
        let (status, _) = refused(&endpoints, &question(&pod(&house.cluster).sign())).await;
        assert_eq!(status, expected, "{claim} {permits} {says:?}");
    }
}

#[tokio::test]
async fn what_the_provider_says_no_to_is_told_by_its_code_and_an_outage_by_503() {
    let house = House::new().await;
    let issuer = house.scaikey.issuer();
    house.scaikey.register_client(Client::new("elsewhere", "secret").may_exchange("drive", "x"));
    house.scaikey.register_client(Client::new("less", "secret").may_exchange("scaivault", "x"));
    let table = [
        ("elsewhere", issuer.as_str(), (400, "invalid_target")),
        ("less", &issuer, (400, "invalid_scope")),
        ("unknown", &issuer, (502, "server_error")),
        // Nobody listens there.
        ("vault", "http://127.0.0.1:1", (503, "temporarily_unavailable")),
    ];
    for (client, issuer, expected) in table {
        let minter = house.forwarded_as(client, issuer);
        let endpoints = house.endpoints(house.workloads(minter, ""));
        let told = refused(&endpoints, &question(&pod(&house.cluster).sign())).await;
        assert_eq!((told.0, told.1.as_str()), expected, "{client}");
    }
}

/// Fails in one way, or gives a token with other scopes than it was told to.
#[derive(Debug)]
struct Wilful(Result<&'static str, ExchangeError>);

#[async_trait]
impl Minter for Wilful {
    async fn mint(&self, _: &MintRequest<'_>) -> Result<Minted, ExchangeError> {
        let scopes = self.0.clone()?;
        Ok(Minted::new("a-token", None, scopes.parse().unwrap()))
    }
}

#[tokio::test]
async fn each_failure_of_a_minter_has_its_code() {
    let house = House::new().await;
    let refused = |code| {
        let status = StatusCode::BAD_REQUEST;
        Err(ExchangeError::Refused { status, error: code, retry_after: None })
    };
    let away = |retry_after| {
        let source: Box<dyn std::error::Error + Send + Sync> = "away".into();
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
        (away(None), 503, "temporarily_unavailable", Some(one)),
        (away(Some(nine)), 503, "temporarily_unavailable", Some(nine)),
        (Err(ExchangeError::ClientAuth("no key".to_owned())), 502, "server_error", None),
        (Err(ExchangeError::NotConfigured("no client")), 502, "server_error", None),
        (Ok("secrets:read admin"), 502, "server_error", None),
    ];
    for (outcome, status, code, retry_after) in table {
        let minter = Wilful(outcome);
        let case = format!("{minter:?}");
        let workloads = house.workloads(minter, "");
        let request = WorkloadRequest::new(pod(&house.cluster).sign());
        let refusal = workloads.exchange(&request).await.unwrap_err();
        let told = (refusal.status(), refusal.code(), refusal.retry_after());
        assert_eq!(told, (status, code, retry_after), "{case}");
        assert_eq!(refusal.public_message(), "The token could not be issued.");
    }
    let fewer = house.workloads(Wilful(Ok("secrets:read")), "");
    let request = WorkloadRequest::new(pod(&house.cluster).sign());
    assert_eq!(fewer.exchange(&request).await.unwrap().scopes.as_str(), "secrets:read");
}

#[tokio::test]
async fn a_token_of_single_use_is_spent_also_when_none_could_be_minted() {
    let house = House::new().await;
    let endpoints = house.endpoints(house.workloads(house.forwarded(), "single_use_jti = true"));
    let token = pod(&house.cluster).sign();
    house.scaikey.fail(ProviderEndpoint::Token, Fault::Status(503));
    let told = refused(&endpoints, &question(&token)).await;
    assert_eq!(told, (503, "temporarily_unavailable".to_owned()));
    house.scaikey.heal(ProviderEndpoint::Token);
    house.clock.advance(Duration::from_secs(61));
    // Whether the provider minted one nobody knows.
    let told = refused(&endpoints, &question(&token)).await;
    assert_eq!(told, (400, "invalid_request".to_owned()));
    assert_eq!(ask(&endpoints, &question(&pod(&house.cluster).sign())).await.0, 200);
}

#[tokio::test]
async fn what_a_service_mints_says_what_rfc_9068_asks_for_and_nothing_of_the_foreign_token() {
    let house = House::new().await;
    let pem = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
    let workloads = house.workloads(minter, "");
    let mut request = WorkloadRequest::new(pod(&house.cluster).sign());
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
    let now = house.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
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
async fn no_token_of_a_services_own_outlives_the_foreign_one() {
    let house = House::new().await;
    let pem = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
    let workloads = house.workloads(minter.lifetime(Duration::from_secs(3600)), "");
    let token = pod(&house.cluster).expires_in(Duration::from_secs(100)).sign();
    // The last of these is within the leeway.
    for (pause, left) in [(0, 100), (60, 40), (70, 0)] {
        house.clock.advance(Duration::from_secs(pause));
        let minted = workloads.exchange(&WorkloadRequest::new(token.as_str())).await.unwrap();
        assert_eq!(minted.expires_in, Some(Duration::from_secs(left)));
        let exp = |token: &str| insecure_decode_claims::<Value>(token).unwrap()["exp"].clone();
        assert_eq!(exp(minted.access_token.expose()), exp(&token), "after {pause} s more");
    }
}

#[tokio::test]
async fn a_key_replaced_on_disk_is_used_when_the_service_starts_anew() {
    let house = House::new().await;
    let pem = || SigningKey::generate(Algorithm::ES256).private_pem();
    let file = File::new("minter.pem", &pem());
    let source = || SecretSource::File(file.path().into());
    let open = || LocalMinter::new("https://vault.example", Algorithm::ES256, source(), "m-1");
    let minter = open().unwrap();
    let (auth, published) = (house.auth(minter.issuer()), minter.key_set().to_owned());
    let workloads = house.workloads(minter, "");
    let mint = async || {
        let request = WorkloadRequest::new(pod(&house.cluster).sign());
        workloads.exchange(&request).await.unwrap().access_token
    };
    auth.authenticate(mint().await.expose()).await.unwrap();
    file.write(&pem());
    // What is signed is what the published key verifies.
    auth.authenticate(mint().await.expose()).await.unwrap();
    assert_ne!(open().unwrap().key_set(), published);
    file.write("no key");
    auth.authenticate(mint().await.expose()).await.unwrap();
    open().unwrap_err();
}

#[tokio::test]
async fn the_log_tells_what_was_minted_by_trust_and_rule_and_never_a_token() {
    let house = House::new().await;
    let log = Log::start();
    let mut tokens = Vec::new();
    for minter in [Some(house.forwarded()), None] {
        let request = WorkloadRequest::new(pod(&house.cluster).sign());
        tokens.push(request.subject_token.expose().to_owned());
        let pem = SigningKey::generate(Algorithm::ES256).private_pem();
        let own = LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
        let workloads = match minter {
            Some(forwarded) => house.workloads(forwarded, ""),
            None => house.workloads(own, ""),
        };
        let minted = workloads.exchange(&request).await.unwrap();
        assert!(!format!("{minted:?} {request:?} {workloads:?}").contains("eyJ"));
        tokens.push(minted.access_token.expose().to_owned());
    }
    house.scaikey.fail(ProviderEndpoint::Token, Fault::Status(400));
    let request = WorkloadRequest::new(pod(&house.cluster).sign());
    tokens.push(request.subject_token.expose().to_owned());
    let refusal = house.workloads(house.forwarded(), "").exchange(&request).await.unwrap_err();
    // What is not given out was not minted.
    let greedy = house.workloads(Wilful(Ok("secrets:read admin")), "");
    greedy.exchange(&WorkloadRequest::new(pod(&house.cluster).sign())).await.unwrap_err();
    let text = format!("{} {refusal} {refusal:?}", log.text());
    let told = |outcome: &str| {
        let lines = text.lines().filter(|line| line.contains("token for a workload"));
        let of = format!("trust=\"k8s\" grant=\"reporting\" outcome=\"{outcome}\"");
        lines.filter(|line| line.contains(&of)).count()
    };
    assert_eq!((told("minted"), told("failed")), (2, 2), "{text}");
    // Both events tell of whom: `printf %s "$sub" | sha256sum`.
    let whom = "ac787648293acaaf";
    for event in ["foreign token judged", "token for a workload"] {
        let lines = text.lines().filter(|line| line.contains(event));
        assert_eq!(lines.filter(|line| line.contains(whom)).count(), 4, "{event} {text}");
    }
    for token in tokens {
        for part in token.split('.').skip(1) {
            assert!(!text.contains(part), "{part}");
        }
    }
}
