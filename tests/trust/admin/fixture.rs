//! A service whose administrators have tokens of its provider, and a cluster that its policy trusts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::{EndpointsBuilder, TrustAdmin};
use scaikey_auth::error::BoxError;
use scaikey_auth::mint::{LocalMinter, WorkloadExchange};
use scaikey_auth::testing::{ManualClock, Provider, SigningKey};
use scaikey_auth::trust::{
    Appended, MemoryPolicies, NewPolicyVersion, PolicyChange, PolicyStore, PolicyVersion,
    PolicyVersionId, TrustEvaluator, TrustEvaluatorBuilder,
};
use scaikey_auth::{Auth, scope};
use serde_json::{Value, json};

use crate::fixture::{platform, policy, reporter, trust};
use crate::support::{Answer, Server, local, request};

pub(crate) const TRUSTS: &str = "/v1/auth/trusts";

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) cluster: Provider,
    pub(crate) scaikey: Provider,
    minter_key: String,
}

/// A process of the service.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) evaluator: TrustEvaluator,
}

/// A store that fails while it is away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) versions: MemoryPolicies,
    is_away: Arc<AtomicBool>,
}

impl Store {
    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), BoxError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err("postgres://canary-host refused the connection".into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl PolicyStore for Store {
    fn kind(&self) -> &'static str {
        "test"
    }

    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.check()?;
        self.versions.latest().await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        self.check()?;
        self.versions.read(number).await
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        self.check()?;
        self.versions.append(version, expected).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        self.check()?;
        self.versions.history(before, limit).await
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::new();
        let (cluster, scaikey) = (platform(&clock).await, platform(&clock).await);
        let minter_key = SigningKey::generate(Algorithm::ES256).private_pem();
        Self { clock, cluster, scaikey, minter_key }
    }

    fn minter(&self) -> LocalMinter {
        LocalMinter::new("https://vault.example", Algorithm::ES256, &*self.minter_key, "m-1")
            .unwrap()
    }

    /// Returns the service, which accepts tokens of its provider and those that it mints for workloads.
    pub(crate) fn auth(&self) -> Auth {
        let auth = Auth::builder().clock(self.clock.clone()).verified_tokens_bytes(0);
        let auth = auth.issuer(local(self.scaikey.issuer()).algorithms([Algorithm::ES256]));
        let auth = auth.issuer(self.minter().issuer());
        auth.audience("scaiwave").audience("scaivault").build().unwrap()
    }

    pub(crate) fn evaluator(&self) -> TrustEvaluatorBuilder {
        TrustEvaluator::builder().clock(self.clock.clone()).own_issuer(self.scaikey.issuer())
    }

    /// Returns the text of the policy that most tests begin with.
    pub(crate) fn text(&self) -> String {
        let trust = trust("k8s", &self.cluster, "");
        format!("# Trusted by the platform team.\n{trust}\n{}", reporter())
    }

    pub(crate) fn workloads(&self, evaluator: &TrustEvaluator) -> WorkloadExchange {
        let workloads = WorkloadExchange::new(evaluator.clone(), self.minter(), "scaivault");
        workloads.clock(self.clock.clone())
    }

    /// Starts a process of the service whose administrators need the scope `trust:admin`.
    pub(crate) async fn start(
        &self,
        evaluator: TrustEvaluatorBuilder,
        more: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder,
    ) -> Service {
        let evaluator = evaluator.build().unwrap();
        let endpoints = self.auth().endpoints().workloads(self.workloads(&evaluator));
        let endpoints = more(endpoints.trust_admin(TrustAdmin::new(scope("trust:admin"))));
        let server = Server::hyper(endpoints.build().unwrap().service()).await;
        Service { server, evaluator }
    }

    /// Starts a process whose policy is a value, so that the API cannot change it.
    pub(crate) async fn start_read_only(&self) -> Service {
        let policy = policy(&[self.text()]);
        self.start(self.evaluator().policy(policy), |endpoints| endpoints).await
    }

    /// Starts a process whose policy is in the store.
    pub(crate) async fn start_with(&self, store: &Store) -> Service {
        self.start(self.evaluator().store(store.clone()), |endpoints| endpoints).await
    }

    /// Starts a process whose store has [`text`](Self::text) as its first version.
    pub(crate) async fn start_with_policy(&self) -> (Service, Store) {
        let store = Store::default();
        let service = self.start_with(&store).await;
        let first = [("if-none-match", "*")];
        let answer = service.put(&self.owner(), &first, &self.text()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (service, store)
    }

    /// Returns a token of the provider with these scopes.
    pub(crate) fn token(&self, scopes: &str) -> String {
        self.scaikey.token().scope(scopes).sign()
    }

    pub(crate) fn owner(&self) -> String {
        self.token("trust:admin")
    }
}

impl Service {
    /// Sends a request with a token. `path` is what follows `trusts`.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let path = format!("{TRUSTS}{path}");
        let mut request = request(method, &path, headers).map(|_| body.into());
        if !token.is_empty() {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        self.server.send(request).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send("GET", path, token, &[], "").await
    }

    pub(crate) async fn post_toml(&self, path: &str, token: &str, text: &str) -> Answer {
        let toml = [("content-type", "application/toml")];
        self.send("POST", path, token, &toml, text.to_owned()).await
    }

    pub(crate) async fn post_json(&self, path: &str, token: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send("POST", path, token, &json, body.to_string()).await
    }

    /// Replaces the policy by a text, with this condition.
    pub(crate) async fn put(&self, token: &str, condition: &[(&str, &str)], text: &str) -> Answer {
        self.put_at("", token, condition, text).await
    }

    pub(crate) async fn put_at(
        &self,
        query: &str,
        token: &str,
        condition: &[(&str, &str)],
        text: &str,
    ) -> Answer {
        let mut headers = vec![("content-type", "application/toml")];
        headers.extend(condition);
        self.send("PUT", query, token, &headers, text.to_owned()).await
    }

    /// Replaces the policy by a text, after a look at the one in force.
    pub(crate) async fn change(&self, token: &str, text: &str) -> Answer {
        let tag = self.get("", token).await.header("etag").to_owned();
        self.put(token, &[("if-match", &tag)], text).await
    }

    pub(crate) async fn roll_back(&self, token: &str, tag: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        self.send("POST", "/rollback", token, &headers, body.to_string()).await
    }

    /// Exchanges a token of a workload, and returns the answer.
    pub(crate) async fn exchange(&self, token: &str) -> Answer {
        let body = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        });
        let json = [("content-type", "application/json")];
        let request = request("POST", "/v1/auth/exchange", &json);
        self.server.send(request.map(|_| body.to_string())).await
    }
}

/// Checks that this is a problem with this status and the last part of its type.
#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let body = answer.json();
    assert_eq!(body["type"], format!("urn:scaikey-auth:{reason}"), "{answer:?}");
    assert_eq!(body["status"], status, "{answer:?}");
}

/// Returns the members of an object, sorted.
pub(crate) fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
