//! The pages of the examples `trust_admin` and `browser_login`, checked with axe-core: each view and dialog, light and
//! dark, on a desktop and on a phone.

use serde_json::Value;

use super::install;
use crate::support::files::File;
use crate::support::process::Program;
use crate::support::webdriver::Browser;

/// Checks what the page shows now.
const CHECK: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    return axe.run({ runOnly: tags }).then(({ violations }) =>
        violations.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.target).join(' ')}`));";

/// A desktop and a phone.
const LOOKS: [(u32, u32, &str); 4] =
    [(1280, 860, "light"), (1280, 860, "dark"), (360, 740, "light"), (360, 740, "dark")];

/// Replaces the text of the policy, as typing would.
const FAULTY: &str = "
    const area = document.querySelector('#policy-text');
    area.value = '[[trust]]\\nid = \"a\"\\naudience = \"b\"\\n';
    area.dispatchEvent(new Event('input'));";

/// Claims that no trust accepts.
const CLAIMS: &str = "document.querySelector('#try-claims').value = '{\"iss\":\"x\"}'";

/// Changes the text at two places, one of which another administrator changes first.
const CONFLICT: &str = "
    const area = document.querySelector('#policy-text');
    window.isLost = false;
    const text = area.value;
    area.value = `# mine\n${text}`.replace('[\"vault\"]', '[\"vault\", \"mine\"]');
    area.dispatchEvent(new Event('input'));
    const answer = await fetch('../trusts');
    const headers = { 'If-Match': answer.headers.get('etag'), 'Content-Type': 'application/toml' };
    const body = `# ${Math.random()}\n${text}# theirs\n`;
    const saved = await fetch('../trusts', { method: 'PUT', headers, body });
    if (!saved.ok) throw new Error(`${saved.status}`);";

/// Changes the text, whose save gets no answer.
const LOST: &str = "
    const area = document.querySelector('#policy-text');
    area.value = `# lost\n${area.value}`;
    area.dispatchEvent(new Event('input'));
    window.isLost = true;
    const real = window.real ??= window.fetch;
    window.fetch = (url, init) => init?.method === 'PUT' && isLost ? Promise.reject(new TypeError()) : real(url, init);";

/// The views and dialogs: the name, the hash, what to do there (a click on a selector, or a script), and the
/// element that then appears.
const VIEWS: [(&str, &str, &[&str], &str); 11] = [
    ("overview", "#overview", &[], ".trust-name"),
    ("policy", "#policy", &[], "#add-trust"),
    ("conflict", "#policy", &[CONFLICT, "#review", "#save"], "#rebase"),
    ("lost", "#policy", &["#take-theirs", LOST, "#review", "#save"], "#look"),
    ("guide", "#policy", &["#add-trust"], "#guide-insert"),
    ("rule", "#policy", &["#add-rule", ".claims + button"], ".claim"),
    ("faults", "#policy", &[FAULTY], ".problems .bad"),
    ("try", "#try", &["label[for=try-kind-claims]", CLAIMS, "#try"], ".verdict"),
    ("decisions", "#decisions", &[], "#pause"),
    ("history", "#history", &[], ".versions li"),
    ("differences", "#policy", &["#discard"], "dialog .row"),
];

async fn check(browser: &Browser, axe: &str, name: &str) {
    browser.script(axe).await;
    let violations = browser.script(CHECK).await;
    assert_eq!(violations, Value::Array(Vec::new()), "{name}");
    let overflow =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.script(overflow).await, 0, "{name} is wider than the window");
    browser.screenshot(&format!("accessibility-{name}")).await;
}

/// Runs a script, or clicks on the element of a selector.
async fn act(browser: &Browser, action: &str) {
    if action.contains("document.") {
        let failure = browser.script(&format!("return (async () => {{{action}}})()")).await;
        assert_eq!(failure, Value::Null, "{action}");
    } else {
        browser.has(action).await;
        browser.click(action).await;
    }
}

#[tokio::test]
async fn trust_page_has_no_accessibility_violation() {
    let axe = std::fs::read_to_string(install().join("node_modules/axe-core/axe.min.js")).unwrap();
    let file = File::reserve("policy");
    let folder = file.path().parent().unwrap().display().to_string();
    let environment = [("LISTEN", "127.0.0.1:0"), ("TMPDIR", folder.as_str())];
    let mut example = Program::example("trust_admin", &environment);
    let line = example.stdout.line("Open http").await;
    let url = line.split(' ').nth(1).unwrap();
    let browser = Browser::start().await;
    browser.open(url).await;
    browser.has("#token").await;
    for (width, height, scheme) in LOOKS {
        browser.look(width, height, scheme).await;
        check(&browser, &axe, &format!("sign-in-{width}-{scheme}")).await;
    }
    browser.click("#sign-in-link").await;
    browser.has("#username").await;
    browser.write("#username", "alice").await;
    browser.write("#password", "wonderland").await;
    browser.click("#sign-in").await;
    browser.has("#overview-add").await;
    for (width, height, scheme) in LOOKS {
        browser.look(width, height, scheme).await;
        for (name, hash, actions, appears) in VIEWS {
            let leave =
                format!("document.querySelector('dialog')?.close(); location.hash = '{hash}'");
            browser.script(&leave).await;
            for action in actions {
                act(&browser, action).await;
            }
            browser.has(appears).await;
            check(&browser, &axe, &format!("{name}-{width}-{scheme}")).await;
        }
        // The next look begins with the saved text.
        browser.click("dialog .primary").await;
    }
}

#[tokio::test]
async fn session_page_has_no_accessibility_violation() {
    let axe = std::fs::read_to_string(install().join("node_modules/axe-core/axe.min.js")).unwrap();
    let mut example = Program::example("browser_login", &[("LISTEN", "127.0.0.1:0")]);
    let line = example.stdout.line("Open http").await;
    let url = line.split(' ').nth(1).unwrap();
    let (browser, other) = (Browser::start().await, Browser::start().await);
    let check_looks = async |name: &str| {
        for (width, height, scheme) in LOOKS {
            browser.look(width, height, scheme).await;
            check(&browser, &axe, &format!("sessions-{name}-{width}-{scheme}")).await;
        }
    };
    browser.open(url).await;
    browser.has("#sign-in").await;
    check_looks("signed-out").await;
    for browser in [&other, &browser] {
        browser.open(&format!("{url}/v1/auth/login")).await;
        browser.has("#username").await;
        browser.write("#username", "alice").await;
        browser.write("#password", "wonderland").await;
        browser.click("#sign-in").await;
        browser.has("#sign-out").await;
    }
    check_looks("list").await;
    browser.click("#end-others").await;
    browser.shows("Ended.").await;
    check_looks("ended").await;
    browser.click("#close").await;
    browser.shows("You signed in a short time ago").await;
    check_looks("close").await;
}
