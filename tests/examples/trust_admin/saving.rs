//! Saving: lost answers, warnings, and two administrators at the same time.

use serde_json::json;

use super::{Page, WATCH};

/// Loses requests to save, or the answers to them.
const LOSE: &str = "
    const real = window.fetch;
    window.lose = '';
    window.fetch = async (url, init) => {
        if (init?.method !== 'PUT' || !lose) return real(url, init);
        if (lose === 'answer') await real(url, init);
        if (lose === 'proxy') return new Response('<h1>Bad Gateway</h1>', { status: 502 });
        throw new TypeError('Failed to fetch');
    };";

const CONTROL: &str = "\u{e009}";

#[tokio::test]
async fn lost_answers_of_saves_are_explained() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    browser.run_in_pages(LOSE).await;
    page.show("").await;
    browser.script("location.reload()").await;
    browser.has("#overview-add").await;
    page.go("policy").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    for lost in ["request", "proxy"] {
        browser.script(&format!("lose = '{lost}'")).await;
        page.save("longer").await;
        page.message_with_focus("It is not known whether your text was saved.").await;
        browser.click("#look").await;
        page.message_with_focus("Not saved so far. Version 1 is still in force.").await;
        // Text and note stay.
        browser.script("document.querySelector('dialog').close()").await;
        assert!(page.text().await.contains("\"2h\""));
        browser.click("#review").await;
        browser.has("#save-note").await;
        let note = "const input = document.querySelector('#save-note'); const { value } = input;
            input.value = ''; input.dispatchEvent(new Event('input', { bubbles: true }));
            document.querySelector('dialog').close(); return value";
        assert_eq!(browser.script(note).await, "longer");
    }

    // The service saved, but the page did not learn it: the button, or saving once more, shows it.
    for (again, (before, after)) in [("#look", ("2h", "3h")), ("#save", ("3h", "4h"))] {
        page.edit(&format!("\"{before}\""), &format!("\"{after}\"")).await;
        browser.script("lose = 'answer'").await;
        page.save(after).await;
        page.message_with_focus("It is not known whether your text was saved.").await;
        browser.screenshot(&format!("trust_admin-lost-{after}")).await;
        browser.script("lose = ''").await;
        browser.click(again).await;
        page.message_with_focus("Your changes are saved. They are in force in version").await;
        browser.screenshot(&format!("trust_admin-found-{after}")).await;
        assert!(page.text().await.contains(after));
        let state = "return [document.querySelector('#review').disabled, document.querySelectorAll('dialog').length]";
        assert_eq!(browser.script(state).await, json!([true, 0]));
    }
    page.go("history").await;
    browser.shows("Version 3").await;
    page.check_no_problems().await;
}

#[tokio::test]
async fn message_outlives_a_closed_dialog() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.go("policy").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    let hold = "const real = window.fetch; window.fetch = (url, init) => init?.method === 'PUT'
        ? new Promise((_, fail) => { window.release = () => fail(new TypeError('Failed to fetch')) }) : real(url, init)";
    browser.script(hold).await;
    page.save("longer").await;
    browser.script("document.querySelector('dialog').close(); release()").await;
    page.message_with_focus("It is not known whether your text was saved.").await;
    browser.click("#look").await;
    page.message_with_focus("Not saved so far.").await;
    page.check_no_problems().await;
}

#[tokio::test]
async fn warnings_are_shown_after_saving() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.go("policy").await;
    let subject = "subject = \"repo:acme/shop:ref:refs/heads/main\"";
    page.edit(subject, "claims = { appid = { eq = \"4711\" } }").await;
    browser.shows("1 warning").await;
    page.save("by client id").await;
    page.message_with_focus("Saved as version 2, with 1 warning").await;
    browser.shows("relies on a client id alone").await;
    browser.screenshot("trust_admin-warnings").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    page.edit("claims = { appid = { eq = \"4711\" } }", subject).await;
    page.save("by subject").await;
    browser.shows("Saved as version 3.").await;
    page.focus_is("policy-title").await;

    // The same after a rollback.
    page.go("history").await;
    browser.shows("by client id").await;
    browser.click(".roll-back").await;
    browser.has("#confirm-rollback").await;
    browser.click("#confirm-rollback").await;
    page.message_with_focus("Version 2 is restored, with 1 warning").await;
    page.check_no_problems().await;
}

/// Adds a trust at the end.
fn appended(id: &str) -> String {
    format!(
        "scopes = [\"secrets:read\"]\n\n[[trust]]\nid = \"{id}\"\nissuer = \"https://{id}.example\"\naudiences = [\"vault\"]\n# {id}\n"
    )
}

#[tokio::test]
async fn conflicting_changes_are_grouped_and_joined() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.show("#policy").await;
    browser.has("#review").await;
    let last = "scopes = [\"secrets:read\"]\n";
    let edit = async |lifetime: &str, changes: [&str; 2], id: &str| {
        page.edit("max_lifetime = \"1h\"", &format!("max_lifetime = \"{lifetime}\"")).await;
        page.edit(changes[0], changes[1]).await;
        let text = page.text().await;
        let start = text.rfind(last).unwrap();
        page.edit(&text[start..], &appended(id)).await;
    };
    edit("2h", ["sa:deploy", "sa:mine"], "mine").await;

    // Another tab of the same administrator saves first.
    let first = browser.new_tab().await;
    browser.run_in_pages(WATCH).await;
    page.show("#policy").await;
    browser.has("#review").await;
    browser.shows("No faults.").await;
    edit("3h", ["repo:umbrella/backup", "repo:umbrella/copy"], "theirs").await;
    page.save("the first").await;
    browser.shows("Saved as version").await;
    page.check_no_problems().await;

    browser.switch_to(&first).await;
    page.save("the second").await;
    page.focus_is("conflict-title").await;
    for (group, text) in [
        ("both", "max_lifetime = \"2h\""),
        ("both", "max_lifetime = \"3h\""),
        ("theirs", "umbrella/copy"),
        ("mine", "sa:mine"),
    ] {
        let shown = format!(
            "return document.querySelector('[aria-labelledby=conflict-{group}]').innerText"
        );
        let shown = browser.script(&shown).await;
        assert!(shown.as_str().unwrap().contains(text), "{group}: {shown}");
    }
    for (width, height, scheme) in
        [(1280, 1400, "light"), (390, 2400, "light"), (1280, 1400, "dark")]
    {
        browser.look(width, height, scheme).await;
        browser.screenshot(&format!("trust_admin-conflict-{width}-{scheme}")).await;
        let overflow =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.script(overflow).await, 0, "{width}");
    }
    // No way around the decision.
    browser.click("#review").await;
    page.focus_is("conflict-title").await;

    // Theirs, and the own text again.
    browser.click("#take-theirs").await;
    page.focus_is("policy-title").await;
    let text = page.text().await;
    assert!(text.contains("\"3h\"") && !text.contains("sa:mine"), "{text}");
    browser.script("document.querySelector('#policy-text').focus()").await;
    browser.press(&format!("{CONTROL}z")).await;
    assert!(page.text().await.contains("sa:mine"));
    page.check_no_problems().await;
}

#[tokio::test]
async fn own_changes_go_on_top() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.show("#policy").await;
    browser.has("#review").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    page.edit("sa:deploy", "sa:mine").await;
    let first = browser.new_tab().await;
    page.show("#policy").await;
    browser.has("#review").await;
    browser.shows("No faults.").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"3h\"").await;
    page.edit("repo:umbrella/backup", "repo:umbrella/copy").await;
    page.save("the first").await;
    browser.shows("Saved as version").await;

    browser.switch_to(&first).await;
    page.save("the second").await;
    browser.has("#rebase").await;
    let text = page.text().await;
    assert!(text.contains("\"2h\"") && text.contains("umbrella/backup"), "{text}");
    // The choice survives further typing.
    browser.click("label[for=conflict-0-theirs]").await;
    page.edit("[[trust]]", "# typed meanwhile\n[[trust]]").await;
    browser.shows("# typed meanwhile").await;
    browser.click("#rebase").await;
    page.focus_is("review").await;
    let text = page.text().await;
    let has = ["\"3h\"", "sa:mine", "umbrella/copy", "# typed meanwhile"];
    assert!(has.iter().all(|part| text.contains(part)), "{text}");
    page.save("the second").await;
    browser.shows("Saved as version 3").await;
    assert_eq!(page.text().await, text);
    page.check_no_problems().await;
}
