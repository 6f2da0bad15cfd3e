//! Sign-in, refresh, exchange and revocation at a third-party provider.

use std::collections::BTreeMap;
use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::{
    AccessToken, AuthorizationRequest, CodeRequest, ExchangeError, OAuthError, PkceVerifier,
    RefreshRequest, ServiceTokenRequest,
};
use scaikey_auth::issuer::{ClientAuth, WorkloadToken};
use scaikey_auth::testing::{ManualClock, SigningKey};
use scaikey_auth::{Auth, ExchangeRequest, IssuerConfig, TokenExchangeClient};
use serde_json::Value;
use tokio::task::JoinSet;

use super::Provider;
use crate::support::File;
use crate::support::http::{self, Answer, get, send};
use crate::support::process::Program;

pub(super) const REDIRECT: &str = "https://wave.example/v1/auth/login";
pub(super) const SECRET: &str = "p+ss %w/o:rd&=x";
const SCOPES: &str = "openid offline_access email profile docs:read";

/// Follows the redirects of the provider like a browser, until one leads back to the service.
pub(super) async fn sign_in(first: &str) -> String {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    let http = http.build().unwrap();
    let (mut at, mut cookies) = (first.to_owned(), BTreeMap::new());
    for _ in 0..10 {
        let jar: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = http.get(&at).header("cookie", jar.join("; ")).send().await.unwrap();
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let Some(next) = answer.headers().get("location") else {
            panic!("{at} does not redirect: {}", answer.text().await.unwrap());
        };
        let next = url::Url::parse(&at).unwrap().join(next.to_str().unwrap()).unwrap();
        if next.as_str().starts_with(REDIRECT) {
            return next.into();
        }
        at = next.into();
    }
    panic!("the provider redirects in a loop");
}

fn query(url: &str) -> BTreeMap<String, String> {
    url::Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

fn client(provider: &Provider, auth: ClientAuth) -> TokenExchangeClient {
    let client = TokenExchangeClient::builder(&provider.url).allow_loopback_http(true);
    client.client_auth(auth).build().unwrap()
}

fn web(provider: &Provider) -> TokenExchangeClient {
    client(provider, ClientAuth::basic("web", SECRET))
}

/// Signs in like a service and returns the code.
async fn code(client: &TokenExchangeClient, verifier: &PkceVerifier) -> String {
    let request = AuthorizationRequest::new(REDIRECT, verifier, "state-1")
        .scopes(SCOPES.parse().unwrap())
        .nonce("n-1");
    let url = client.authorization_url(&request).await.unwrap();
    let back = query(&sign_in(url.as_str()).await);
    assert_eq!(back.get("error"), None, "{back:?}");
    assert_eq!(
        (&back["state"], &back["iss"]),
        (&"state-1".to_owned(), &client.issuer().to_owned())
    );
    back["code"].clone()
}

async fn tokens(client: &TokenExchangeClient) -> AccessToken {
    let verifier = PkceVerifier::generate().unwrap();
    let code = code(client, &verifier).await;
    client.authorization_code(&CodeRequest::new(code, REDIRECT, verifier)).await.unwrap()
}

async fn counts(provider: &Provider) -> Value {
    get(&format!("{}/counts", provider.url), None).await.json()
}

#[track_caller]
fn is_refused(outcome: Result<AccessToken, ExchangeError>, code: &OAuthError) {
    let error = outcome.unwrap_err();
    assert_eq!(error.oauth_error(), Some(code), "{error}");
}

#[tokio::test]
async fn browser_signs_in_through_the_provider() {
    let provider = Provider::start("0").await;
    let client = [("SCAIWAVE_CLIENT_ID", "web"), ("SCAIWAVE_CLIENT_SECRET", SECRET)];
    signs_in(&provider, &client).await;
}

/// Signs a user in through a service with these further variables, and refreshes the tokens.
pub(super) async fn signs_in(provider: &Provider, more: &[(&str, &str)]) {
    let own = [
        ("SCAIWAVE_ISSUER", provider.url.as_str()),
        ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_REDIRECT_URI", REDIRECT),
        ("SCAIWAVE_SCOPES", SCOPES),
    ];
    let (_service, service) = Program::service(&[&own, more].concat()).await;
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    let browser = browser.build().unwrap();
    let login = send(browser.get(format!("{service}/v1/auth/login"))).await;
    assert_eq!(login.status, 303, "{login:?}");
    let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
    let back = sign_in(login.header("location")).await;
    let here = back.replace("https://wave.example", &service);
    let call_back = || send(browser.get(&here).header("cookie", &cookie));
    let signed_in: Answer = call_back().await;
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    let token = signed_in.json()["access_token"].as_str().unwrap().to_owned();
    let me = get(&format!("{service}/v1/auth/whoami"), Some(&token)).await.json();
    assert_eq!((&me["subject"], &me["identity_type"]), (&"alice".into(), &"user".into()));
    // The service redeems the code once and repeats the answer for a repeated callback. A second
    // redemption would revoke the tokens of the first (RFC 6749 §4.1.2).
    let again = call_back().await;
    assert_eq!((again.status, &again.json()["access_token"]), (200, &token.into()));
    let form = format!("refresh_token={}", signed_in.json()["refresh_token"].as_str().unwrap());
    let request = http::client().post(format!("{service}/v1/auth/refresh")).body(form);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(send(request).await.status, 200);
}

#[tokio::test]
async fn code_needs_its_own_verifier() {
    let provider = Provider::start("0").await;
    let client = web(&provider);
    let (verifier, other) = (PkceVerifier::generate().unwrap(), PkceVerifier::generate().unwrap());
    let first = code(&client, &verifier).await;
    let outcome = client.authorization_code(&CodeRequest::new(first, REDIRECT, other)).await;
    is_refused(outcome, &OAuthError::InvalidGrant);
    let token = tokens(&client).await;
    assert!(token.refresh_token().is_some() && token.id_token().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_callers_use_refresh_token_once() {
    let provider = Provider::start("0").await;
    let client = web(&provider);
    let first = tokens(&client).await;
    let refresh = RefreshRequest::new(first.refresh_token().unwrap().clone());
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (client, refresh) = (client.clone(), refresh.clone());
        callers.spawn(async move { client.refresh(&refresh).await.unwrap() });
    }
    let got = callers.join_all().await;
    assert!(got.iter().all(|token| token.refresh_token() == got[0].refresh_token()));
    assert_ne!(got[0].refresh_token(), first.refresh_token());
    assert_eq!(counts(&provider).await["refresh_token"], 1);
    // A second client that reuses the token makes the provider revoke the family.
    let other = web(&provider);
    is_refused(other.refresh(&refresh).await, &OAuthError::InvalidGrant);
    let successor = RefreshRequest::new(got[0].refresh_token().unwrap().clone());
    is_refused(other.refresh(&successor).await, &OAuthError::InvalidGrant);
}

#[tokio::test]
async fn tokens_are_accepted_by_their_audience() {
    let provider = Provider::start("0").await;
    let client = web(&provider);
    let at = |audience: &str| {
        let issuer = IssuerConfig::new(&provider.url).allow_loopback_http(true);
        Auth::builder().issuer(issuer).audience(audience).build().unwrap()
    };
    let service = ServiceTokenRequest::default().scopes("docs:read".parse().unwrap());
    let own = client.service_token(service).await.unwrap();
    let context = at("scaiwave").authenticate(own.secret().expose()).await.unwrap();
    assert_eq!(context.identity().subject(), "web");

    let alice = tokens(&client).await;
    at("scaiwave").authenticate(alice.secret().expose()).await.unwrap();
    let request = ExchangeRequest::new(alice.secret().clone(), "scaidrive");
    let exchanged = client.exchange(&request).await.unwrap();
    let context = at("scaidrive").authenticate(exchanged.secret().expose()).await.unwrap();
    assert_eq!(context.identity().subject(), "alice");
    at("scaiwave").authenticate(exchanged.secret().expose()).await.unwrap_err();
    client.exchange(&request).await.unwrap();
    let counted = counts(&provider).await;
    assert_eq!(
        counted["urn:ietf:params:oauth:grant-type:token-exchange"], 1,
        "the second exchange is answered from the cache"
    );

    let elsewhere = ExchangeRequest::new(alice.secret().clone(), "nowhere");
    is_refused(client.exchange(&elsewhere).await, &OAuthError::InvalidTarget);
    let garbage = ExchangeRequest::new("a.b.c", "scaidrive");
    is_refused(client.exchange(&garbage).await, &OAuthError::InvalidRequest);
}

#[tokio::test]
async fn every_client_authentication_method_works() {
    let key = SigningKey::generate(Algorithm::ES256);
    let provider = Provider::start_for("0", &key.jwk().to_string()).await;
    let keyed = |pem: String| ClientAuth::private_key_jwt("keyed", Algorithm::ES256, None, pem);
    for auth in [
        ClientAuth::basic("web", SECRET),
        ClientAuth::post("posting", SECRET),
        keyed(key.private_pem()),
        ClientAuth::none("public"),
    ] {
        let client = client(&provider, auth);
        let token = tokens(&client).await;
        let refresh = RefreshRequest::new(token.refresh_token().unwrap().clone());
        client.refresh(&refresh).await.unwrap();
    }
    let stranger = SigningKey::generate(Algorithm::ES256).private_pem();
    for auth in [ClientAuth::basic("web", "guess"), keyed(stranger)] {
        let outcome = client(&provider, auth).service_token(ServiceTokenRequest::default()).await;
        is_refused(outcome, &OAuthError::InvalidClient);
    }
}

/// The key set of the client is that of a cluster, whose tokens name the client as issuer and subject, as
/// this provider requires. It accepts each `jti` once.
#[tokio::test]
async fn assertion_file_authenticates_until_it_is_spent() {
    let cluster = SigningKey::generate(Algorithm::ES256);
    let provider = Provider::start_for("0", &cluster.jwk().to_string()).await;
    let issuer = scaikey_auth::testing::Provider::start().await;
    let token = || {
        let token = issuer.token().signed_by(&cluster).kid(None).issuer("keyed").subject("keyed");
        token.audience(&provider.url).sign()
    };
    let file = File::new("token", &token());
    let auth = ClientAuth::assertion("keyed", WorkloadToken::file(file.path()));
    let clock = ManualClock::new();
    let client = TokenExchangeClient::builder(&provider.url).allow_loopback_http(true);
    let client = client.client_auth(auth).clock(clock.clone()).build().unwrap();
    let token_of_user = tokens(&client).await;
    let refresh = RefreshRequest::new(token_of_user.refresh_token().unwrap().clone());
    is_refused(client.refresh(&refresh).await, &OAuthError::InvalidClient);
    // A refusal is remembered for one second.
    clock.advance(Duration::from_secs(2));
    file.write(&token());
    client.refresh(&refresh).await.unwrap();
}

#[tokio::test]
async fn revoked_refresh_token_is_inactive() {
    let provider = Provider::start("0").await;
    let client = web(&provider);
    let token = tokens(&client).await;
    let refresh = token.refresh_token().unwrap().clone();
    let is_active = async || {
        let url = format!("{}/token/introspection", provider.url);
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let form = form.append_pair("token", refresh.expose()).finish();
        let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let request = http::client().post(url).basic_auth("web", Some(encoded)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        send(request).await.json()["active"].clone()
    };
    assert_eq!(is_active().await, true);
    for _ in 0..2 {
        client.revoke(&refresh).await.unwrap();
    }
    assert_eq!(is_active().await, false);
    is_refused(
        client.refresh(&RefreshRequest::new(refresh.clone())).await,
        &OAuthError::InvalidGrant,
    );
}
