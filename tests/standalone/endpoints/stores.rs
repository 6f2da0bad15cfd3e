//! Failing stores behind the endpoints: answers and logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use axum::http::Method;
use scaikey_auth::exchange::TokenUrls;
use scaikey_auth::registrar::{MemoryRegistrar, Registrar, RegistrarError, Registration};
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{Identity, TenantId};

use super::env::{Setup, TestEnv, Visitor};
use crate::support::Answer;
use crate::support::Log;

/// A registrar that fails on demand.
#[derive(Debug, Clone)]
struct Failing {
    store: MemoryRegistrar,
    fails: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("the transaction was undone")]
struct RolledBack(#[source] std::io::Error);

#[async_trait]
impl Registrar for Failing {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        match self.fails.load(Ordering::SeqCst) {
            true => {
                Err(RegistrarError::store(RolledBack(std::io::Error::other("the disk is full"))))
            }
            false => self.store.register(identity).await,
        }
    }
}

async fn env(fails: &Arc<AtomicBool>) -> TestEnv {
    let registrar = Failing { store: MemoryRegistrar::new(), fails: fails.clone() };
    Setup::default().endpoints(|endpoints| endpoints.registrar(registrar)).build().await
}

async fn register(env: &TestEnv, visitor: &Visitor) -> Answer {
    let bearer = format!("Bearer {}", env.provider.token().sign());
    visitor.send(Method::POST, "/v1/auth/register", &[("authorization", &bearer)], "").await
}

#[tokio::test]
async fn failing_registrar_is_logged_once() {
    let log = Log::start();
    let fails = Arc::new(AtomicBool::new(true));
    let env = env(&fails).await;
    let visitor = env.visitor();
    for outage in 1..=2 {
        fails.store(true, Ordering::SeqCst);
        for _ in 0..20 {
            assert_eq!(register(&env, &visitor).await.status, 503);
        }
        let warnings = log.lines("WARN");
        assert_eq!(warnings.len(), outage, "{warnings:#?}");
        assert!(warnings[outage - 1].contains("the disk is full"), "{warnings:#?}");
        fails.store(false, Ordering::SeqCst);
        for _ in 0..5 {
            assert!(register(&env, &visitor).await.status < 300);
        }
        assert_eq!(log.text().matches("store of participants works again").count(), outage);
    }
    assert!(log.lines("ERROR").is_empty());
}

#[tokio::test]
async fn answer_names_the_failing_registrar() {
    let env = env(&Arc::new(AtomicBool::new(true))).await;
    let answer = register(&env, &env.visitor()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail, "The store of participants is unavailable right now. Try again.");
    assert!(!answer.body.contains("disk"), "{answer:?}");
}

#[tokio::test]
async fn failed_client_authentication_is_logged_once() {
    let log = Log::start();
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    env.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(401, "invalid_client"));
    for nth in 0..5 {
        let answer = visitor.post_form("/v1/auth/refresh", &format!("refresh_token=r{nth}")).await;
        answer.assert_oauth_error(502, "server_error");
    }
    let loud = [log.lines("WARN"), log.lines("ERROR")].concat();
    assert_eq!(loud.len(), 1, "{loud:#?}");
    assert!(loud[0].contains("invalid_client"), "{loud:#?}");
}

#[tokio::test]
async fn missing_provider_endpoint_is_logged_once() {
    let log = Log::start();
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    env.provider.fail(ProviderEndpoint::Discovery, Fault::remove_member("authorization_endpoint"));
    for _ in 0..5 {
        assert_eq!(visitor.get("/v1/auth/config").await.status, 502);
    }
    let loud = [log.lines("WARN"), log.lines("ERROR")].concat();
    assert_eq!(loud.len(), 1, "{loud:#?}");
    assert!(loud[0].contains("authorization_endpoint"), "{loud:#?}");
}

/// A resolver that knows no token endpoint.
#[derive(Debug)]
pub(crate) struct NoTokenUrls;

#[async_trait]
impl TokenUrls for NoTokenUrls {
    async fn token_url(
        &self,
        _: &TenantId,
    ) -> Result<Option<String>, scaikey_auth::error::BoxError> {
        Ok(None)
    }
}
