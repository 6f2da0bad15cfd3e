//! Two browsers in the `browser_login` example: the list of sessions, and their ends. With `SCREENSHOTS`, saves
//! pictures.

use serde_json::Value;

use crate::browser::{open_example, sign_in};
use crate::support::eventually;
use crate::support::process::Program;
use crate::support::webdriver::Browser;

/// Records what the policy of a page blocks.
const WATCH: &str = "addEventListener('securitypolicyviolation', event =>
    document.documentElement.dataset.blocked = event.violatedDirective + ' ' + event.blockedURI)";

const ENDED: &str = "Your session has ended";

/// Checks that the page fits a phone, and that its policy blocked nothing. Saves pictures of it.
async fn check(browser: &Browser, name: &str) {
    for (device, width, height) in [("desktop", 1280, 1000), ("phone", 360, 1500)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme).await;
            browser.screenshot(&format!("{name}-{device}-{scheme}")).await;
        }
        let hidden =
            "const page = document.documentElement; return page.scrollWidth - page.clientWidth";
        assert_eq!(browser.script(hidden).await, 0, "{name} on a {device}");
    }
    browser.look(1000, 900, "light").await;
    let blocked = browser.script("return document.documentElement.dataset.blocked").await;
    assert_eq!(blocked, Value::Null, "{name}");
}

/// Opens the example in two browsers in which alice is signed in. The first lists both sessions.
async fn two_browsers() -> (Program, [Browser; 2], String) {
    let (example, first, here) = open_example("3600").await;
    let second = Browser::start().await;
    second.open(&here).await;
    for browser in [&first, &second] {
        browser.run_in_pages(WATCH).await;
        sign_in(browser).await;
    }
    first.open(&here).await;
    first.shows("Another browser").await;
    (example, [first, second], here)
}

/// Clicks in a browser whose session has ended.
async fn is_out_at_next_click(browser: &Browser) {
    browser.shows("Hello, Alice Smith").await;
    browser.click("#call").await;
    browser.shows(ENDED).await;
    browser.has("#sign-in").await;
    assert_eq!(browser.script("return document.activeElement.id").await, "sign-in");
    assert!(browser.cookies().await.is_empty());
}

#[tokio::test]
async fn ended_session_is_out_at_next_click() {
    let (_example, [first, second], here) = two_browsers().await;
    assert_eq!(first.script("return document.querySelectorAll('#sessions li').length").await, 2);
    check(&first, "1-first-lists-two").await;
    check(&second, "1-second-before").await;
    first.click("#sessions button").await;
    first.shows("Ended. It takes effect").await;
    assert_eq!(first.script("return document.activeElement.id").await, "devices-title");
    assert_eq!(first.script("return document.querySelectorAll('#sessions li').length").await, 1);
    check(&first, "2-first-ended-it").await;
    is_out_at_next_click(&second).await;
    check(&second, "2-second-is-out").await;

    // The provider still knows the second browser, as the page says.
    second.click("#sign-in").await;
    second.shows("Hello, Alice Smith").await;
    second.click("#end-others").await;
    second.shows("Ended. It takes effect").await;
    is_out_at_next_click(&first).await;
    first.open(&here).await;
    first.shows("Welcome").await;
    let text = first.script("return document.body.innerText").await;
    assert!(!text.as_str().unwrap().contains(ENDED), "it is said once: {text}");
}

#[tokio::test]
async fn sign_out_everywhere_reaches_other_browser() {
    let (_example, [first, second], here) = two_browsers().await;
    first.click("#end-all").await;
    first.shows("You are signed out everywhere. Sessions that ended: 2.").await;
    assert_eq!(first.url().await, format!("{here}/"));
    assert!(first.cookies().await.is_empty());
    check(&first, "3-first-signed-out-everywhere").await;
    is_out_at_next_click(&second).await;
    check(&second, "3-second-is-out").await;
    // The provider's session of the first browser has ended, too.
    sign_in(&first).await;
    first.click("#sign-out").await;
    first.shows("You are signed out.").await;
    first.click("#sign-in").await;
    first.shows("to continue to scaiwave").await;
}

#[tokio::test]
async fn old_sign_in_must_be_repeated() {
    let environment = [("LISTEN", "127.0.0.1:0"), ("RECENT_SECONDS", "20")];
    let mut example = Program::example("browser_login", &environment);
    let line = example.stdout.line("Open http").await;
    let here = line.split(' ').nth(1).unwrap().to_owned();
    let browser = Browser::start().await;
    browser.run_in_pages(WATCH).await;
    browser.open(&here).await;
    sign_in(&browser).await;
    let close = format!("{here}/close-account");
    // The provider remembers the browser, and asks for the password nevertheless, as soon as the sign-in is old.
    eventually(async || {
        browser.open(&close).await;
        browser.url().await != close
    })
    .await;
    browser.shows("to continue to scaiwave").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "wonderland").await;
    browser.click("#sign-in").await;
    browser.shows("You signed in a short time ago").await;
    assert_eq!(browser.url().await, close);
    check(&browser, "4-close-account").await;
}
