//! The `browser_login` example, in a real browser.

use axum::response::Html;
use axum::{Router, routing};
use tokio::net::TcpListener;

use super::process::Running;
use super::webdriver::Browser;

/// Starts the example and a browser at its page.
async fn opened(token_seconds: &str) -> (Running, Browser, String) {
    let environment = [("LISTEN", "127.0.0.1:0"), ("TOKEN_SECONDS", token_seconds)];
    let mut example = Running::example("browser_login", &environment);
    let line = example.stdout.line("Open http").await;
    let here = line.split(' ').nth(1).unwrap().to_owned();
    let browser = Browser::start().await;
    browser.open(&here).await;
    browser.shows("Welcome").await;
    (example, browser, here)
}

async fn sign_in(browser: &Browser) {
    browser.click("#sign-in").await;
    browser.shows("to continue to scaiwave").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "wonderland").await;
    browser.click("button[type=submit]").await;
    browser.shows("Hello, Alice Smith").await;
}

#[tokio::test]
async fn a_user_signs_in_uses_the_api_beyond_the_life_of_a_token_and_signs_out() {
    let (_example, browser, here) = opened("4").await;
    browser.screenshot("1-welcome").await;
    browser.click("#sign-in").await;
    browser.shows("to continue to scaiwave").await;
    browser.screenshot("2-provider").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "looking-glass").await;
    browser.click("#sign-in").await;
    browser.shows("is wrong").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "wonderland").await;
    browser.click("#sign-in").await;
    browser.shows("Hello, Alice Smith").await;
    assert_eq!(browser.url().await, format!("{here}/"));
    browser.shows("user:alice@example.com").await;

    // The browser keeps a cookie that its scripts cannot read, and nothing else.
    let cookies = browser.cookies().await;
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert_eq!(cookies[0]["name"], "__Host-session");
    assert_eq!((&cookies[0]["httpOnly"], &cookies[0]["secure"]), (&true.into(), &true.into()));
    assert_eq!(browser.script("return document.cookie").await, "");

    browser.click("#call").await;
    browser.shows("200 note 1 of alice-id in tenant-1").await;
    browser.screenshot("3-signed-in").await;
    let first = cookies[0]["value"].clone();
    // Until the browser has been given another one, which it was without doing anything for it.
    for nth in 2.. {
        browser.click("#call").await;
        browser.shows(&format!("200 note {nth} of alice-id")).await;
        if browser.cookies().await[0]["value"] != first {
            break;
        }
        assert!(nth < 200, "the session is not renewed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    browser.click("#sign-out").await;
    browser.shows("Welcome").await;
    assert!(browser.cookies().await.is_empty());
    browser.open(&here).await;
    browser.shows("Welcome").await;
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_act_for_the_user() {
    let (_example, browser, here) = opened("60").await;
    sign_in(&browser).await;
    // Another port is another origin of the same site: the cookie goes along, and that is the point.
    let form = format!(
        r#"<form method="post" action="{here}/api/notes" enctype="text/plain">
        <input name="a" value="b"><button id="attack">Win a prize</button></form>"#
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let evil = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let page = Router::new().route("/", routing::get(move || async move { Html(form) }));
    tokio::spawn(async move { axum::serve(listener, page).await });

    browser.open(&evil).await;
    browser.click("#attack").await;
    browser.shows("urn:scaikey-auth:forbidden").await;
    browser.open(&evil).await;
    let attack = format!(
        "return fetch('{here}/api/notes', {{ method: 'POST', mode: 'no-cors', credentials: 'include' }})
            .then(answer => answer.type)"
    );
    assert_eq!(browser.script(&attack).await, "opaque");
    let sign_out = attack.replace("/api/notes", "/v1/auth/logout");
    assert_eq!(browser.script(&sign_out).await, "opaque");

    // Nothing was written, and nobody was signed out.
    browser.open(&here).await;
    browser.shows("Hello, Alice Smith").await;
    browser.click("#call").await;
    browser.shows("200 note 1 of alice-id").await;
}

#[tokio::test]
async fn a_user_who_does_not_want_to_sign_in_is_not_signed_in() {
    let (_example, browser, here) = opened("60").await;
    browser.click("#sign-in").await;
    browser.shows("to continue to scaiwave").await;
    browser.click("#cancel").await;
    browser.shows("access_denied").await;
    assert!(browser.cookies().await.is_empty());
    browser.open(&here).await;
    browser.shows("Welcome").await;
}
