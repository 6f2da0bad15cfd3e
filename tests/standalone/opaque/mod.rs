//! Opaque tokens: the introspection endpoint of their issuer is asked, within limits.

mod answers;
mod caching;
mod configuration;
mod floods;
mod old_answers;
mod outages;
mod revoked;
mod service;
mod signed;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Fault, ProviderEndpoint, TokenBuilder};
use scaikey_auth::validator::OpaqueTokens;
use scaikey_auth::{Auth, AuthError, Identity};
use serde_json::{Value, json};

use crate::support::{Answer, Server, World};

/// The secret of this service's client.
const SECRET: &str = "cAnArY-cl1ent-s3cret";

/// A provider, and the settings of a service that introspects its tokens.
struct Introspection {
    world: World,
}

impl Introspection {
    async fn new() -> Self {
        let world = World::new().await;
        world.provider.register_client(Client::new("docs", SECRET));
        Self { world }
    }

    /// Returns settings with a time limit for busy machines.
    fn settings(&self) -> OpaqueTokens {
        OpaqueTokens::new(self.world.provider.issuer(), ClientAuth::basic("docs", SECRET))
            .prefixes(["skt_"])
            .timeout(Duration::from_secs(60))
    }

    fn auth(&self) -> Auth {
        self.auth_with(self.settings())
    }

    fn auth_with(&self, settings: OpaqueTokens) -> Auth {
        self.world.auth().opaque_tokens(settings).build().unwrap()
    }

    fn token(&self) -> TokenBuilder {
        self.world.provider.token()
    }

    /// Returns a good opaque token.
    fn good(&self) -> String {
        self.token().opaque("skt_")
    }

    fn questions(&self) -> u64 {
        self.world.provider.requests(ProviderEndpoint::Introspection)
    }

    fn fail(&self, fault: Fault) {
        self.world.provider.fail(ProviderEndpoint::Introspection, fault);
    }

    fn heal(&self) {
        self.world.provider.heal(ProviderEndpoint::Introspection);
    }

    fn advance(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }
}

/// Returns a change of the answer that sets a member, or removes it if the value is null.
fn change(name: &str, value: &Value) -> Fault {
    match value {
        Value::Null => Fault::remove_member(name),
        value => Fault::replace_member(name, value.clone()),
    }
}

/// Returns the answer as this JSON text.
fn answer(text: impl Into<String>) -> Fault {
    Fault::Body("application/json", text.into())
}

/// Returns the result for a token: `active`, or the reason of the refusal.
async fn outcome(auth: &Auth, token: &str) -> &'static str {
    auth.authenticate(token).await.map_or_else(|error| error.reason(), |_| "active")
}

async fn refusal(auth: &Auth, token: &str) -> AuthError {
    auth.authenticate(token).await.map(drop).unwrap_err()
}

/// Starts a service that answers with the caller's identity.
async fn server(auth: &Auth) -> Server {
    async fn me(identity: Identity) -> axum::Json<Value> {
        axum::Json(json!({
            "sub": identity.subject(),
            "iss": identity.issuer(),
            "kind": identity.kind(),
            "tenant": identity.tenant_id().map(|id| id.as_str().to_owned()),
            "scope": identity.scopes().as_str(),
            "provenance": identity.provenance(),
        }))
    }
    Server::axum(Router::new().route("/", get(me)).layer(auth.layer())).await
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() <= 60);
}
