//! The views of a tenant's administrator, of a phone, and of a trust that has ended.

use serde_json::json;

use super::Page;

#[tokio::test]
async fn tenant_administrator_changes_own_rules() {
    let page = Page::open().await;
    let browser = &page.browser;
    page.paste(&page.tenant_token).await;
    browser.shows("You administer tenant acme.").await;
    browser.shows("1 trust with 1 rule").await;
    browser.screenshot("trust_admin-tenant-overview").await;
    page.go("policy").await;
    browser.shows("Rules of tenant acme.").await;
    let buttons = "return ['#add-trust', '#add-rule'].map(name => document.querySelector(name).checkVisibility())";
    assert_eq!(browser.script(buttons).await, json!([false, true]));

    // A rule by the form, which suggests what the tenant may write.
    browser.click("#add-rule").await;
    browser.has("#guide-insert").await;
    let tenant = "const input = document.querySelector('#guide-tenant'); return [input.value, input.readOnly]";
    assert_eq!(browser.script(tenant).await, json!(["acme", true]));
    browser.write("#guide-rule", "nightly").await;
    browser.write("#guide-subject", "repo:acme/shop:ref:refs/heads/nightly").await;
    browser.write("#guide-scopes", "secrets:read").await;
    browser.click("#guide-insert").await;
    browser.shows("No faults.").await;

    // The unsaved text is tried, then saved with a comment at a place that is for the owner.
    try_job(&page, true).await;
    browser.shows("Judged by your unsaved text.").await;
    assert_eq!(page.exchange(&page.job).await, 400);
    page.go("policy").await;
    page.edit("\n[[trust]]\nid", "\n# of the tenant\n[[trust]]\nid").await;
    browser.shows("1 warning").await;
    page.save("nightly builds").await;
    page.message_with_focus("with 1 warning").await;
    browser.shows("# of the tenant – ").await;
    browser.screenshot("trust_admin-tenant-saved").await;
    assert!(!page.text().await.contains("# of the tenant"));
    assert_eq!(page.exchange(&page.job).await, 200);

    // A change of the rule, and of one that the tenant may only narrow.
    page.edit("name = \"nightly\"", "name = \"night\"").await;
    page.save("a better name").await;
    browser.shows("Saved as version").await;
    page.edit("map = { identity = \"sa:deploy\"", "map = { identity = \"sa:other\"").await;
    browser.has(".problems .bad").await;
    browser.shows("scopes may only be among").await;
    browser.click("#discard").await;
    browser.click("dialog .primary").await;
    browser.shows("Your changes were discarded.").await;

    page.go("history").await;
    browser.shows("a better name").await;
    browser.shows("nightly builds").await;
    page.focus_is("history-title").await;
    browser.click(".versions .link").await;
    browser.has(".comparison .row.new").await;
    browser.shows("name = \"night\"").await;
    browser.screenshot("trust_admin-tenant-history").await;
    try_job(&page, false).await;
    browser.shows("night").await;
    page.go("decisions").await;
    browser.shows("ci\nnightly").await;
    page.go("history").await;
    page.focus_is("history-title").await;
    browser.click(".roll-back").await;
    browser.has("#confirm-rollback").await;
    browser.click("#confirm-rollback").await;
    browser.shows("is restored").await;
    page.go("policy").await;
    assert!(page.text().await.contains("name = \"nightly\""));

    // Nothing of another tenant was on the page.
    let whole = browser.script("return document.documentElement.outerHTML").await;
    assert!(
        !whole.as_str().unwrap().contains("umbrella") && !page.text().await.contains("umbrella"),
        "{whole}"
    );
    page.check_no_problems().await;
}

/// Tries the token of the job.
async fn try_job(page: &Page, is_unsaved: bool) {
    let browser = &page.browser;
    page.go("try").await;
    browser.write("#try-token", &page.job).await;
    if is_unsaved {
        browser.click("#try-unsaved").await;
    }
    browser.click("#try").await;
    browser.has(".verdict.good").await;
    browser.shows("sa:acme:ci:repo:acme/shop:ref:refs/heads/nightly").await;
}

#[tokio::test]
async fn ended_trust_has_no_fresh_keys() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.exchange(&page.job).await;
    page.show("").await;
    browser.script("location.reload()").await;
    let keys = "return document.querySelector('td[data-label=Keys]').innerText";
    browser.has("td[data-label=Keys]").await;
    assert!(browser.script(keys).await.as_str().unwrap().contains("Fresh"));
    page.go("policy").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"1h\"\nnot_after = \"2020-01-01\"").await;
    page.save("over").await;
    browser.shows("Saved as version").await;
    page.exchange(&page.job).await;
    page.go("overview").await;
    browser.has("td[data-label=Keys]").await;
    let seen = browser.script(keys).await;
    let seen = seen.as_str().unwrap();
    assert!(seen.contains("Ended") && !seen.contains("Fresh"), "{seen}");
    browser.screenshot("trust_admin-ended").await;
    page.check_no_problems().await;
}

#[tokio::test]
async fn phone_has_a_way_back() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    browser.look(390, 844, "light").await;
    page.go("policy").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    page.save("longer").await;
    browser.shows("Saved as version").await;

    page.go("history").await;
    browser.shows("longer").await;
    page.focus_is("history-title").await;
    browser.click(".versions .link").await;
    page.focus_is("comparison-title").await;
    browser.screenshot("trust_admin-phone-comparison").await;
    browser.click("#history-back").await;
    let focus = "return document.activeElement === document.querySelector('.versions .link')";
    assert_eq!(browser.script(focus).await, true);

    page.go("try").await;
    browser.write("#try-token", &page.job).await;
    browser.click("#try").await;
    page.focus_is("result-title").await;
    browser.screenshot("trust_admin-phone-result").await;
    browser.click("#try-back").await;
    page.focus_is("try-token").await;
    let visible = "const { top, bottom } = document.activeElement.getBoundingClientRect(); return top >= 0 && bottom <= innerHeight";
    assert_eq!(browser.script(visible).await, true);

    // A wide window has both side by side.
    browser.look(1280, 900, "light").await;
    let back =
        "return [...document.querySelectorAll('.back')].some(button => button.checkVisibility())";
    assert_eq!(browser.script(back).await, false);
    page.check_no_problems().await;
}

/// Answers of a service whose store cannot read a version, and whose dry run was too much work.
const DAMAGED: &str = "
    const real = window.fetch;
    window.fetch = async (url, init) => {
        const answer = await real(url, init);
        const change = /^history\\?/.test(url) ? body => {
            const damaged = { number: 1, version: '1-0', at: null, author: null, note: null, damaged: true };
            body.versions.splice(1, 0, damaged);
        } : url === 'dry_run' ? body => { body.skipped = 3 } : null;
        if (!change) return answer;
        const body = await answer.json();
        change(body);
        return new Response(JSON.stringify(body), answer);
    };";

#[tokio::test]
async fn damaged_version_is_only_named() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    browser.script(DAMAGED).await;
    page.go("policy").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    browser.click("#review").await;
    browser.shows("3 earlier decisions took too long to compare.").await;
    browser.has("#save").await;
    browser.click("#save").await;
    browser.shows("Saved as version").await;
    page.go("history").await;
    page.focus_is("history-title").await;
    let entries = "const rows = [...document.querySelectorAll('.versions li')];
        return [rows.length, rows[1].innerText, rows[1].querySelectorAll('button').length, rows[0].querySelectorAll('button').length, document.querySelectorAll('#compare-from option').length]";
    let seen = browser.script(entries).await;
    assert!(seen[1].as_str().unwrap().contains("damaged"), "{seen}");
    assert_eq!(
        [&seen[0], &seen[2], &seen[3], &seen[4]],
        [3, 0, 1, 2].map(|it| json!(it)).each_ref()
    );
    browser.has(".comparison .row.new").await;
    page.check_no_problems().await;
}
