//! Sign-ins that fail in a browser: what it is shown, and what the operator reads.

use scaikey_auth::endpoints::{SignIn, TokenBuckets};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::testing::{Fault, ProviderEndpoint, User};
use serde_json::json;

use super::house::{House, MINUTE, Plan, REDIRECT, encoded};
use crate::support::Log;

const PAGE: &str = "/sorry";

async fn house() -> House {
    let plan = Plan::with_sessions().sign_in(|it| it.failure_page(PAGE).landing("/home"));
    plan.build().await
}

fn shown(code: &str) -> String {
    format!("{PAGE}?error={code}")
}

#[tokio::test]
async fn every_failure_shows_the_page() {
    let house = house().await;
    let browser = house.visitor();
    let issuer = encoded(&house.provider.issuer());
    for (way, code) in [
        ("error=access_denied".to_owned(), "invalid_request"),
        (format!("error=server_error&iss={issuer}"), "invalid_request"),
        ("code=abc".to_owned(), "invalid_request"),
        ("code=abc&state=made-up".to_owned(), "invalid_request"),
        ("code=abc&code=def&state=x".to_owned(), "invalid_request"),
        ("return_to=%2F%2Fevil.example".to_owned(), "invalid_request"),
    ] {
        let answer = browser.get(&format!("/v1/auth/login?{way}")).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, shown(code).as_str()),
            "{way}"
        );
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // A sign-in that took too long.
    let away = browser.get("/v1/auth/login").await;
    let back = house.signed_in_at_provider(away.header("location"));
    house.clock.advance(MINUTE * 11);
    assert_eq!(browser.get(&back).await.header("location"), shown("invalid_request"));
}

#[tokio::test]
async fn provider_that_is_away_shows_the_page() {
    let house = house().await;
    house.provider.fail(ProviderEndpoint::Discovery, Fault::Status(503));
    let answer = house.visitor().get("/v1/auth/login").await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.header("location"), shown("temporarily_unavailable"));
}

#[tokio::test]
async fn throttled_browser_is_shown_the_page() {
    let plan = Plan::default().sign_in(|it| it.failure_page(PAGE));
    let house = plan.endpoints(|it| it.throttle(TokenBuckets::new())).build().await;
    let browser = house.visitor();
    let mut last = String::new();
    for _ in 0..200 {
        last = browser.get("/v1/auth/login").await.header("location").to_owned();
        if last.starts_with(PAGE) {
            break;
        }
    }
    assert_eq!(last, shown("temporarily_unavailable"));
}

#[tokio::test]
async fn back_button_with_a_session_leads_on() {
    let house = house().await;
    let browser = house.visitor();
    let away = browser.get("/v1/auth/login?return_to=/me").await;
    let back = house.signed_in_at_provider(away.header("location"));
    assert_eq!(browser.get(&back).await.header("location"), "/me");
    for way in [back.as_str(), "/v1/auth/login?error=access_denied"] {
        let again = browser.get(way).await;
        assert_eq!((again.status, again.header("location")), (303, "/home"), "{way}");
    }
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(house.provider.requests(ProviderEndpoint::Token), 1);
    // A session that is none any more is no reason to go on.
    house.clock.advance(MINUTE * 60 * 13);
    assert_eq!(browser.get(&back).await.header("location"), shown("invalid_request"));
}

#[tokio::test]
async fn access_token_refused_here_begins_no_session() {
    // Without ID tokens, which tell what access token they belong to.
    let plan = Plan::with_sessions().sign_in(|it| it.failure_page(PAGE).scopes("docs:read"));
    let house = plan.build().await;
    let elsewhere = house.provider.token().audience("elsewhere").subject("bob-id").sign();
    for (token, cause) in [(elsewhere, "aud"), ("opaque-token".to_owned(), "token_unrecognised")] {
        let log = Log::start();
        let browser = house.visitor();
        house.provider.fail(ProviderEndpoint::Token, Fault::member("access_token", token));
        let answer = house.sign_in(&browser).await;
        assert_eq!(answer.header("location"), shown("server_error"), "{cause}");
        assert!(browser.jar().is_empty(), "{cause}");
        let text = log.text();
        let warned =
            text.lines().find(|line| line.contains("WARN") && line.contains("access token"));
        assert!(warned.is_some_and(|line| line.contains(cause)), "{cause}: {text}");
    }
    assert_eq!(
        house.provider.requests(ProviderEndpoint::Revocation),
        2,
        "nobody has what was granted"
    );
    house.provider.heal(ProviderEndpoint::Token);
    assert_eq!(house.sign_in(&house.visitor()).await.header("location"), "/me");
}

#[tokio::test]
async fn refused_id_token_is_warned_once() {
    let house = house().await;
    let log = Log::start();
    let warnings = |claim: &str| {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("WARN") && line.contains("ID token"));
        lines.filter(|line| line.contains(&format!("claim=\"{claim}\""))).count()
    };
    let id_token = |name: &str, value: serde_json::Value| {
        let token = house.provider.token().audience("wave").without("scope").subject("bob-id");
        Fault::member("id_token", token.claim(name, value).sign())
    };
    for (name, value, claim) in [
        ("nonce", json!("another"), "nonce"),
        ("aud", json!("another"), "aud"),
        ("iat", json!(1000), "iat"),
        ("azp", json!("another"), "azp"),
    ] {
        for _ in 0..3 {
            house.provider.fail(ProviderEndpoint::Token, id_token(name, value.clone()));
            let answer = house.sign_in(&house.visitor()).await;
            assert_eq!(answer.header("location"), shown("invalid_grant"), "{name}");
        }
        assert_eq!(warnings(claim), 1, "{name}: {}", log.text());
    }
    house.clock.advance(MINUTE * 61);
    house.provider.fail(ProviderEndpoint::Token, id_token("azp", json!("another")));
    house.sign_in(&house.visitor()).await;
    assert_eq!(warnings("azp"), 2, "it goes on");
}

#[tokio::test]
async fn missing_id_token_is_warned_once() {
    let house = house().await;
    let log = Log::start();
    house.provider.fail(ProviderEndpoint::Token, Fault::without("id_token"));
    for _ in 0..2 {
        let answer = house.sign_in(&house.visitor()).await;
        assert_eq!(answer.header("location"), shown("invalid_grant"));
    }
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("WARN") && line.contains("ID token"));
    assert_eq!(lines.count(), 1, "{text}");
}

#[tokio::test]
async fn tokens_too_large_for_cookies_are_revoked() {
    let house = house().await;
    let groups: Vec<_> = (0..2000).map(|nth| format!("group-{nth:08}")).collect();
    house.provider.register_user(User::new("bob", "hunter2").claim("groups", groups));
    let browser = house.visitor();
    assert_eq!(house.sign_in(&browser).await.header("location"), shown("server_error"));
    assert!(browser.jar().is_empty());
    assert_eq!(house.provider.requests(ProviderEndpoint::Revocation), 1);
}

#[tokio::test]
async fn unknown_parameters_of_an_answer_may_repeat() {
    let house = house().await;
    let browser = house.visitor();
    let away = browser.get("/v1/auth/login?return_to=/me&utm=1&utm=2").await;
    let back = house.signed_in_at_provider(away.header("location"));
    let again = browser.get(&format!("{back}&session_state=1&x=1&x=2&session_state=2")).await;
    assert_eq!(again.header("location"), "/me", "{again:?}");
    // Those that mean something may not, and nothing is redeemed.
    let requests = house.provider.requests(ProviderEndpoint::Token);
    for name in ["code", "state", "iss", "error"] {
        let browser = house.visitor();
        let away = browser.get("/v1/auth/login").await;
        let back = house.signed_in_at_provider(away.header("location"));
        let answer = browser.get(&format!("{back}&{name}=1&{name}=2")).await;
        assert_eq!(answer.header("location"), shown("invalid_request"), "{name}");
    }
    assert_eq!(house.provider.requests(ProviderEndpoint::Token), requests);
}

#[tokio::test]
async fn two_services_keep_their_own_sign_ins() {
    let plan = |prefix: &'static str| Plan {
        sessions: Some(SealingKeys::random().unwrap()),
        ..Plan::default().sign_in(move |it| it.cookie_prefix(prefix))
    };
    let first = plan("one-two").build().await;
    let browser = first.visitor();
    let away = browser.get("/v1/auth/login").await;
    let back = first.signed_in_at_provider(away.header("location"));
    let api = first.api.clone();
    let second = first.open(plan("one")).await;
    let browser = browser.at(&second);
    for _ in 0..10 {
        browser.get("/v1/auth/login").await;
    }
    let is_first = |name: &&String| name.starts_with("__Host-one-two-");
    assert_eq!(browser.jar().iter().filter(is_first).count(), 1);
    let first = House { api, ..second };
    assert_eq!(browser.at(&first).get(&back).await.status, 303);
}

#[tokio::test]
async fn sign_in_cookies_need_a_good_prefix() {
    let house = House::new().await;
    for bad in ["", "a b", "a;b", "a=b"] {
        let sign_in = SignIn::new(REDIRECT).cookie_prefix(bad);
        let built = house.auth.endpoints().client(house.client.clone()).sign_in(sign_in).build();
        let error = built.unwrap_err().to_string();
        assert!(error.contains("cookie_prefix"), "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn login_is_no_page_of_its_own() {
    let house = House::new().await;
    for path in ["/v1/auth/login", "/v1/auth/login?a=b", "/v1/./x/../auth/login"] {
        let pages = [
            (SignIn::new(REDIRECT).failure_page(path), "failure_page"),
            (SignIn::new(REDIRECT).landing(path), "landing"),
        ];
        for (sign_in, field) in pages {
            let endpoints = house.auth.endpoints().prefix("/v1/auth/");
            let built = endpoints.client(house.client.clone()).sign_in(sign_in).build();
            let error = built.unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("`login`"), "{path}: {error}");
        }
    }
    let sign_in = SignIn::new(REDIRECT).failure_page("/login").landing("/v1/auth/login/x");
    let endpoints = house.auth.endpoints().client(house.client.clone());
    assert!(endpoints.sign_in(sign_in).build().is_ok());
}

#[tokio::test]
async fn callback_repeated_after_an_outage_arrives() {
    let house = Plan::with_sessions().build().await;
    let browser = house.visitor();
    let away = browser.get("/v1/auth/login?return_to=/me").await;
    let back = house.signed_in_at_provider(away.header("location"));
    let cookies = browser.cookies.lock().unwrap().clone();
    house.provider.fail(ProviderEndpoint::Jwks, Fault::Status(503));
    let first = browser.get(&back).await;
    assert_eq!(first.status, 503, "{first:?}");
    house.provider.heal(ProviderEndpoint::Jwks);
    house.clock.advance(MINUTE / 2);
    *browser.cookies.lock().unwrap() = cookies;
    let second = browser.get(&back).await;
    assert_eq!((second.status, second.header("location")), (303, "/me"), "{second:?}");
    assert_eq!(house.provider.requests(ProviderEndpoint::Revocation), 0);
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn refused_sign_in_ends_whatever_its_description() {
    let house = house().await;
    for described in ["no", "d%C3%A9ni", "d%E9ni", "a&error_description=b", "x&error_uri=%FF"] {
        let browser = house.visitor();
        let away = browser.get("/v1/auth/login").await;
        let url = url::Url::parse(away.header("location")).unwrap();
        let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let issuer = encoded(&house.provider.issuer());
        let way = format!(
            "/v1/auth/login?error=access_denied&state={state}&iss={issuer}&error_description={described}"
        );
        let answer = browser.get(&way).await;
        assert_eq!(answer.header("location"), shown("access_denied"), "{described}");
        assert!(browser.jar().is_empty(), "{described}");
    }
}
