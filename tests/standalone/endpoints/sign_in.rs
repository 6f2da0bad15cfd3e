//! Sign-in with a browser, and by clients that run the flow themselves.

use std::collections::BTreeMap;

use axum::http::Method;
use scaikey_auth::Auth;
use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::{PkceVerifier, SealingKeys};
use scaikey_auth::identity::ClaimsMapping;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{AuthConfig, TokenExchangeClient};
use serde_json::json;

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, encoded};
use crate::support::local;

#[tokio::test]
async fn browser_sign_in_returns_tokens() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login").await;
    assert_eq!(redirect.status, 303);
    let query: BTreeMap<_, _> =
        url::Url::parse(redirect.header("location")).unwrap().query_pairs().into_owned().collect();
    assert_eq!(query["response_type"], "code");
    assert_eq!(query["client_id"], "wave");
    assert!(query["state"].len() == 43 && query["nonce"].len() == 43);
    assert_eq!(browser.cookie_names().len(), 1, "the sign-in has one cookie");
    let callback = env.callback_path(redirect.header("location"));
    let tokens = browser.get(&callback).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    let body = tokens.json();
    for name in ["access_token", "refresh_token", "expires_in", "token_type"] {
        assert!(body.get(name).is_some(), "{body}");
    }
    assert!(browser.cookie_names().is_empty(), "the sign-in can be used once");
    // The service authenticated itself and sent the verifier of this sign-in.
    let redeemed = env.provider.received(ProviderEndpoint::Token);
    let sent: BTreeMap<_, _> = redeemed[0].form().into_iter().collect();
    assert_eq!(sent["redirect_uri"], REDIRECT);
    assert!(redeemed[0].headers["authorization"].to_str().unwrap().starts_with("Basic "));
    // A repeated callback fails: the browser has no such sign-in any more.
    browser.get(&callback).await.assert_oauth_error(400, "invalid_request");
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 1);
}

#[tokio::test]
async fn foreign_callback_is_refused_without_request() {
    let env = TestEnv::new().await;
    let (victim, attacker) = (env.visitor(), env.visitor());
    let location = |answer: &crate::support::Answer| answer.header("location").to_owned();
    let (mine, theirs) = (
        location(&victim.get("/v1/auth/login").await),
        location(&attacker.get("/v1/auth/login").await),
    );
    let (my_callback, their_callback) = (env.callback_path(&mine), env.callback_path(&theirs));
    let state_of = |url: &str| url.split("state=").nth(1).unwrap()[..43].to_owned();
    let foreign = [
        their_callback.clone(),
        my_callback.replace(&state_of(&my_callback), &state_of(&their_callback)),
        my_callback.replace("state=", "xstate="),
        format!("{my_callback}x").replace("state=", "state=A"),
        "/v1/auth/login?code=abc".to_owned(),
        "/v1/auth/login?error=access_denied".to_owned(),
        "/v1/auth/login?error=access_denied&error_description=%3Cscript%3E&state=x".to_owned(),
    ];
    for url in &foreign {
        let answer = victim.get(url).await;
        answer.assert_oauth_error(400, "invalid_request");
        assert!(!answer.body.contains("<script") && !answer.body.contains("access_denied"));
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 0);
    // The attempts do not harm the victim's sign-in.
    assert_eq!(victim.get(&my_callback).await.status, 200);
}

#[tokio::test]
async fn callback_from_another_issuer_is_refused() {
    let env = TestEnv::new().await;
    let issuer = encoded(&env.provider.issuer());
    for wrong in [
        "&iss=https%3A%2F%2Fevil.example".to_owned(),
        format!("&iss={issuer}%2F"),
        "&iss=".to_owned(),
        String::new(),
    ] {
        let browser = env.visitor();
        let redirect = browser.get("/v1/auth/login").await;
        let callback = env.callback_path(redirect.header("location"));
        let callback = callback.replace(&format!("&iss={issuer}"), &wrong);
        browser.get(&callback).await.assert_oauth_error(400, "invalid_request");
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 0);
}

#[tokio::test]
async fn tabs_sign_in_together_until_expiry() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    let (one, two) = (browser.get("/v1/auth/login").await, browser.get("/v1/auth/login").await);
    assert_eq!(browser.cookie_names().len(), 2);
    for redirect in [two, one] {
        let callback = env.callback_path(redirect.header("location"));
        assert_eq!(browser.get(&callback).await.status, 200);
    }
    let redirect = browser.get("/v1/auth/login").await;
    env.clock.advance(MINUTE * 10);
    let callback = env.callback_path(redirect.header("location"));
    browser.get(&callback).await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn abandoned_sign_ins_are_bounded() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    let mut most = 0;
    for _ in 0..20 {
        browser.get("/v1/auth/login").await;
        most = most.max(browser.cookie_names().len());
    }
    assert!((2..=6).contains(&most), "{most}");
}

#[tokio::test]
async fn oldest_sign_ins_are_dropped_first() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    let mut callbacks = Vec::new();
    for _ in 0..10 {
        let redirect = browser.get("/v1/auth/login").await;
        callbacks.push(env.callback_path(redirect.header("location")));
        env.clock.advance(std::time::Duration::from_secs(1));
    }
    let mut completed = Vec::new();
    for callback in &callbacks {
        completed.push(browser.get(callback).await.status == 200);
    }
    assert_eq!(completed, [vec![false; 4], vec![true; 6]].concat());
}

#[tokio::test]
async fn long_return_paths_are_bounded_in_size() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    let long = "a".repeat(2000);
    for _ in 0..10 {
        browser.get(&format!("/v1/auth/login?return_to=/{long}")).await;
        env.clock.advance(std::time::Duration::from_secs(1));
    }
    let kept: usize = browser.cookies.lock().unwrap().values().map(String::len).sum();
    assert!(kept < 8000, "{kept}");
    let redirect = browser.get("/v1/auth/login").await;
    let callback = env.callback_path(redirect.header("location"));
    assert_eq!(browser.get(&callback).await.status, 200, "the newest sign-in is always kept");
}

#[tokio::test]
async fn parts_of_foreign_pages_start_nothing() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    for (site, mode, destination, status) in [
        // A sibling sub-domain: browsers take its `SameSite=Lax` cookies.
        ("same-site", "no-cors", "image", 400),
        ("same-site", "navigate", "iframe", 400),
        ("cross-site", "cors", "empty", 400),
        ("cross-site", "navigate", "document", 303),
        ("none", "navigate", "document", 303),
        // Pages of this host can start a sign-in in a hidden frame.
        ("same-origin", "navigate", "iframe", 303),
        // The rules of a page of another origin let the browser load this in advance.
        ("same-site", "navigate", "document; prefetch", 400),
        ("cross-site", "navigate", "document; prefetch", 400),
        ("none", "navigate", "document; prefetch", 303),
    ] {
        let (destination, purpose) = destination.split_once("; ").unwrap_or((destination, ""));
        let headers = [
            ("sec-fetch-site", site),
            ("sec-fetch-mode", mode),
            ("sec-fetch-dest", destination),
            ("sec-purpose", purpose),
        ];
        let headers = &headers[..if purpose.is_empty() { 3 } else { 4 }];
        let before = browser.cookie_names().len();
        let answer = browser.send(Method::GET, "/v1/auth/login", headers, "").await;
        assert_eq!(answer.status, status, "{site} {destination} {purpose}: {answer:?}");
        let started = browser.cookie_names().len() - before;
        assert_eq!(started, usize::from(status == 303), "{site} {destination}");
    }
}

#[tokio::test]
async fn process_with_same_keys_completes_sign_in() {
    let keys = SealingKeys::random().unwrap();
    let mut setup = Setup::default();
    let shared = keys.clone();
    setup = setup.sign_in(move |sign_in| sign_in.keys(shared));
    let first = setup.build().await;
    let browser = first.visitor();
    let redirect = browser.get("/v1/auth/login").await;
    let callback = first.callback_path(redirect.header("location"));
    let shared = keys.clone();
    let second =
        first.start_process(Setup::default().sign_in(move |sign_in| sign_in.keys(shared))).await;
    let browser = browser.at(&second);
    assert_eq!(browser.get(&callback).await.status, 200);
    // Without shared keys, another process cannot complete the sign-in.
    let redirect = browser.get("/v1/auth/login").await;
    let callback = second.callback_path(redirect.header("location"));
    let third = second.start_process(Setup::default()).await;
    browser.at(&third).get(&callback).await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn return_to_cannot_leave_this_host() {
    let env = TestEnv::new().await;
    let browser = env.visitor();
    for to in [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "evil",
        // Browsers resolve dot segments, and request `//evil.example` of this host.
        "/.//evil.example",
        "/a/..//evil.example",
        "/%2e//evil.example",
        "/..//evil.example",
    ] {
        // `%09` arrives decoded.
        let to = to.replace("%09", "\t");
        let answer = browser.get(&format!("/v1/auth/login?return_to={}", encoded(&to))).await;
        answer.assert_oauth_error(400, "invalid_request");
        assert!(browser.cookie_names().is_empty());
    }
}

#[tokio::test]
async fn cancelled_sign_in_answers_error_or_redirects() {
    let env = TestEnv::new().await;
    let issuer = encoded(&env.provider.issuer());
    let refused = |location: &str, error: &str| {
        let state = location.split("state=").nth(1).unwrap()[..43].to_owned();
        format!("/v1/auth/login?error={error}&state={state}&iss={issuer}&error_description=x")
    };
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login").await;
    let answer = browser.get(&refused(redirect.header("location"), "access_denied")).await;
    answer.assert_oauth_error(400, "access_denied");
    assert!(browser.cookie_names().is_empty());
    let redirect = browser.get("/v1/auth/login").await;
    let answer = browser.get(&refused(redirect.header("location"), "%3Cb%3E")).await;
    answer.assert_oauth_error(400, "server_error");

    let env = env
        .start_process(Setup::default().sign_in(|it| it.failure_page("/sorry?from=login")))
        .await;
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login").await;
    let answer = browser.get(&refused(redirect.header("location"), "access_denied")).await;
    assert_eq!(answer.header("location"), "/sorry?from=login&error=access_denied");
    assert_eq!(answer.status, 303);
    // The URL does not reveal why the provider rejected the service.
    for (fault, code) in
        [(Fault::Status(401), "server_error"), (Fault::Status(503), "temporarily_unavailable")]
    {
        let browser = env.visitor();
        let redirect = browser.get("/v1/auth/login").await;
        let callback = env.callback_path(redirect.header("location"));
        env.provider.fail(ProviderEndpoint::Token, fault);
        let answer = browser.get(&callback).await;
        assert_eq!(answer.header("location"), format!("/sorry?from=login&error={code}"));
    }
}

#[tokio::test]
async fn client_redeems_its_own_code_once() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    let verifier = PkceVerifier::generate().unwrap();
    let code = || {
        let challenge = verifier.challenge();
        env.provider.authorize_with("bob", "wave", REDIRECT, &challenge, "openid", Some("n-1"))
    };
    let secret = verifier.secret().expose();
    let first = code();
    let body = json!({
        "code": first, "code_verifier": secret, "redirect_uri": REDIRECT, "state": "theirs",
        "nonce": "n-1",
    });
    let answer = visitor.post_json("/v1/auth/login", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    visitor.post_json("/v1/auth/login", &body).await.assert_oauth_error(400, "invalid_grant");
    let form = format!("code={}&code_verifier={secret}", code());
    assert_eq!(visitor.post_form("/v1/auth/login", &form).await.status, 200);

    let other = PkceVerifier::generate().unwrap();
    let other = other.secret().expose();
    for (form, code) in [
        (format!("code={}", code()), "invalid_request"),
        (format!("code_verifier={secret}"), "invalid_request"),
        (format!("code={}&code_verifier=short", code()), "invalid_request"),
        (format!("code={}&code_verifier={other}", code()), "invalid_grant"),
        (format!("code=made-up&code_verifier={secret}"), "invalid_grant"),
        (
            format!(
                "code={}&code_verifier={secret}&redirect_uri=https%3A%2F%2Fevil.example",
                code()
            ),
            "invalid_request",
        ),
        (format!("code={}&code_verifier={secret}&nonce=n-2", code()), "invalid_grant"),
    ] {
        visitor.post_form("/v1/auth/login", &form).await.assert_oauth_error(400, code);
    }
}

#[tokio::test]
async fn wrong_id_token_ends_sign_in() {
    let env = TestEnv::new().await;
    let good = || {
        let token = env.provider.token().audience("wave").without("scope").subject("bob-id");
        token.claim("nonce", "n-1").typ(Some("JWT"))
    };
    let id_token = |change: &str, value: serde_json::Value| good().claim(change, value).sign();
    let verifier = PkceVerifier::generate().unwrap();
    let redeem = async || {
        let challenge = verifier.challenge();
        let code =
            env.provider.authorize_with("bob", "wave", REDIRECT, &challenge, "openid", Some("n-1"));
        let secret = verifier.secret().expose();
        let form = format!("code={code}&code_verifier={secret}&nonce=n-1");
        env.visitor().post_form("/v1/auth/login", &form).await
    };
    let answers = |token: String| Fault::replace_member("id_token", token);
    env.provider.fail(ProviderEndpoint::Token, answers(id_token("x", 1.into())));
    assert_eq!(redeem().await.status, 200, "{:?}", redeem().await);
    for (what, token) in [
        ("another client's", id_token("aud", "other".into())),
        ("another user's", id_token("sub", "mallory".into())),
        ("another issuer's", id_token("iss", "https://evil.example".into())),
        ("old", id_token("exp", 1000.into())),
        ("of another sign-in", id_token("nonce", "n-2".into())),
        ("of another token", id_token("at_hash", "AAAAAAAAAAAAAAAAAAAAAA".into())),
        ("for another audience, too", id_token("aud", json!(["wave", "other"]))),
        ("for this service, of no party", id_token("aud", json!(["wave", "scaiwave"]))),
        ("for another party", id_token("azp", "other".into())),
        ("made long ago", id_token("iat", 1000.into())),
        ("a logout token", id_token("events", json!({}))),
        ("an access token", good().typ(Some("at+jwt")).sign()),
        ("of an algorithm not allowed", good().algorithm(Algorithm::ES384).sign()),
        ("not signed", format!("{}AAAA", id_token("x", 1.into()))),
    ] {
        env.provider.fail(ProviderEndpoint::Token, answers(token));
        let answer = redeem().await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (400, &json!("invalid_grant")),
            "{what}"
        );
    }
    env.provider.fail(ProviderEndpoint::Token, Fault::remove_member("id_token"));
    redeem().await.assert_oauth_error(400, "invalid_grant");
}

/// In Entra ID, `sub` differs from one application to another; `oid` does not.
#[tokio::test]
async fn mapped_subject_of_both_tokens_must_agree() {
    let env = TestEnv::new().await;
    let verifier = PkceVerifier::generate().unwrap();
    let redeem = async |env: &TestEnv, oid: serde_json::Value| {
        let challenge = verifier.challenge();
        let code =
            env.provider.authorize_with("bob", "wave", REDIRECT, &challenge, "openid", Some("n-1"));
        let token = env.provider.token().audience("wave").without("scope").subject("pairwise-1");
        let id_token = token.claim("nonce", "n-1").claim("oid", oid).sign();
        let access_token = env.provider.token().subject("pairwise-2").claim("oid", "o-1").sign();
        let answer = Fault::rewrite(move |mut good| {
            good["id_token"] = id_token.as_str().into();
            good["access_token"] = access_token.as_str().into();
            good.to_string()
        });
        env.provider.fail(ProviderEndpoint::Token, answer);
        let secret = verifier.secret().expose();
        let form = format!("code={code}&code_verifier={secret}&nonce=n-1");
        env.visitor().post_form("/v1/auth/login", &form).await.status
    };
    assert_eq!(redeem(&env, "o-1".into()).await, 400, "by default, `sub` is compared");
    let env = env.with_client(|it| it.claims(ClaimsMapping::default().subject(["oid"]))).await;
    assert_eq!(redeem(&env, "o-1".into()).await, 200);
    assert_eq!(redeem(&env, "o-2".into()).await, 400);
}

/// Redeems a code for an ID token with these audiences, and returns the status.
async fn redeem(env: &TestEnv, aud: &[&str], azp: &str) -> u16 {
    let verifier = PkceVerifier::generate().unwrap();
    let challenge = verifier.challenge();
    let code =
        env.provider.authorize_with("bob", "wave", REDIRECT, &challenge, "openid", Some("n-1"));
    let token = env.provider.token().without("scope").subject("bob-id").claim("nonce", "n-1");
    let token = token.claim("aud", aud).claim("azp", azp).sign();
    env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("id_token", token));
    let secret = verifier.secret().expose();
    let form = format!("code={code}&code_verifier={secret}&nonce=n-1");
    env.visitor().post_form("/v1/auth/login", &form).await.status
}

/// LemonLDAP::NG and ZITADEL always send several audiences. This service's audience is `scaiwave`.
#[tokio::test]
async fn further_audiences_must_be_trusted() {
    let env = TestEnv::new().await;
    assert_eq!(redeem(&env, &["wave", "scaiwave"], "wave").await, 200);
    assert_eq!(redeem(&env, &["wave", "scaiwave"], "scaiwave").await, 400);
    assert_eq!(redeem(&env, &["wave", "project"], "wave").await, 400);
    let by_code = env.with_client(|client| client.trusted_audience("project")).await;
    let issuer = by_code.provider.issuer();
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("CLIENT_ID", "wave"),
        ("CLIENT_SECRET", "secret"),
        ("PASSWORD_GRANT", "true"),
        ("TRUSTED_AUDIENCES", "project"),
    ];
    let variables = variables.map(|(name, value)| (format!("WAVE_{name}"), value.to_owned()));
    let config = AuthConfig::from_vars("WAVE", variables);
    let check = async |env: &TestEnv| {
        assert_eq!(redeem(env, &["wave", "project", "scaiwave"], "wave").await, 200);
        assert_eq!(redeem(env, &["wave", "project"], "project").await, 400);
        assert_eq!(redeem(env, &["wave", "project2"], "wave").await, 400);
        assert_eq!(redeem(env, &["project", "scaiwave"], "wave").await, 400);
    };
    check(&by_code).await;
    let clock = by_code.clock.clone();
    let configured = TokenExchangeClient::from_config(&config).clock(clock);
    check(&by_code.with_client(|_| configured).await).await;
}

/// With `audience_claims`, the audiences may be other clients.
#[tokio::test]
async fn compared_clients_are_no_own_audiences() {
    let mut env = TestEnv::new().await;
    for claims in [&["azp"][..], &["aud", "azp"], &["azp", "aud"]] {
        let issuer = local(env.provider.issuer()).audience_claims(claims);
        let auth = Auth::builder().issuer(issuer).audience("wave").audience("mobile");
        env.auth = auth.clock(env.clock.clone()).build().unwrap();
        env = env.start_process(Setup::default()).await;
        assert_eq!(redeem(&env, &["wave"], "wave").await, 200);
        assert_eq!(redeem(&env, &["wave", "mobile"], "wave").await, 400);
    }
}

#[tokio::test]
async fn sign_in_fails_without_s256_or_metadata() {
    let env = TestEnv::new().await;
    let plain = Fault::replace_member("code_challenge_methods_supported", json!(["plain"]));
    env.provider.fail(ProviderEndpoint::Discovery, plain);
    env.visitor().get("/v1/auth/login").await.assert_oauth_error(502, "server_error");
    let env = TestEnv::new().await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::Status(503));
    let answer = env.visitor().get("/v1/auth/login").await;
    answer.assert_oauth_error(503, "temporarily_unavailable");
    assert!(!answer.header("retry-after").is_empty());
}

#[tokio::test]
async fn replayed_id_token_starts_no_session() {
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    let other = env.provider.token().audience("wave").subject("bob-id").without("scope");
    let other = other.claim("nonce", "of-another-sign-in").sign();
    env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("id_token", other));
    env.sign_in(&browser).await.assert_oauth_error(400, "invalid_grant");
    assert!(browser.cookie_names().is_empty(), "the cookies of session and sign-in are cleared");
    env.provider.heal(ProviderEndpoint::Token);
    assert_eq!(env.sign_in(&browser).await.status, 303);
}
