//! Logout tokens of the provider (OpenID Connect Back-Channel Logout 1.0).

use std::sync::atomic::Ordering;
use std::time::Duration;

use scaikey_auth::endpoints::{Endpoint, EndpointsBuilder};
use scaikey_auth::revocation::Revocations;
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::testing::{TestIssuer, TokenBuilder};
use scaikey_auth::{Auth, AuthConfig, IssuerConfig};
use serde_json::{Value, json};

use super::env::Setup;
use super::reported::{Api, Flaky, post, serve, with_log};
use crate::support::{Answer, Server, request};

pub(super) const PATH: &str = "/v1/auth/backchannel_logout";
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

pub(super) fn for_wave(endpoints: EndpointsBuilder) -> EndpointsBuilder {
    endpoints.backchannel_logout_for("wave")
}

async fn api() -> Api {
    Api::new(for_wave).await
}

/// A logout token of alice's session 17, without claims of access tokens.
pub(super) fn logout_token(issuer: &TestIssuer) -> TokenBuilder {
    let token = issuer.token().without("tenant_id").without("preferred_username").without("email");
    let token = token.typ(Some("logout+jwt")).audience("wave").subject("alice").claim("sid", "17");
    token.claim("events", json!({ EVENT: {} })).expires_in(Duration::from_secs(120))
}

async fn report_to(server: &Server, token: &str) -> Answer {
    post(server, PATH, &FORM, format!("logout_token={token}")).await
}

async fn report(api: &Api, token: TokenBuilder) -> Answer {
    report_to(&api.server, &token.sign()).await
}

/// Alice's access tokens: of session 17, of session 18, without a session. And one of bob.
fn access_tokens(issuer: &TestIssuer) -> [String; 4] {
    let alice = || issuer.token().subject("alice");
    let of = |sid: &str| alice().claim("sid", sid).sign();
    [of("17"), of("18"), alice().sign(), issuer.token().subject("bob").sign()]
}

async fn statuses(api: &Api, tokens: &[String; 4]) -> [u16; 4] {
    api.statuses(tokens.each_ref().map(String::as_str)).await
}

#[tokio::test]
async fn logout_token_ends_the_session() {
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    assert_eq!(statuses(&api, &tokens).await, [200; 4]);
    let answer = report(&api, logout_token(&api.world.provider)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    // A token without `sid` may be one of this session.
    assert_eq!(statuses(&api, &tokens).await, [401, 200, 401, 200]);
    let refused = api.server.get_as("/", &tokens[0]).await;
    assert_eq!(refused.error().as_deref(), Some("invalid_token"));
    assert_eq!(api.auth.authenticate(&tokens[0]).await.unwrap_err().reason(), "token_revoked");

    api.advance(10);
    let later = access_tokens(&api.world.provider);
    assert_eq!(statuses(&api, &later).await, [401, 200, 200, 200]);
}

#[tokio::test]
async fn logout_token_without_session_ends_all() {
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    let without = logout_token(&api.world.provider).without("sid");
    assert_eq!(report(&api, without).await.status, 200);
    assert_eq!(statuses(&api, &tokens).await, [401, 401, 401, 200]);
    api.advance(10);
    assert_eq!(statuses(&api, &access_tokens(&api.world.provider)).await, [200; 4]);
}

#[tokio::test]
async fn logout_token_may_name_only_sessions() {
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    let without = logout_token(&api.world.provider).without("sub");
    assert_eq!(report(&api, without).await.status, 200);
    assert_eq!(statuses(&api, &tokens).await, [401, 200, 200, 200]);
}

type Change = fn(TokenBuilder) -> TokenBuilder;

#[tokio::test]
async fn variants_of_logout_tokens_are_accepted() {
    let table: [(&str, Change); 8] = [
        ("typ is absent", |it| it.typ(None)),
        ("typ is JWT", |it| it.typ(Some("JWT"))),
        ("typ is a media type", |it| it.typ(Some("application/Logout+JWT"))),
        ("aud is a list", |it| it.claim("aud", json!(["wave"]))),
        ("there are two events", |it| it.claim("events", json!({ EVENT: {}, "urn:other": {} }))),
        ("the event has members", |it| it.claim("events", json!({ EVENT: { "reason": "x" } }))),
        ("there are more claims", |it| it.claim("trace_id", "x").claim("typ", "Logout")),
        ("it expired within the leeway", |it| it.claim("iat", 1).expires_in(Duration::ZERO)),
    ];
    for (name, change) in table {
        let api = api().await;
        let tokens = access_tokens(&api.world.provider);
        let answer = report(&api, change(logout_token(&api.world.provider))).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(api.status(&tokens[0]).await, 401, "{name}");
    }
}

#[tokio::test]
async fn violations_are_refused() {
    let table: &[(&str, Change)] = &[
        ("typ of an access token", |it| it.typ(Some("at+jwt"))),
        ("typ of a security event", |it| it.typ(Some("secevent+jwt"))),
        ("typ of a proof", |it| it.typ(Some("dpop+jwt"))),
        ("no iss", |it| it.without("iss")),
        ("unknown iss", |it| it.issuer("https://elsewhere.example")),
        ("iss of another type", |it| it.claim("iss", 7)),
        ("no aud", |it| it.without("aud")),
        ("another client", |it| it.audience("drive")),
        ("this service as a resource", |it| it.audience("scaiwave")),
        ("another client, too", |it| it.claim("aud", json!(["wave", "drive"]))),
        ("empty aud", |it| it.claim("aud", json!([]))),
        ("another azp", |it| it.claim("azp", "drive")),
        ("no iat", |it| it.without("iat")),
        ("iat of another type", |it| it.claim("iat", "now")),
        ("future iat", |it| it.claim("iat", 4_000_000_000_u64).claim("exp", 4_000_000_100_u64)),
        ("no exp", |it| it.without("exp")),
        ("expired", |it| it.expired()),
        ("no jti", |it| it.without("jti")),
        ("empty jti", |it| it.claim("jti", "")),
        ("jti of another type", |it| it.claim("jti", 7)),
        ("neither sub nor sid", |it| it.without("sub").without("sid")),
        ("empty sub", |it| it.subject("")),
        ("sub of another type", |it| it.claim("sub", json!(["alice"]))),
        ("empty sid", |it| it.claim("sid", "")),
        ("sid of another type", |it| it.claim("sid", 17)),
        ("no events", |it| it.without("events")),
        ("events is a list", |it| it.claim("events", json!([EVENT]))),
        ("events is a text", |it| it.claim("events", EVENT)),
        ("events is empty", |it| it.claim("events", json!({}))),
        ("another event", |it| it.claim("events", json!({ "urn:other": {} }))),
        ("the event is a text", |it| it.claim("events", json!({ EVENT: "" }))),
        ("the event is null", |it| it.claim("events", json!({ EVENT: null }))),
        ("the event is a list", |it| it.claim("events", json!({ EVENT: [] }))),
        ("nonce", |it| it.claim("nonce", "n-1")),
        ("nonce is null", |it| it.claim("nonce", Value::Null)),
        ("alg none", |it| it.header("alg", "none")),
        ("alg HS256", |it| it.header("alg", "HS256")),
        ("alg of another key", |it| it.header("alg", "RS256")),
        ("a critical extension", |it| it.header("crit", json!(["exp"]))),
        ("unknown key", |it| it.kid(Some("unknown"))),
    ];
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    for (name, change) in table {
        let answer = report(&api, change(logout_token(&api.world.provider))).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        answer.assert_oauth_error(400, "invalid_request");
    }
    let signed = logout_token(&api.world.provider).sign();
    let (start, signature) = signed.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let altered = format!("{start}.{first}{}", &signature[1..]);
    let none = logout_token(&api.world.provider).header("alg", "none").sign();
    let unsigned = format!("{}.", none.rsplit_once('.').unwrap().0);
    let empty = format!("{start}.");
    for token in [&altered, &unsigned, start, &empty, "x", "", &format!("{signed}.x")] {
        report_to(&api.server, token).await.assert_oauth_error(400, "invalid_request");
    }
    assert_eq!(statuses(&api, &tokens).await, [200; 4]);
    assert_eq!(api.entries(), 0);
}

#[tokio::test]
async fn other_tokens_are_no_logout_tokens() {
    let api = api().await;
    let [access, ..] = access_tokens(&api.world.provider);
    let id_token = api.token().subject("alice").claim("sid", "17").audience("wave");
    let without_nonce = id_token.clone().sign();
    let id_token = id_token.claim("nonce", "n-1").sign();
    for token in [&access, &id_token, &without_nonce] {
        report_to(&api.server, token).await.assert_oauth_error(400, "invalid_request");
    }
    assert_eq!(api.status(&access).await, 200);
    // A logout token is no bearer token, whatever its type is.
    for typ in [Some("logout+jwt"), Some("JWT"), None] {
        let token = logout_token(&api.world.provider).audience("scaiwave").typ(typ).sign();
        assert_eq!(api.status(&token).await, 401, "{typ:?}");
    }
}

#[tokio::test]
async fn issuers_report_only_their_own_sessions() {
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    let others = access_tokens(&api.other);
    // The other issuer has a session and a user of the same names.
    let theirs = logout_token(&api.other);
    assert_eq!(report(&api, theirs).await.status, 200);
    assert_eq!(statuses(&api, &tokens).await, [200; 4]);
    assert_eq!(statuses(&api, &others).await, [401, 200, 401, 200]);
    // It cannot report in the name of this one.
    let forged = logout_token(&api.other).issuer(&api.issuer());
    report(&api, forged).await.assert_oauth_error(400, "invalid_request");
    let forged = logout_token(&api.world.provider).signed_by(&api.other.key());
    report(&api, forged).await.assert_oauth_error(400, "invalid_request");
    assert_eq!(statuses(&api, &tokens).await, [200; 4]);
}

/// BCL §2.7: a session that has ended already is a success. The service does not know which sessions there are.
#[tokio::test]
async fn unknown_session_ends_with_success() {
    let api = api().await;
    let tokens = access_tokens(&api.world.provider);
    for (sub, sid) in [("alice", "99"), ("carol", "17"), ("carol", "99")] {
        let token = logout_token(&api.world.provider).subject(sub).claim("sid", sid);
        let token = token.claim("jti", format!("{sub} {sid}"));
        assert_eq!(report(&api, token).await.status, 200, "{sub} {sid}");
    }
    // Of `sub` and `sid`, the session counts, and the subject's tokens without one.
    assert_eq!(statuses(&api, &tokens).await, [401, 200, 401, 200]);
}

#[tokio::test]
async fn replay_ends_nothing_new() {
    let log = Flaky::default();
    let shared = log.clone();
    let api = Api::with(|auth| with_log(auth, shared), for_wave).await;
    let reported = logout_token(&api.world.provider).without("sid").sign();
    assert_eq!(report_to(&api.server, &reported).await.status, 200);
    let (entries, logged) = (api.entries(), log.log.len());
    api.advance(30);
    let later = access_tokens(&api.world.provider);
    assert_eq!(report_to(&api.server, &reported).await.status, 200);
    assert_eq!((api.entries(), log.log.len()), (entries, logged));
    assert_eq!(statuses(&api, &later).await, [200; 4]);
    // A process that has not seen it.
    let auth = with_log(api.world.auth(), log.clone()).build().unwrap();
    let server = serve(&auth, for_wave).await;
    assert_eq!(report_to(&server, &reported).await.status, 200);
    for token in &later {
        assert_eq!(server.get_as("/", token).await.status, 200);
    }
    assert_eq!(statuses(&api, &later).await, [200; 4]);
    api.advance(200);
    report_to(&api.server, &reported).await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn report_that_cannot_be_stored_is_503() {
    let log = Flaky::default();
    log.is_full.store(true, Ordering::SeqCst);
    let shared = log.clone();
    let api = Api::with(|auth| with_log(auth, shared), for_wave).await;
    let reported = logout_token(&api.world.provider).sign();
    for _ in 0..2 {
        let answer = report_to(&api.server, &reported).await;
        answer.assert_oauth_error(503, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "5");
        assert!(!answer.body.contains("full"), "{answer:?}");
    }
    log.is_full.store(false, Ordering::SeqCst);
    assert_eq!(report_to(&api.server, &reported).await.status, 200);
    assert!(!log.log.is_empty());

    let full = Revocations::builder().max_entries(1).build();
    let api = Api::with(|auth| auth.revocations(full), for_wave).await;
    let reported = |sid: &str| logout_token(&api.world.provider).without("sub").claim("sid", sid);
    assert_eq!(report(&api, reported("1")).await.status, 200);
    let answer = report(&api, reported("2")).await;
    answer.assert_oauth_error(503, "temporarily_unavailable");
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let api = api().await;
    let token = logout_token(&api.world.provider).sign();
    let json = [("content-type", "application/json")];
    let refused = |answer: Answer, status| answer.assert_oauth_error(status, "invalid_request");
    refused(post(&api.server, PATH, &FORM, "").await, 400);
    refused(post(&api.server, PATH, &FORM, "token=x").await, 400);
    let twice = format!("logout_token={token}&logout_token={token}");
    refused(post(&api.server, PATH, &FORM, twice).await, 400);
    let body = json!({ "logout_token": token }).to_string();
    refused(post(&api.server, PATH, &json, body).await, 415);
    let answer = api.server.send(request("GET", PATH, &[])).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    // Other parameters are ignored.
    let more = format!("x=1&logout_token={token}&x=2");
    assert_eq!(post(&api.server, PATH, &FORM, more).await.status, 200);
}

#[tokio::test]
async fn browser_session_ends_with_it() {
    let env = Setup::with_sessions().endpoints(EndpointsBuilder::backchannel_logout).build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert_eq!(browser.get("/me").await.status, 200);
    let token = logout_token(&env.provider).subject("bob-id").without("sid").sign();
    let answer = env.visitor().post_form(PATH, &format!("logout_token={token}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(browser.get("/me").await.status, 401);
}

#[cfg(feature = "jwe")]
#[tokio::test]
async fn encrypted_logout_token_is_opened() {
    use scaikey_auth::config::DecryptionKeys;
    use scaikey_auth::testing::EncryptionKey;

    let [key, other] =
        ["ours", "theirs"].map(|kid| EncryptionKey::generate("ECDH-ES").with_kid(kid));
    let keys = DecryptionKeys::jwks(json!({ "keys": [key.private_jwk()] }).to_string()).unwrap();
    let world = crate::support::World::new().await;
    let auth = world.auth_with(world.issuer().decrypt(keys)).build().unwrap();
    let server = serve(&auth, for_wave).await;
    let report = async |token: TokenBuilder| report_to(&server, &token.sign()).await.status;
    let token = || logout_token(&world.provider);
    assert_eq!(report(token().encrypted_for(&other)).await, 400);
    assert_eq!(report(token().encrypted_for(&key)).await, 200);
    // As for ID tokens, many providers only sign it.
    assert_eq!(report(token()).await, 200);
    // Encryption does not replace the signature.
    let foreign = world.provider.issuer_at("/foreign").key();
    assert_eq!(report(token().signed_by(&foreign).encrypted_for(&key)).await, 400);
}

#[tokio::test]
async fn tenant_issuers_report_their_own_users() {
    let world = crate::support::World::new().await;
    let template = format!("{}/tenants/{{tenant_id}}", world.provider.url());
    let template = IssuerConfig::new(template).allow_loopback_http(true);
    let auth = world.auth_with(template).tenants(AnyTenant).build().unwrap();
    let server = serve(&auth, for_wave).await;
    let [acme, globex] =
        ["acme", "globex"].map(|id| world.provider.tenant_at(id, &format!("/tenants/{id}")));
    let [ours, theirs] = [&acme, &globex].map(|it| it.token().subject("alice").sign());
    // The first token of an issuer that is not open yet.
    assert_eq!(report_to(&server, &logout_token(&acme).sign()).await.status, 200);
    assert_eq!(server.get_as("/", &ours).await.status, 401);
    assert_eq!(server.get_as("/", &theirs).await.status, 200);
    let forged = logout_token(&acme).issuer(&globex.issuer()).sign();
    report_to(&server, &forged).await.assert_oauth_error(400, "invalid_request");
    assert_eq!(server.get_as("/", &theirs).await.status, 200);
}

#[test]
fn audience_is_the_client_id() {
    let auth = || Auth::builder().issuer("https://id.example").audience("docs").build().unwrap();
    let from = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| (format!("W_{name}"), (*value).to_owned()));
        auth().endpoints().configured(&AuthConfig::from_vars("W", pairs)).build()
    };
    let issuer = ("ISSUER", "https://id.example");
    let error = from(&[issuer, ("BACKCHANNEL_LOGOUT", "true")]).unwrap_err();
    assert!(error.to_string().contains("W_BACKCHANNEL_LOGOUT needs a client"), "{error}");
    let client = [issuer, ("CLIENT_ID", "wave"), ("CLIENT_SECRET", "secret")];
    for (value, expected) in [("true", true), ("false", false)] {
        let pairs = [&client[..], &[("BACKCHANNEL_LOGOUT", value)]].concat();
        let endpoints = from(&pairs).unwrap();
        assert_eq!(endpoints.enabled().contains(&Endpoint::BackchannelLogout), expected);
    }
    let error = auth().endpoints().backchannel_logout_for("").build().unwrap_err();
    assert!(error.to_string().contains("empty client id"), "{error}");
}
