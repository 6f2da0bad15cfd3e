//! Sign-out (logout) at a third-party provider, as on a shared computer.

use serde_json::json;

use super::{Provider, Site};
use crate::support::eventually;
use crate::support::process::Program;
use crate::support::webdriver::Browser;

async fn start(site: &Site) -> Provider {
    let (redirect_uri, logout_uri) = (site.redirect_uri(), site.logout_uri());
    let uris = [("REDIRECT_URI", &*redirect_uri), ("POST_LOGOUT_REDIRECT_URI", &*logout_uri)];
    Provider::start_with(&uris).await
}

async fn service(provider: &Provider, site: &Site, more: &[(&str, &str)]) -> Program {
    let environment = [
        ("SCAIWAVE_ISSUER", provider.url.as_str()),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_CLIENT_ID", "shared"),
        ("SCAIWAVE_CLIENT_SECRET", "s3cret"),
        ("SCAIWAVE_SCOPES", "openid admin"),
    ];
    site.start(&[&environment, more].concat()).await
}

async fn enter_password(browser: &Browser) {
    browser.has("#password").await;
    browser.write("#password", "wonderland").await;
    browser.click("button").await;
    browser.shows("identity").await;
}

#[tokio::test]
async fn next_sign_in_asks_for_the_password() {
    let site = Site::reserve();
    let provider = start(&site).await;
    let browser = Browser::start().await;
    let only_here = service(&provider, &site, &[]).await;
    site.open_login(&browser).await;
    enter_password(&browser).await;
    let sign_out = "return fetch('/v1/auth/logout', { method: 'POST' }).then(it => it.status)";
    assert_eq!(browser.script(sign_out).await, 204);
    // The next user of the computer is signed in as alice.
    site.open_login(&browser).await;
    browser.shows("identity").await;
    only_here.kill().await;

    let page = site.logout_uri();
    let _service = service(&provider, &site, &[("SCAIWAVE_POST_LOGOUT_REDIRECT_URI", &page)]).await;
    site.open_login(&browser).await;
    browser.shows("identity").await;
    let confirm = async |browser: &Browser| {
        browser.has("button[name=logout]").await;
        let url = browser.url().await;
        assert!(
            url.starts_with(&format!("{}/session/end?id_token_hint=ey", provider.url)),
            "{url}"
        );
        browser.click("button[name=logout]").await;
    };
    site.sign_out(&browser, confirm).await;
    site.open_login(&browser).await;
    enter_password(&browser).await;

    // A script gets the URL, and navigates itself.
    let script = "return fetch('/v1/auth/logout', { method: 'POST' }).then(it => it.json())
        .then(json => { location.href = json.end_session_url; return Object.keys(json) })";
    assert_eq!(browser.script(script).await, json!(["end_session_url"]));
    browser.has("button[name=logout]").await;
    browser.click("button[name=logout]").await;
    // Without `return_to` it arrives at the landing page.
    let landing = format!("{}/", site.url());
    eventually(async || browser.url().await == landing).await;
    site.open_login(&browser).await;
    enter_password(&browser).await;
}

/// A provider that reports sign-outs to the service at `site`.
async fn start_reporting(site: &Site, more: &[(&str, &str)]) -> Provider {
    let report = format!("{}/v1/auth/backchannel_logout", site.url());
    let (redirect_uri, logout_uri) = (site.redirect_uri(), site.logout_uri());
    let uris = [
        ("REDIRECT_URI", redirect_uri.as_str()),
        ("POST_LOGOUT_REDIRECT_URI", &logout_uri),
        ("BACKCHANNEL_LOGOUT_URI", &report),
    ];
    Provider::start_with(&[&uris, more].concat()).await
}

/// Signs alice out at the provider, without the service.
async fn sign_out_at(provider: &Provider, browser: &Browser) {
    browser.open(&format!("{}/session/end", provider.url)).await;
    browser.has("button[name=logout]").await;
    browser.click("button[name=logout]").await;
    eventually(async || browser.url().await.ends_with("/session/end/success")).await;
}

#[tokio::test]
async fn provider_reports_a_sign_out() {
    let site = Site::reserve();
    let provider = start_reporting(&site, &[]).await;
    let _service = service(&provider, &site, &[("SCAIWAVE_BACKCHANNEL_LOGOUT", "true")]).await;
    let browser = Browser::start().await;
    site.open_login(&browser).await;
    enter_password(&browser).await;
    assert_eq!(browser.script(STATUS).await, 200);
    sign_out_at(&provider, &browser).await;
    eventually(async || {
        browser.open(&format!("{}/public", site.url())).await;
        browser.script(STATUS).await == 401
    })
    .await;
}

const STATUS: &str = "return fetch('/me').then(it => it.status)";

/// Stored sessions that a sign-out ends at the provider, too.
fn stored(page: &str) -> [(&str, &str); 2] {
    [("SCAIWAVE_SESSION_STORE", "memory"), ("SCAIWAVE_POST_LOGOUT_REDIRECT_URI", page)]
}

#[tokio::test]
async fn stored_session_names_its_user_there() {
    let site = Site::reserve();
    let (provider, page) = (start(&site).await, site.logout_uri());
    let _service = service(&provider, &site, &stored(&page)).await;
    let browser = Browser::start().await;
    site.open_login(&browser).await;
    enter_password(&browser).await;
    assert_eq!(browser.cookies().await.len(), 1, "the tokens are in the store");
    let hint = format!("{}/session/end?id_token_hint=ey", provider.url);
    let confirm = async |browser: &Browser| {
        browser.has("button[name=logout]").await;
        assert!(browser.url().await.starts_with(&hint), "{}", browser.url().await);
        browser.click("button[name=logout]").await;
    };
    site.sign_out(&browser, confirm).await;
    assert!(browser.cookies().await.is_empty());
    site.open_login(&browser).await;
    enter_password(&browser).await;

    // Ending all sessions leads there, too.
    let script = "return fetch('/v1/auth/sessions', { method: 'DELETE' }).then(it => it.json())
        .then(json => { location.href = json.end_session_url; return json.ended })";
    assert_eq!(browser.script(script).await, 1);
    confirm(&browser).await;
    let landing = format!("{}/", site.url());
    eventually(async || browser.url().await == landing).await;
    site.open_login(&browser).await;
    enter_password(&browser).await;
}

/// Signs alice in with two browsers, and out at the provider with the first, which ends its stored session. Checks how
/// a request of the other browser, which is another session of the provider, is answered.
async fn check_reported_sign_out(provider: &[(&str, &str)], status_of_other: u16) {
    let site = Site::reserve();
    let (provider, page) = (start_reporting(&site, provider).await, site.logout_uri());
    let reports = [("SCAIWAVE_BACKCHANNEL_LOGOUT", "true")];
    let _service = service(&provider, &site, &[&stored(&page)[..], &reports].concat()).await;
    let (browser, other) = (Browser::start().await, Browser::start().await);
    for browser in [&browser, &other] {
        site.open_login(browser).await;
        enter_password(browser).await;
        assert_eq!(browser.script(STATUS).await, 200);
    }
    sign_out_at(&provider, &browser).await;
    let public = format!("{}/public", site.url());
    eventually(async || {
        browser.open(&public).await;
        browser.script(STATUS).await == 401
    })
    .await;
    assert!(browser.cookies().await.is_empty(), "the layer clears the cookie");
    assert_eq!(other.script(STATUS).await, status_of_other);
}

#[tokio::test]
async fn reported_sign_out_ends_stored_session() {
    check_reported_sign_out(&[("SID_IN_ACCESS_TOKENS", "true")], 200).await;
}

#[tokio::test]
async fn report_refuses_tokens_without_session_id() {
    // It is unknown to which session they belong, so the other browser signs in again, too.
    check_reported_sign_out(&[], 401).await;
}
