//! Client authentication and exchange with the token of this workload's platform (RFC 7523 §2.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{CacheStatus, ExchangeError, OAuthError, ServiceTokenRequest};
use scaikey_auth::issuer::{ClientAuth, WorkloadToken, WorkloadTokenSource};
use scaikey_auth::testing::{
    Client, Fault, ManualClock, Provider, ProviderEndpoint, TestIssuer, TokenBuilder,
};
use scaikey_auth::{AuthConfig, ConfigError, ExchangeRequest, Secret, TokenExchangeClient};
use serde_json::json;

use super::builder;
use crate::support::{File, Log};

const POD: &str = "system:serviceaccount:prod:wave";

/// A provider that trusts the tokens of a cluster.
struct World {
    provider: Provider,
    cluster: TestIssuer,
    clock: ManualClock,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let provider = Provider::builder().clock(clock.clone()).start().await;
        let cluster = provider.issuer_at("/cluster");
        // Its tokens live too shortly to be cached, so that each call sends a request.
        let wave = Client::federated("wave", &cluster, POD).token_lifetime(Duration::from_secs(20));
        provider.register_client(wave.may_exchange("scaivault", "vault:read"));
        Self { provider, cluster, clock }
    }

    /// Returns a builder for a projected service account token.
    fn pod_token(&self) -> TokenBuilder {
        let token = self.cluster.token().subject(POD).audience(&self.provider.issuer());
        token.claim("kubernetes.io", json!({ "namespace": "prod" }))
    }

    fn client(&self, token: WorkloadToken) -> TokenExchangeClient {
        self.try_client(token).unwrap()
    }

    fn try_client(&self, token: WorkloadToken) -> Result<TokenExchangeClient, ConfigError> {
        let auth = ClientAuth::assertion("wave", token);
        builder(&self.provider).client_auth(auth).clock(self.clock.clone()).build()
    }

    /// Returns the values of one form parameter, over all token requests.
    fn sent(&self, name: &str) -> Vec<String> {
        let received = self.provider.received(ProviderEndpoint::Token);
        let forms = received.iter().flat_map(|request| request.form());
        forms.filter(|(known, _)| known == name).map(|(_, value)| value).collect()
    }
}

async fn service_token(client: &TokenExchangeClient) -> Result<(), ExchangeError> {
    client.service_token(ServiceTokenRequest::default()).await.map(drop)
}

/// A source that counts its calls, and issues a new token for each.
#[derive(Debug, Clone)]
struct Counting {
    cluster: TestIssuer,
    calls: Arc<AtomicUsize>,
    /// The number of calls at first whose tokens have a wrong subject.
    bad: usize,
    is_down: Arc<AtomicUsize>,
}

impl Counting {
    fn new(world: &World, bad: usize) -> Self {
        let cluster = world.cluster.clone();
        Self { cluster, calls: Arc::default(), bad, is_down: Arc::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl WorkloadTokenSource for Counting {
    async fn token(&self, audience: &str) -> Result<Secret, BoxError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) > 0 {
            return Err("the vault is sealed".into());
        }
        let subject = if call < self.bad { "someone" } else { POD };
        let token = self.cluster.token().subject(subject).audience(audience);
        Ok(token.expires_in(Duration::from_secs(300)).sign().into())
    }
}

#[tokio::test]
async fn rotated_file_is_used_from_then_on() {
    let world = World::new().await;
    let (first, second) = (world.pod_token().sign(), world.pod_token().sign());
    let file = File::new("token", &format!("\u{feff}{first}\n"));
    let client = world.client(WorkloadToken::file(file.path()));
    service_token(&client).await.unwrap();
    file.write(&second);
    service_token(&client).await.unwrap();
    assert_eq!(world.sent("client_assertion"), [first, second]);
    assert_eq!(world.sent("client_id"), ["wave", "wave"]);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(world.sent("client_assertion_type"), [kind, kind]);
    assert!(world.sent("client_secret").is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn replaced_symlink_is_followed() {
    use std::os::unix::fs::symlink;
    // As kubelet does it: `token` leads through `..data`, which is replaced atomically.
    let world = World::new().await;
    let tokens = [world.pod_token().sign(), world.pod_token().sign()];
    let [first, second] = [0, 1].map(|nth: usize| File::new("token", &tokens[nth]));
    let data = File::reserve("..data");
    let folder = |file: &File| file.path().parent().unwrap().to_owned();
    symlink(folder(&first), data.path()).unwrap();
    let link = folder(&data).join("token");
    symlink("..data/token", &link).unwrap();
    let client = world.client(WorkloadToken::file(link));
    service_token(&client).await.unwrap();
    let next = folder(&data).join("..data_tmp");
    symlink(folder(&second), &next).unwrap();
    std::fs::rename(next, data.path()).unwrap();
    service_token(&client).await.unwrap();
    assert_eq!(world.sent("client_assertion"), tokens);
}

#[tokio::test]
async fn unusable_files_are_refused_at_start() {
    let world = World::new().await;
    let api_server = world.pod_token().audience("https://kubernetes.default.svc").sign();
    let own_name = world.pod_token().audience(&world.cluster.issuer()).sign();
    let good = world.pod_token().sign();
    for (content, why) in [
        (" \n".to_owned(), "is empty"),
        ("hunter2-canary".to_owned(), "has no JWT"),
        (format!("{good}\n{good}"), "has no JWT"),
        ("a".repeat(16 * 1024 + 1), "more than 16384 bytes"),
        (api_server, "a token for the API server of Kubernetes"),
        (own_name, "mount a projected service account token"),
    ] {
        let file = File::new("token", &content);
        let error = world.try_client(WorkloadToken::file(file.path())).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&file.path_text()), "{error}");
        assert!(!error.contains("canary") && !error.contains("eyJ"), "{error}");
    }
    let missing = File::reserve("token");
    let folder = missing.path().parent().unwrap();
    for (path, why) in [(missing.path(), "cannot be read"), (folder, "is not a file")] {
        let error = world.try_client(WorkloadToken::file(path)).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&path.display().to_string()), "{error}");
    }
    // The variables of Azure and AWS are not set on machines that run tests.
    for (token, name) in [
        (WorkloadToken::azure(), "AZURE_FEDERATED_TOKEN_FILE is not set"),
        (WorkloadToken::aws(), "AWS_WEB_IDENTITY_TOKEN_FILE is not set"),
        (WorkloadToken::kubernetes(), "/var/run/secrets/tokens/provider cannot be read"),
    ] {
        let error = world.try_client(token).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn unusable_file_is_named_at_use() {
    let (world, log) = (World::new().await, Log::start());
    let file = File::new("token", &world.pod_token().sign());
    let client = world.client(WorkloadToken::file(file.path()));
    let elsewhere = world.pod_token().audience("https://elsewhere.example").sign();
    let issuer = world.provider.issuer();
    for (content, why) in [
        (world.pod_token().expired().sign(), "expired"),
        (world.pod_token().without("exp").sign(), "without `exp`"),
        (elsewhere, "has a token for \"https://elsewhere.example\", and not for"),
        (world.pod_token().without("aud").sign(), issuer.as_str()),
        ("canary".to_owned(), "has no JWT"),
    ] {
        file.write(&content);
        let error = service_token(&client).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(why) && text.contains(&file.path_text()), "{text}");
        assert!(!text.contains("canary") && !text.contains("eyJ"), "{text}");
    }
    file.remove();
    for _ in 0..5 {
        let error = service_token(&client).await.unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
    assert_eq!(world.provider.token_requests(), 0, "nothing is sent");
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 6, "each problem is logged once: {warnings:?}");
    // The breaker of the endpoint stayed closed.
    file.write(&world.pod_token().sign());
    service_token(&client).await.unwrap();
}

#[tokio::test]
async fn named_audience_replaces_the_issuer() {
    let world = World::new().await;
    let file = File::new("token", &world.pod_token().audience("api://x").sign());
    let token = WorkloadToken::file(file.path());
    let error = service_token(&world.client(token.clone())).await.unwrap_err();
    assert!(error.to_string().contains("\"api://x\""), "{error}");
    // This provider refuses the token then.
    for auth in [
        ClientAuth::assertion("wave", token.clone().audience("api://x")),
        ClientAuth::assertion("wave", token).assertion_audience("api://x"),
    ] {
        let client = builder(&world.provider).client_auth(auth).clock(world.clock.clone());
        let error = service_token(&client.build().unwrap()).await.unwrap_err();
        assert_eq!(error.oauth_error(), Some(&OAuthError::InvalidClient), "{error}");
    }
    assert_eq!(world.provider.token_requests(), 2, "the same token is not sent twice");
}

#[tokio::test]
async fn refused_token_is_replaced_once() {
    let world = World::new().await;
    let source = Counting::new(&world, 1);
    let client = world.client(WorkloadToken::source(source.clone()));
    service_token(&client).await.unwrap();
    assert_eq!((source.calls(), world.provider.token_requests()), (2, 2));
    // A provider that refuses every token is asked twice, not more often.
    world.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_client"));
    let error = service_token(&client).await.unwrap_err();
    assert_eq!(error.oauth_error(), Some(&OAuthError::InvalidClient));
    assert_eq!((source.calls(), world.provider.token_requests()), (3, 4));
    // Other refusals say nothing about the token.
    world.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_scope"));
    world.clock.advance(Duration::from_secs(2));
    service_token(&client).await.unwrap_err();
    assert_eq!((source.calls(), world.provider.token_requests()), (3, 5));
}

#[tokio::test]
async fn revocation_replaces_a_refused_token() {
    let world = World::new().await;
    let source = Counting::new(&world, 1);
    let client = world.client(WorkloadToken::source(source.clone()));
    client.revoke(&Secret::new("a token")).await.unwrap();
    let sent = world.provider.received(ProviderEndpoint::Revocation);
    assert_eq!((source.calls(), sent.len()), (2, 2));
}

#[tokio::test]
async fn kept_token_serves_all_callers() {
    let world = World::new().await;
    let source = Counting::new(&world, 0);
    let client = world.client(WorkloadToken::source(source.clone()));
    let subjects: Vec<_> =
        (0..50).map(|nth| world.provider.token().subject(&format!("user-{nth}")).sign()).collect();
    let exchange = async |subject: &String| {
        client.exchange(&ExchangeRequest::new(subject.as_str(), "scaivault")).await.unwrap()
    };
    join_all(subjects.iter().map(exchange)).await;
    assert_eq!((source.calls(), world.provider.token_requests()), (1, 50));
    // It lives for 300 s and is used for 240.
    world.clock.advance(Duration::from_secs(239));
    service_token(&client).await.unwrap();
    assert_eq!(source.calls(), 1);
    world.clock.advance(Duration::from_secs(1));
    service_token(&client).await.unwrap();
    assert_eq!(source.calls(), 2);
}

#[tokio::test]
async fn source_outage_leaves_the_breaker_closed() {
    let (world, log) = (World::new().await, Log::start());
    let source = Counting::new(&world, 0);
    source.is_down.store(1, Ordering::SeqCst);
    let client = world.client(WorkloadToken::source(source.clone()));
    for _ in 0..10 {
        let error = service_token(&client).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("the source of workload tokens") && text.contains("sealed"),
            "{text}"
        );
    }
    assert_eq!((source.calls(), world.provider.token_requests()), (10, 0));
    assert_eq!(log.lines("WARN").len(), 1, "{}", log.text());
    source.is_down.store(0, Ordering::SeqCst);
    service_token(&client).await.unwrap();
}

#[tokio::test]
async fn workload_tokens_are_never_printed() {
    let (world, log) = (World::new().await, Log::start());
    let file = File::new("token", &world.pod_token().sign());
    let source = Counting::new(&world, 9);
    let request = ExchangeRequest::of_workload(WorkloadToken::file(file.path()), "scaivault");
    for token in [WorkloadToken::file(file.path()), WorkloadToken::source(source)] {
        let client = world.client(token.clone());
        let outcome = service_token(&client).await;
        let exchanged = client.exchange(&request).await;
        let shown = format!("{client:?} {token:?} {outcome:?} {exchanged:?} {request:?}");
        assert!(!shown.contains("eyJ"), "{shown}");
    }
    assert!(world.provider.token_requests() > 2);
    assert!(!log.text().contains("eyJ"), "{}", log.text());
}

#[tokio::test]
async fn workload_token_is_exchanged_and_cached() {
    let world = World::new().await;
    world.provider.trust_workloads(&world.cluster, "wave-service", "acme");
    let drive = Client::new("drive", "s").may_exchange("scaivault", "vault:read");
    world.provider.register_client(drive);
    let auth = ClientAuth::basic("drive", "s");
    let client = builder(&world.provider).client_auth(auth).clock(world.clock.clone());
    let client = client.build().unwrap();
    let first = world.pod_token().expires_in(Duration::from_secs(600)).sign();
    let file = File::new("token", &first);
    let request = ExchangeRequest::of_workload(WorkloadToken::file(file.path()), "scaivault");

    let error = client.exchange(&request).await.unwrap_err();
    assert!(matches!(error, ExchangeError::InvalidAnswer(_)), "scopes were not named: {error}");
    let request = request.scopes("vault:read".parse().unwrap());
    let tokens = join_all((0..20).map(|_| client.exchange(&request))).await;
    assert!(tokens.iter().all(Result::is_ok));
    assert_eq!(world.provider.token_requests(), 2, "one exchange for all callers");
    assert_eq!(world.sent("subject_token"), [first.clone(), first.clone()]);
    let kind = "urn:ietf:params:oauth:token-type:jwt";
    assert_eq!(world.sent("subject_token_type"), [kind, kind]);

    // The exchanged token would live for an hour, and is cached as long as the workload token lives.
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(client.exchange(&request).await.unwrap().cache_status(), CacheStatus::Hit);
    world.clock.advance(Duration::from_secs(301));
    let error = client.exchange(&request).await.unwrap_err();
    assert!(error.to_string().contains(&file.path_text()), "{error}");
    file.write(&world.pod_token().sign());
    assert_eq!(client.exchange(&request).await.unwrap().cache_status(), CacheStatus::Miss);
    // A request that names the same token is checked by other rules, and shares nothing.
    let file_token = std::fs::read_to_string(file.path()).unwrap();
    let mut other = ExchangeRequest::new(file_token, "scaivault");
    other.subject_type = request.subject_type.clone();
    let other = client.exchange(&other.scopes("vault:read".parse().unwrap())).await;
    assert!(matches!(other, Err(ExchangeError::InvalidAnswer(_))), "{other:?}");
}

#[tokio::test]
async fn refused_subject_token_is_forgotten() {
    let world = World::new().await;
    world.provider.trust_workloads(&world.cluster, "wave-service", "acme");
    let drive = Client::new("drive", "s").may_exchange("scaivault", "vault:read");
    world.provider.register_client(drive);
    let client = builder(&world.provider).client_auth(ClientAuth::basic("drive", "s"));
    let client = client.clock(world.clock.clone()).build().unwrap();
    let source = Counting::new(&world, 0);
    let request = ExchangeRequest::of_workload(WorkloadToken::source(source.clone()), "scaivault");
    let request = request.scopes("vault:read".parse().unwrap());
    // The platform has replaced its keys, and the provider knows only the new ones.
    for (code, calls) in [("invalid_grant", 1), ("invalid_request", 2), ("invalid_scope", 3)] {
        world.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, code));
        client.exchange(&request).await.unwrap_err();
        assert_eq!(source.calls(), calls, "{code}");
    }
    world.provider.heal(ProviderEndpoint::Token);
    world.clock.advance(Duration::from_secs(30));
    client.exchange(&request).await.unwrap();
    assert_eq!(source.calls(), 3, "a refused scope says nothing about the token");
}

#[tokio::test]
async fn unreadable_jwt_of_a_source_is_refused() {
    let claims = |more: &str| {
        format!(
            r#"{{"iss":"https://c.example","aud":"https://c.example","exp":99999999999{more}}}"#
        )
    };
    let deep = format!(r#","x":{}{}"#, "[".repeat(200), "]".repeat(200));
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
    let part = |more: &str| URL_SAFE_NO_PAD.encode(claims(more));
    for (token, is_sent) in [
        (format!("{header}.{}.c2ln", part(r#","x":1,"x":1"#)), false),
        (format!("{header}.{}.c2ln", part(&deep)), false),
        (format!("{header}=.{}.c2ln", part("")), false),
        (format!("{header}.{}.c2ln=", part("")), false),
        (format!("{header}.{}.", part("")), false),
        // Tokens of other kinds may have dots.
        ("ya29.c.b0Aaek".to_owned(), true),
        ("v4.public.eyJ9".to_owned(), true),
        ("hvs.CAES".to_owned(), true),
    ] {
        let world = World::new().await;
        let source = Fixed(token.clone());
        let error = service_token(&world.client(WorkloadToken::source(source))).await.unwrap_err();
        assert_eq!(!world.sent("client_assertion").is_empty(), is_sent, "{token}");
        assert!(is_sent || error.to_string().contains("cannot be read"), "{error}");
        assert!(!error.to_string().contains(&token), "{error}");
    }
}

/// A source with a fixed token.
#[derive(Debug)]
struct Fixed(String);

#[async_trait::async_trait]
impl WorkloadTokenSource for Fixed {
    async fn token(&self, _: &str) -> Result<Secret, BoxError> {
        Ok(self.0.as_str().into())
    }
}

#[tokio::test]
async fn configuration_names_the_workload_token() {
    let world = World::new().await;
    let file = File::new("token", &world.pod_token().sign());
    let path = file.path_text();
    let build = |more: &[(&str, &str)]| {
        let issuer = world.provider.issuer();
        let base = [
            ("ISSUER", issuer.as_str()),
            ("AUDIENCE", "wave"),
            ("ALLOW_LOOPBACK_HTTP", "true"),
            ("CLIENT_ID", "wave"),
        ];
        let vars = base.iter().chain(more);
        let vars = vars.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        let config = AuthConfig::from_vars("P", vars);
        TokenExchangeClient::from_config(&config).clock(world.clock.clone()).build()
    };
    let source = format!("file:{path}");
    for settings in [
        &[("CLIENT_ASSERTION_FILE", path.as_str())][..],
        &[("WORKLOAD_TOKEN", &source)],
        &[("WORKLOAD_TOKEN", &source), ("CLIENT_AUTH", "assertion")],
    ] {
        service_token(&build(settings).unwrap()).await.unwrap();
    }
    let elsewhere = [("CLIENT_ASSERTION_FILE", path.as_str()), ("CLIENT_ASSERTION_AUDIENCE", "x")];
    let error = service_token(&build(&elsewhere).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("not for \"x\""), "{error}");
    for (settings, field, why) in [
        (
            &[("CLIENT_ASSERTION_FILE", path.as_str()), ("CLIENT_SECRET", "s")][..],
            "P_CLIENT_SECRET",
            "a workload token replaces the secret",
        ),
        (
            &[("CLIENT_ASSERTION_FILE", &path), ("WORKLOAD_TOKEN", "gcp")],
            "P_CLIENT_ASSERTION_FILE",
            "both",
        ),
        (&[("WORKLOAD_TOKEN", "gcp"), ("CLIENT_AUTH", "post")], "P_CLIENT_AUTH", "`assertion`"),
        (&[("WORKLOAD_TOKEN", "vault")], "P_WORKLOAD_TOKEN", "must be `kubernetes`"),
        (&[("WORKLOAD_TOKEN", "file:token")], "P_WORKLOAD_TOKEN", "an absolute path"),
        (&[("WORKLOAD_TOKEN", "azure")], "P_WORKLOAD_TOKEN", "AZURE_FEDERATED_TOKEN_FILE"),
        (&[("CLIENT_ASSERTION_FILE", "/nowhere/x")], "P_CLIENT_ASSERTION_FILE", "/nowhere/x"),
        (&[("CLIENT_AUTH", "assertion")], "P_WORKLOAD_TOKEN", "is missing"),
    ] {
        let error = build(settings).unwrap_err();
        let [fault] = error.faults() else { panic!("one fault: {error}") };
        assert_eq!(fault.field, field, "{error}");
        assert!(fault.problem.contains(why), "{error}");
    }
}

/// The cache key has the client's id, and no assertion.
#[tokio::test]
async fn new_assertion_leaves_cached_tokens() {
    let world = World::new().await;
    world.provider.register_client(
        Client::federated("wave", &world.cluster, POD)
            .scopes("jobs:run")
            .token_lifetime(Duration::from_secs(3600)),
    );
    let file = File::new("token", &world.pod_token().sign());
    let client = world.client(WorkloadToken::file(file.path()));
    client.service_token(ServiceTokenRequest::default()).await.unwrap();
    file.write(&world.pod_token().sign());
    let again = client.service_token(ServiceTokenRequest::default()).await.unwrap();
    assert_eq!((again.cache_status(), world.provider.token_requests()), (CacheStatus::Hit, 1));
}
