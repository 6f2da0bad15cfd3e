//! The on-behalf-of flow of Microsoft Entra ID, against a server that behaves as its documentation says
//! (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow>).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use scaikey_auth::config::ExchangeGrant;
use scaikey_auth::exchange::{
    ExchangeError, OAuthError, OnBehalfOfRequest, TokenExchangeBuilder, TokenType,
};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::outbound::{OutboundLayer, OutboundToken, with_caller};
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::{Auth, AuthConfig, ExchangeRequest, TokenExchangeClient};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Server, local, within_timeout};

/// The client id of this service, and of the target service.
const SERVICE: &str = "535fb089-9ff3-47b6-9bfb-4f1264799865";
const VAULT: &str = "bf8d80f9-9098-4972-b203-500f535113b1";

const CLAIMS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["9ab03e19"]}}}"#;

type Parameters = BTreeMap<String, String>;

/// A token endpoint in the shape of Entra ID's.
struct Entra {
    server: Server,
    state: Fixture,
}

#[derive(Clone, Default)]
struct Fixture {
    received: Arc<Mutex<Vec<Parameters>>>,
    /// Changes the claims of the next tokens.
    changes: Arc<Mutex<Value>>,
}

impl Entra {
    async fn start() -> Self {
        let state = Fixture::default();
        let app = Router::new().route("/tenant/oauth2/v2.0/token", post(token));
        Self { server: Server::axum(app.with_state(state.clone())).await, state }
    }

    fn token_url(&self) -> String {
        format!("{}/tenant/oauth2/v2.0/token", self.server.url())
    }

    fn builder(&self) -> TokenExchangeBuilder {
        TokenExchangeClient::builder("https://login.microsoftonline.com/tenant/v2.0")
            .client_auth(ClientAuth::post(SERVICE, "secret"))
            .allow_loopback_http(true)
            .token_url(self.token_url())
    }

    fn client(&self) -> TokenExchangeClient {
        self.builder().build().unwrap()
    }

    fn change_claims(&self, changes: Value) {
        *self.state.changes.lock().unwrap() = changes;
    }

    fn received(&self) -> Vec<Parameters> {
        self.state.received.lock().unwrap().clone()
    }
}

fn jwt(claims: &Value) -> String {
    format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Returns the access token of a user for this service.
fn assertion(more: Value) -> String {
    let exp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut claims = json!({
        "aud": SERVICE, "iss": "https://login.microsoftonline.com/tenant/v2.0",
        "sub": "pairwise-of-service", "oid": "alice", "tid": "tenant", "amr": ["pwd", "mfa"],
        "exp": exp.as_secs() + 3600,
    });
    merge(&mut claims, &more);
    jwt(&claims)
}

fn merge(claims: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
}

async fn token(State(fixture): State<Fixture>, Form(form): Form<Parameters>) -> Response {
    fixture.received.lock().unwrap().push(form.clone());
    let refused = |members: Value| (StatusCode::BAD_REQUEST, Json(members)).into_response();
    let parameter = |name: &str| form.get(name).map_or("", String::as_str);
    let is_complete = parameter("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        && parameter("requested_token_use") == "on_behalf_of"
        && !parameter("scope").is_empty();
    if !is_complete {
        return refused(json!({ "error": "invalid_request" }));
    }
    let payload = parameter("assertion").split('.').nth(1).unwrap_or_default();
    let Ok(payload) = URL_SAFE_NO_PAD.decode(payload) else {
        return refused(json!({ "error": "invalid_grant" }));
    };
    let user: Value = serde_json::from_slice(&payload).unwrap();
    let is_for_client = user["aud"] == parameter("client_id") || user["aud"] == "scaiwave";
    if !is_for_client {
        return refused(json!({ "error": "invalid_grant", "error_codes": [500131] }));
    }
    if user["amr"] == json!(["pwd"]) {
        return refused(json!({
            "error": "interaction_required", "error_codes": [50079], "claims": CLAIMS,
            "error_description": "AADSTS50079: you must enroll in multifactor authentication",
        }));
    }
    let mut claims = json!({
        "aud": VAULT, "sub": "pairwise-of-vault", "oid": user["oid"], "tid": user["tid"],
        // Every scope that was consented to, by its short name.
        "scp": "read write",
    });
    merge(&mut claims, &fixture.changes.lock().unwrap());
    Json(json!({
        "token_type": "Bearer", "scope": format!("{VAULT}/read {VAULT}/write"), "expires_in": 7200,
        "ext_expires_in": 0, "access_token": jwt(&claims), "refresh_token": "OAQABAAAA",
    }))
    .into_response()
}

#[tokio::test]
async fn request_has_the_documented_form() {
    let entra = Entra::start().await;
    let subject = assertion(json!({}));
    let request = OnBehalfOfRequest::new(subject.as_str(), VAULT);
    let token = entra.client().on_behalf_of(&request).await.unwrap();
    assert_eq!(token.refresh_token(), None);
    let scopes = "api://vault/read".parse().unwrap();
    entra.client().on_behalf_of(&request.scopes(scopes)).await.unwrap();
    let expected = |scope: &str| {
        let pairs = [
            ("assertion", subject.as_str()),
            ("client_id", SERVICE),
            ("client_secret", "secret"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("requested_token_use", "on_behalf_of"),
            ("scope", scope),
        ];
        Parameters::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
    };
    let everything = format!("{VAULT}/.default");
    assert_eq!(entra.received(), [expected(&everything), expected("api://vault/read")]);
}

#[tokio::test]
async fn claims_challenge_reaches_the_service() {
    let entra = Entra::start().await;
    let client = entra.client();
    let subject = assertion(json!({ "amr": ["pwd"] }));
    let request = OnBehalfOfRequest::new(subject, VAULT);
    let refused = client.on_behalf_of(&request).await.unwrap_err();
    let code = OAuthError::Other("interaction_required".to_owned());
    assert_eq!(refused.oauth_error(), Some(&code));
    assert_eq!(refused.claims_challenge(), Some(CLAIMS));
    let header = refused.claims_challenge_header().unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(CLAIMS);
    let challenge = format!(r#"Bearer error="insufficient_claims", claims="{base64}""#);
    assert_eq!(header.to_str().unwrap(), challenge);
    assert!(!refused.to_string().contains("polids"), "{refused}");
    // The refusal is cached, with its claims.
    let again = client.on_behalf_of(&request).await.unwrap_err();
    assert_eq!((again.claims_challenge(), entra.received().len()), (Some(CLAIMS), 1));
    let other = OnBehalfOfRequest::new(jwt(&json!({ "aud": "x" })), VAULT);
    let refused = client.on_behalf_of(&other).await.unwrap_err();
    assert_eq!((refused.claims_challenge(), refused.claims_challenge_header()), (None, None));
}

#[tokio::test]
async fn user_tenant_and_audience_are_compared() {
    let entra = Entra::start().await;
    for (changes, by_default, by_audience, by_subject) in [
        (json!({}), true, true, true),
        (json!({ "sub": "another", "scp": "admin" }), true, true, true),
        (json!({ "oid": "mallory" }), false, false, true),
        (json!({ "oid": null }), false, false, true),
        (json!({ "tid": "umbrella" }), false, false, true),
        (json!({ "aud": "https://graph.microsoft.com" }), false, true, false),
        (json!({ "aud": null }), false, true, false),
    ] {
        entra.change_claims(changes.clone());
        let request = OnBehalfOfRequest::new(assertion(json!({})), VAULT);
        for (builder, is_accepted) in [
            (entra.builder(), by_default),
            (entra.builder().insecure_any_audience(), by_audience),
            (entra.builder().insecure_any_subject(), by_subject),
        ] {
            let token = builder.build().unwrap().on_behalf_of(&request).await;
            assert_eq!(token.is_ok(), is_accepted, "{changes}: {token:?}");
        }
    }
}

#[tokio::test]
async fn token_is_cached_within_subjects_life() {
    let entra = Entra::start().await;
    let clock = ManualClock::new();
    let client = entra.builder().clock(clock.clone()).build().unwrap();
    let request = OnBehalfOfRequest::new(assertion(json!({})), VAULT);
    let (one, two) = tokio::join!(client.on_behalf_of(&request), client.on_behalf_of(&request));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.secret(), entra.received().len()), (two.secret(), 1));
    // The token lives for two hours, and the assertion for one.
    let limit = one.cacheable_for().unwrap();
    assert!(limit <= Duration::from_secs(3600), "{limit:?}");
    client.on_behalf_of(&request).await.unwrap();
    assert_eq!(entra.received().len(), 1);
    let of_bob = OnBehalfOfRequest::new(assertion(json!({ "oid": "bob" })), VAULT);
    let scoped = request.clone().scopes("api://vault/read".parse().unwrap());
    for different in [of_bob, scoped] {
        client.on_behalf_of(&different).await.unwrap();
    }
    assert_eq!(entra.received().len(), 3);
    clock.advance(Duration::from_secs(3600));
    client.on_behalf_of(&request).await.unwrap();
    assert_eq!(entra.received().len(), 4);
}

#[tokio::test]
async fn exchange_uses_the_configured_grant() {
    let entra = Entra::start().await;
    let client = entra.builder().exchange_grant(ExchangeGrant::OnBehalfOf).build().unwrap();
    let request = ExchangeRequest::new(assertion(json!({})), VAULT);
    let token = client.exchange(&request).await.unwrap();
    // The same request by hand finds the token.
    let by_hand = OnBehalfOfRequest::new(request.subject.clone(), VAULT);
    assert_eq!(client.on_behalf_of(&by_hand).await.unwrap().secret(), token.secret());
    assert_eq!(entra.received().len(), 1);
    let url = || "https://vault.example".parse().unwrap();
    let refused = client.exchange(&request.clone().resource(url())).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotConfigured(_)), "{refused}");
    for other in [TokenType::RefreshToken, TokenType::IdToken, TokenType::Other("urn:x".into())] {
        let mut request = request.clone();
        request.subject_type = other;
        let refused = client.exchange(&request).await.unwrap_err();
        assert!(matches!(refused, ExchangeError::NotConfigured(_)), "{refused}");
    }
    assert_eq!(entra.received().len(), 1);
}

#[tokio::test]
async fn outbound_layer_uses_the_configured_grant() {
    let (entra, provider) = (Entra::start().await, Provider::start().await);
    let auth = Auth::builder().issuer(local(provider.issuer())).audience("scaiwave");
    let auth = auth.build().unwrap();
    let alice = provider.token().claim("oid", "alice").claim("tid", "tenant").sign();
    let alice = auth.authenticate(&alice).await.unwrap();
    let (issuer, token_url) = (provider.issuer(), entra.token_url());
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("CLIENT_ID", SERVICE),
        ("CLIENT_SECRET", "secret"),
        ("CLIENT_AUTH", "post"),
        ("TOKEN_URL", &token_url),
        ("EXCHANGE_GRANT", "on_behalf_of"),
    ];
    let variables = variables.map(|(name, value)| (format!("SVC_{name}"), value.to_owned()));
    let config = AuthConfig::from_vars("SVC", variables);
    let client = TokenExchangeClient::from_config(&config).build().unwrap();
    let layer = OutboundLayer::builder(client)
        .destination("https://vault.example", OutboundToken::on_behalf_of_caller(VAULT))
        .build()
        .unwrap();
    let vault = layer.layer(service_fn(|request: http::Request<String>| async move {
        assert!(request.headers().contains_key("authorization"));
        Ok::<_, scaikey_auth::error::BoxError>(http::Response::new(String::new()))
    }));
    let request = http::Request::get("https://vault.example/secrets").body(String::new());
    within_timeout(with_caller(alice, vault.oneshot(request.unwrap()))).await.unwrap();
    assert_eq!(entra.received()[0]["requested_token_use"], "on_behalf_of");
}
