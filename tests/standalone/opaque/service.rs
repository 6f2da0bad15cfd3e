//! Opaque tokens in a whole service: beside JWTs, with checks, proofs and endpoints, and in no log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::error::{BoxError, InvalidToken};
use scaikey_auth::guard::verified_token;
use scaikey_auth::identity::{Confirmation, Provenance};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::proof::{ProofRequest, ProofVerifier, Proven};
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::{Client, Fault, Provider};
use scaikey_auth::validator::OpaqueTokens;
use scaikey_auth::{AuthError, Tenant, scope};
use serde_json::json;

use super::{Introspection, SECRET, change, outcome, server};
use crate::support::{Log, Server, local_with_all_algorithms};

#[tokio::test]
async fn jwts_are_never_introspected() {
    let it = Introspection::new().await;
    let by_shape = it.settings().prefixes(Vec::<String>::new());
    for settings in [it.settings(), by_shape] {
        let auth = it.auth_with(settings);
        assert_eq!(outcome(&auth, &it.token().sign()).await, "active");
        assert_eq!(outcome(&auth, &it.token().audience("other").sign()).await, "token_audience");
        for token in ["eyJhbGciOiJub25lIn0.e30.", "a.b.c", "a.b.c.d.e"] {
            assert_ne!(outcome(&auth, token).await, "active", "{token}");
        }
    }
    assert_eq!(it.questions(), 0);
    let by_shape = it.auth_with(it.settings().prefixes(Vec::<String>::new()));
    for token in ["opaque", "a.b", "a.b.c.d", "a.b.c.d.e.f"] {
        assert_eq!(outcome(&by_shape, token).await, "token_inactive", "{token}");
    }
    assert_eq!(it.questions(), 4);
}

#[tokio::test]
async fn each_prefix_has_its_issuer() {
    let it = Introspection::new().await;
    let other = Provider::builder().clock(it.world.clock.clone()).start().await;
    other.register_client(Client::new("docs", "s"));
    let rest = OpaqueTokens::new(other.issuer(), ClientAuth::post("docs", "s"));
    let builder = it.world.auth().issuer(local_with_all_algorithms(&other.issuer()));
    let auth = builder.opaque_tokens(rest).opaque_tokens(it.settings()).build().unwrap();
    let issuer_of = async |token: &str| {
        let caller = auth.authenticate(token).await?;
        Ok::<_, AuthError>(caller.identity().issuer().to_owned())
    };
    assert_eq!(issuer_of(&it.good()).await.unwrap(), it.world.provider.issuer());
    assert_eq!(issuer_of(&other.token().opaque("x")).await.unwrap(), other.issuer());
    // An issuer is not asked about the tokens of another one.
    assert_eq!(outcome(&auth, &other.token().opaque("skt_")).await, "token_inactive");
    assert_eq!(outcome(&auth, &it.token().opaque("y")).await, "token_inactive");
}

/// Denies every caller whose token was not introspected.
#[derive(Debug, Clone, Default)]
struct IntrospectedOnly(Arc<AtomicU64>);

#[async_trait]
impl AdmissionCheck for IntrospectedOnly {
    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(match request.identity.provenance() {
            Provenance::Introspected => Admission::Allow,
            _ => Admission::Deny(InvalidToken::Revoked.into()),
        })
    }
}

#[tokio::test]
async fn checks_guards_and_tenants_apply() {
    let it = Introspection::new().await;
    let check = IntrospectedOnly::default();
    let tenants = MemoryTenants::from_iter([Tenant::new("acme".parse().unwrap())]);
    let builder = it.world.auth().opaque_tokens(it.settings());
    let auth = builder.admission(check.clone()).tenants(tenants).build().unwrap();
    let guarded = |guard| get(|| async {}).route_layer(guard);
    let app = Router::new()
        .route("/", guarded(auth.require(scope("docs:read"))))
        .route("/verified", get(|| async {}).route_layer(auth.require(verified_token())))
        .layer(auth.layer());
    let server = Server::axum(app).await;
    let status = async |path: &str, token: &str| server.get_as(path, token).await.status;
    let token = it.token().tenant("acme").scope("docs:read").opaque("skt_");
    for _ in 0..2 {
        assert_eq!(status("/", &token).await, 200);
        // The guard wants a signature that this service verified itself.
        assert_eq!(status("/verified", &token).await, 403);
    }
    assert_eq!((check.0.load(Ordering::SeqCst), it.questions()), (4, 1));
    let other = it.token().tenant("acme").scope("docs:write").opaque("skt_");
    assert_eq!(status("/", &other).await, 403);
    let stranger = it.token().tenant("umbrella").scope("docs:read").opaque("skt_");
    assert_eq!(status("/", &stranger).await, 403);
    let jwt = it.token().tenant("acme").scope("docs:read").sign();
    assert_eq!(status("/", &jwt).await, 401, "the check denies it");
}

/// Accepts a request whose header `x-key` is `right`.
#[derive(Debug)]
struct KeyHeader;

#[async_trait]
impl ProofVerifier for KeyHeader {
    fn accepts(&self, confirmation: &Confirmation) -> bool {
        matches!(confirmation, Confirmation::JwkThumbprint(_))
    }

    async fn verify(&self, request: &ProofRequest<'_>) -> Result<Proven, AuthError> {
        match request.head.headers.get("x-key") {
            Some(key) if key == "right" => Ok(Proven::new()),
            _ => Err(InvalidToken::Unproven.into()),
        }
    }
}

#[tokio::test]
async fn bound_token_needs_its_proof() {
    let it = Introspection::new().await;
    let auth = it.world.auth().opaque_tokens(it.settings()).proof_verifier(KeyHeader);
    let auth = auth.build().unwrap();
    let server = server(&auth).await;
    let token = it.token().claim("cnf", json!({ "jkt": "A".repeat(43) })).opaque("skt_");
    let bearer = format!("Bearer {token}");
    let send = async |key: &str| {
        server.get("/", &[("authorization", &bearer), ("x-key", key)]).await.status
    };
    for _ in 0..2 {
        assert_eq!(send("right").await, 200);
        assert_eq!(send("wrong").await, 401);
        // A token without a request has no proof.
        assert_eq!(outcome(&auth, &token).await, "token_unproven");
    }
    assert_eq!(it.questions(), 1);
    // Without a verifier, bound tokens are refused.
    assert_eq!(outcome(&it.auth(), &token).await, "token_unproven");
}

#[tokio::test]
async fn endpoints_know_opaque_tokens() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let app = Router::new().layer(auth.layer()).merge(Router::new());
    let app = app.fallback(async || "").layer(auth.endpoints().build().unwrap());
    let server = Server::axum(app).await;
    let token = it.token().subject("alice").scope("docs:read").opaque("skt_");
    let whoami = server.get_as("/v1/auth/whoami", &token).await;
    assert_eq!((whoami.status, &whoami.json()["identity_id"]), (200, &json!("user:alice")));
    // This service's own introspection, of an opaque token with an opaque token.
    let admin = it.token().scope("admin").opaque("skt_");
    let introspect = async |token: &str| {
        let body = serde_json::to_string(&json!({ "token": token })).unwrap();
        let request = http::Request::post("/v1/auth/introspect")
            .header("authorization", format!("Bearer {admin}"))
            .header("content-type", "application/json")
            .body(body);
        server.send(request.unwrap()).await.json()
    };
    let seen = introspect(&token).await;
    assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!("alice")));
    assert_eq!(introspect("skt_unknown").await, json!({ "active": false }));
}

#[tokio::test]
async fn no_secret_appears_in_any_output() {
    let log = Log::start();
    let it = Introspection::new().await;
    let settings = it.settings();
    let mut outputs = vec![format!("{settings:?}")];
    let auth = it.auth_with(settings);
    let server = server(&auth).await;
    let good = it.token().claim("email", "cAnArY@example.org").opaque("skt_cAnArY-g00d-");
    for fault in [
        None,
        Some(change("aud", &json!("x"))),
        Some(Fault::Status(500)),
        Some(Fault::Status(401)),
        Some(Fault::html()),
    ] {
        auth.introspected_tokens().flush();
        match fault {
            Some(fault) => it.fail(fault),
            None => it.heal(),
        }
        for token in [good.as_str(), "skt_cAnArY-inv3nted"] {
            outputs.push(server.get_as("/", token).await.body);
            match auth.authenticate(token).await {
                Ok(context) => outputs.push(format!("{context:?}")),
                Err(error) => outputs.push(format!("{error} {error:?}")),
            }
        }
    }
    outputs.push(format!("{auth:?} {:?}", auth.introspected_tokens()));
    outputs.push(log.text());
    for output in &outputs {
        assert!(!output.contains("cAnArY") && !output.contains(SECRET), "{output}");
        assert!(!output.contains(&good), "{output}");
    }
}
