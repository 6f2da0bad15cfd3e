//! A service whose administrators have tokens of its provider, and a cluster that its policy trusts.

use scaikey_auth::config::Algorithm;
use scaikey_auth::endpoints::{EndpointsBuilder, TrustAdmin};
use scaikey_auth::mint::{LocalMinter, WorkloadExchange};
use scaikey_auth::testing::{ManualClock, Provider, SigningKey};
use scaikey_auth::trust::{TrustEvaluator, TrustEvaluatorBuilder};
use scaikey_auth::{Auth, IssuerConfig, scope};
use serde_json::Value;

use crate::fixture::{platform, policy, reporter, trust};
use crate::support::{Answer, Server, request};

pub(crate) const TRUSTS: &str = "/v1/auth/trusts";

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) cluster: Provider,
    pub(crate) scaikey: Provider,
}

/// A process of the service.
pub(crate) struct Service {
    pub(crate) server: Server,
    pub(crate) evaluator: TrustEvaluator,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::new();
        let (cluster, scaikey) = (platform(&clock).await, platform(&clock).await);
        Self { clock, cluster, scaikey }
    }

    pub(crate) fn auth(&self) -> Auth {
        let issuer = IssuerConfig::new(self.scaikey.issuer()).allow_loopback_http(true);
        let auth = Auth::builder().issuer(issuer.algorithms([Algorithm::ES256]));
        auth.audience("scaivault")
            .clock(self.clock.clone())
            .verified_tokens_bytes(0)
            .build()
            .unwrap()
    }

    pub(crate) fn evaluator(&self) -> TrustEvaluatorBuilder {
        TrustEvaluator::builder().clock(self.clock.clone()).own_issuer(self.scaikey.issuer())
    }

    /// Returns the text of the policy that most tests begin with.
    pub(crate) fn text(&self) -> String {
        format!(
            "# Trusted by the platform team.\n{}\n{}",
            trust("k8s", &self.cluster, ""),
            reporter()
        )
    }

    pub(crate) fn workloads(&self, evaluator: &TrustEvaluator) -> WorkloadExchange {
        let pem = SigningKey::generate(Algorithm::ES256).private_pem();
        let minter =
            LocalMinter::new("https://vault.example", Algorithm::ES256, pem, "m-1").unwrap();
        WorkloadExchange::new(evaluator.clone(), minter, "scaivault").clock(self.clock.clone())
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

    /// Starts a process whose policy is a value, so that nobody can change it by the API.
    pub(crate) async fn start_read_only(&self) -> Service {
        let policy = policy(&[self.text()]);
        self.start(self.evaluator().policy(policy), |endpoints| endpoints).await
    }

    /// Returns a token of the provider with these scopes.
    pub(crate) fn token(&self, scopes: &str) -> String {
        self.scaikey.token().audience("scaivault").scope(scopes).sign()
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
