//! The `web_app` example, in a real browser. With `SCREENSHOTS`, saves pictures of its pages.

use crate::support::process::Program;
use crate::support::webdriver::Browser;

/// Saves the page as seen on a desktop and on a phone, light and dark.
async fn pictures(browser: &Browser, name: &str) {
    if std::env::var_os("SCREENSHOTS").is_none() {
        return;
    }
    for (device, width, height) in [("desktop", 1280, 800), ("phone", 500, 844)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme).await;
            browser.screenshot(&format!("web_app-{name}-{device}-{scheme}")).await;
        }
    }
    browser.look(1000, 900, "light").await;
}

async fn sign_in(browser: &Browser, user: &str, password: &str) {
    browser.shows("to continue to notes").await;
    browser.write("#username", user).await;
    browser.write("#password", password).await;
    browser.click("#sign-in").await;
    browser.has("#sign-out").await;
}

async fn sign_out(browser: &Browser, here: &str) {
    browser.click("#sign-out").await;
    browser.shows("This page is public").await;
    assert_eq!(browser.url().await, format!("{here}/"));
    assert!(browser.cookies().await.is_empty());
}

#[tokio::test]
async fn users_sign_in_write_and_sign_out() {
    let mut example = Program::example("web_app", &[("LISTEN", "127.0.0.1:0")]);
    let line = example.stdout.line("Open http").await;
    let here = line.split(' ').nth(1).unwrap().to_owned();
    let (browser, notes) = (Browser::start().await, format!("{here}/notes"));
    browser.open(&here).await;
    browser.shows("This page is public").await;
    pictures(&browser, "1-home").await;
    let status = "return fetch('/app/notes').then(answer => answer.status)";
    assert_eq!(browser.script(status).await, 401, "a script is not redirected");

    // A cancelled sign-in leads to the service's own page.
    browser.click("#open").await;
    browser.shows("to continue to notes").await;
    pictures(&browser, "2-provider").await;
    browser.click("#cancel").await;
    browser.shows("You cancelled the sign-in").await;
    assert_eq!(browser.url().await, format!("{here}/sorry?error=access_denied"));
    pictures(&browser, "3-sorry").await;

    // The page of notes leads to the sign-in, and the sign-in back to it.
    browser.open(&notes).await;
    sign_in(&browser, "alice", "wonderland").await;
    assert_eq!(browser.url().await, notes);
    // The name and the address are in the ID token only, so registration stored them.
    browser.shows("Hello, Alice Smith").await;
    browser.shows("You are user 1: alice@example.com. Sign-ins: 1.").await;
    let whoami = "return fetch('/app/v1/auth/whoami').then(answer => answer.json())";
    assert_eq!(browser.script(whoami).await.get("email"), None);
    for note in ["Buy milk", "<b>bold</b> & \"quoted\""] {
        browser.write("#text", note).await;
        browser.click("#add").await;
        browser.shows(note).await;
    }
    pictures(&browser, "4-notes").await;

    // After sign-out at the provider, the next sign-in asks for the password.
    sign_out(&browser, &here).await;
    // The Back button does not show the notes, but leads to the sign-in.
    browser.script("setTimeout(() => history.back())").await;
    sign_in(&browser, "bob", "hunter2").await;
    browser.shows("You are user 2: bob@example.com.").await;
    assert_eq!(browser.script("return document.querySelectorAll('li').length").await, 0);
    sign_out(&browser, &here).await;
    browser.open(&notes).await;
    sign_in(&browser, "alice", "wonderland").await;
    browser.shows("You are user 1: alice@example.com. Sign-ins: 2.").await;
    browser.shows("Buy milk").await;
}
