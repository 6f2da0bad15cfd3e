//! The page of the `trust_admin` example, in a real browser.

use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::Provider;
use serde_json::{Value, json};

use crate::support::files::File;
use crate::support::http;
use crate::support::process::Program;
use crate::support::webdriver::{Browser, ENTER, ESCAPE, TAB};

mod saving;
mod views;

/// Collects what the page's policy forbids, and errors of its scripts.
const WATCH: &str = "
    window.problems = [];
    addEventListener('securitypolicyviolation', event => problems.push(event.violatedDirective + ' ' + event.blockedURI));
    addEventListener('error', event => problems.push(event.message));
    addEventListener('unhandledrejection', event => problems.push(String(event.reason)));";

struct Page {
    browser: Browser,
    /// The URL of the endpoints.
    endpoints: String,
    /// A token of alice, who administers the whole policy.
    token: String,
    /// A token of bob, who administers the tenant acme.
    tenant_token: String,
    /// A token of a job that no rule accepts.
    job: String,
    _example: Program,
    _folder: File,
}

impl Page {
    /// Starts the example, and opens its page in a browser without a session.
    async fn open() -> Self {
        let file = File::reserve("policy");
        let folder = file.path().parent().unwrap().display().to_string();
        let environment = [("LISTEN", "127.0.0.1:0"), ("TMPDIR", folder.as_str())];
        let mut example = Program::example("trust_admin", &environment);
        let line = example.stdout.line("Open http").await;
        let url = line.split(' ').nth(1).unwrap();
        let endpoints = url.strip_suffix("/trusts/ui").unwrap().to_owned();
        let bearer = |line: String| {
            let (_, token) = line.split_once("Bearer ").unwrap();
            token.split('\'').next().unwrap().to_owned()
        };
        let token = bearer(example.stdout.line("Authorization: Bearer ").await);
        let line = example.stdout.line("{\"token\":\"").await;
        let (_, job) = line.split_once("{\"token\":\"").unwrap();
        let job = job.split('"').next().unwrap().to_owned();
        example.stdout.line("the tenant administrator").await;
        let tenant_token = bearer(example.stdout.line("Authorization: Bearer ").await);
        let browser = Browser::start().await;
        browser.run_in_pages(WATCH).await;
        let page =
            Self { browser, endpoints, token, tenant_token, job, _example: example, _folder: file };
        page.show("").await;
        page
    }

    async fn signed_in() -> Self {
        let page = Self::open().await;
        page.browser.has("#sign-in-link").await;
        page.browser.click("#sign-in-link").await;
        page.browser.has("#username").await;
        page.browser.write("#username", "alice").await;
        page.browser.write("#password", "wonderland").await;
        page.browser.click("#sign-in").await;
        page.browser.has("#overview-add").await;
        page
    }

    /// Signs in with a token.
    async fn paste(&self, token: &str) {
        self.browser.has("#token").await;
        self.browser.write("#token", token).await;
        self.browser.press(ENTER).await;
        self.browser.has("#nav-policy").await;
    }

    /// Opens the page at a view.
    async fn show(&self, view: &str) {
        self.browser.open(&format!("{}/trusts/ui{view}", self.endpoints)).await;
    }

    /// Goes to a view by its link.
    async fn go(&self, view: &str) {
        self.browser.click(&format!("#nav-{view}")).await;
        self.browser.has(&format!("#{view}-title")).await;
    }

    async fn text(&self) -> String {
        let text = self.browser.script("return document.querySelector('#policy-text').value").await;
        text.as_str().unwrap().to_owned()
    }

    /// Replaces a part of the text in the editor, as typing would.
    async fn edit(&self, before: &str, after: &str) {
        let text = self.text().await;
        assert!(text.contains(before), "{text}");
        let text = json!(text.replacen(before, after, 1));
        let script = format!(
            "const area = document.querySelector('#policy-text'); area.value = {text};
            area.dispatchEvent(new Event('input'))"
        );
        self.browser.script(&script).await;
    }

    /// Saves the text with a note.
    async fn save(&self, note: &str) {
        self.browser.click("#review").await;
        self.browser.has("#save-note").await;
        self.browser.write("#save-note", note).await;
        self.browser.click("#save").await;
    }

    /// Waits until the focus is at a message.
    async fn message_with_focus(&self, text: &str) {
        let focus =
            "return document.activeElement.matches('.notice') && document.activeElement.innerText";
        let mut seen = Value::Null;
        for _ in 0..1200 {
            seen = self.browser.script(focus).await;
            if seen.as_str().is_some_and(|seen| seen.contains(text)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let shown = self.browser.script("return document.body.innerText").await;
        panic!("the focus is not at `{text}` but at `{seen}`: {shown}");
    }

    /// Checks where the focus is.
    async fn focus_is(&self, id: &str) {
        let focus = "return document.activeElement.id || document.activeElement.tagName";
        let mut seen = Value::Null;
        for _ in 0..1200 {
            seen = self.browser.script(focus).await;
            if seen == id {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the focus is at {seen}, not at {id}");
    }

    async fn check_no_problems(&self) {
        let problems = self.browser.script("return window.problems").await;
        assert_eq!(problems, json!([]), "{}", self.browser.url().await);
    }

    /// Exchanges a token of a workload. Returns the status.
    async fn exchange(&self, token: &str) -> u16 {
        let form = format!(
            "grant_type=token_exchange&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token={token}"
        );
        let request = http::client().post(format!("{}/exchange", self.endpoints)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        http::send(request).await.status
    }
}

/// A cluster whose tokens are for the vault, and the token of a pod.
async fn cluster(more: &[(&str, Value)]) -> (Provider, String) {
    let cluster =
        Provider::builder().audience("vault").algorithms([Algorithm::ES256]).start().await;
    let token = cluster.token().subject("system:serviceaccount:reports:reporter");
    let token = more.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()));
    let token = token.sign();
    (cluster, token)
}

/// Fills in the guided form for a cluster.
async fn fill_in_guide(browser: &Browser, issuer: &str) {
    for (field, value) in [
        ("audience", "vault"),
        ("issuer", issuer),
        ("namespace", "reports"),
        ("account", "reporter"),
        ("rule", "reporting"),
        ("tenant", "acme"),
        ("scopes", "secrets:read secrets:list"),
    ] {
        browser.write(&format!("#guide-{field}"), value).await;
    }
}

#[tokio::test]
async fn guided_trust_is_used_and_rolled_back() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    let (cluster, token) = cluster(&[]).await;
    assert_eq!(page.exchange(&token).await, 400);

    // A cluster on loopback needs a setting that the form does not offer: the linter names it.
    browser.click("#overview-add").await;
    browser.has("#guide-insert").await;
    fill_in_guide(browser, &cluster.issuer()).await;
    browser.click("#guide-insert").await;
    browser.has(".problems .bad").await;
    browser.shows("allow_loopback_http").await;
    browser.click(".problems .bad button").await;
    let at_fault = "const area = document.querySelector('#policy-text');
        return area === document.activeElement && area.value.slice(0, area.selectionStart).split('\\n').pop() + area.value.slice(area.selectionStart).split('\\n')[0]";
    let line = browser.script(at_fault).await;
    assert!(line.as_str().unwrap().contains(&cluster.issuer()), "{line}");

    // A text with faults is not saved.
    browser.click("#review").await;
    browser.shows("Not saved: ").await;
    page.edit("max_lifetime = \"2h\"", "max_lifetime = \"2h\"\nallow_loopback_http = true").await;
    browser.shows("No faults.").await;

    // The unsaved text is tried with the pod's token, which disappears.
    page.go("try").await;
    browser.write("#try-token", &token).await;
    browser.click("#try-unsaved").await;
    browser.click("#try").await;
    browser.shows("sa:k8s-prod:system:serviceaccount:reports:reporter").await;
    assert_eq!(browser.script("return document.querySelector('#try-token').value").await, "");
    let whole = browser.script("return document.documentElement.outerHTML").await;
    assert!(!whole.as_str().unwrap().contains(token.rsplit('.').next().unwrap()), "{whole}");
    assert_eq!(page.exchange(&token).await, 400, "not saved yet");

    page.go("policy").await;
    page.save("Pods of the reports").await;
    browser.shows("Saved as version").await;
    assert_eq!(page.exchange(&token).await, 200);
    page.go("decisions").await;
    browser.shows("k8s-prod\nreporting").await;
    page.go("overview").await;
    browser.shows("k8s-prod").await;

    // Roll back to the version before.
    page.go("history").await;
    browser.shows("Pods of the reports").await;
    browser.click(".roll-back").await;
    browser.click("#confirm-rollback").await;
    browser.shows("is restored").await;
    assert_eq!(page.exchange(&token).await, 400);
    page.check_no_problems().await;
}

/// Writes the trust of each platform with answers like those that the form suggests, and with hostile ones, and
/// asks the linter.
const WRITE: &str = r#"
    const { PLATFORMS, ruleQuestions, trustQuestions, writeTrust } = await import("/v1/auth/trusts/ui/platforms.js");
    const hostile = "q\" b\\ \n\r\t\u0000\u007f \u00e9 \u{1f600} \u202e \u2028 \ud800 ''' \"\"\" # ]] = {x} \\u0041";
    const lint = async text => {
        const headers = { "content-type": "application/toml" };
        const answer = await fetch("/v1/auth/trusts/lint", { method: "POST", headers, body: text });
        return answer.status === 200 ? answer.json() : { faults: [{ problem: `status ${answer.status}` }] };
    };
    const problems = [];
    for (const platform of PLATFORMS) {
        const asked = [...trustQuestions(platform.suggestion), ...platform.questions, ...ruleQuestions()];
        const answers = choose => Object.fromEntries(asked.map(each => [each.name, each.choices ? each.choices.at(-1)[0] : choose(each)]));
        const usual = { ...answers(each => each.value || each.example), audience: hostile, mode: '"audit"' };
        const accepted = await lint(writeTrust(platform, usual));
        if (accepted.policy?.trust[0].audiences[0] !== hostile.replace("\ud800", "\ufffd")) problems.push([platform.id, accepted]);
        const refused = await lint(writeTrust(platform, answers(() => hostile)));
        if (refused.faults.some(fault => fault.field === "the text" || /placeholder </.test(fault.problem) || /^status/.test(fault.problem))) problems.push([platform.id, refused]);
    }
    return [PLATFORMS.length, problems];"#;

#[tokio::test]
async fn guided_forms_pass_the_linter() {
    let page = Page::signed_in().await;
    let script = format!("return (async () => {{{WRITE}}})()");
    assert_eq!(page.browser.script(&script).await, json!([7, []]));
}

#[tokio::test]
async fn html_in_claims_stays_text() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    let html = "<img src=x onerror=\"document.title='run'\"><b id=bold>b</b>";
    page.go("try").await;
    browser.click("label[for=try-kind-claims]").await;
    let claims = json!({ "iss": html, "sub": html, "aud": "vault" });
    browser.write("#try-claims", &claims.to_string()).await;
    browser.click("#try").await;
    browser.has(".verdict").await;
    browser.shows("<img src=x").await;

    // In the text of the policy, its faults, a note and the differences, too.
    page.go("policy").await;
    page.edit("[[trust]]", &format!("# {html}\n[[trust]]")).await;
    page.save(html).await;
    browser.shows("Saved as version").await;
    page.edit("name = \"deploy\"", &format!("name = '{html}'")).await;
    browser.has(".problems .bad").await;
    page.go("history").await;
    browser.shows("<b id=bold>").await;
    let made = "return [document.title, document.querySelectorAll('img, #bold').length]";
    assert_eq!(browser.script(made).await[1], 0);
    assert_ne!(browser.script(made).await[0], "run");
    page.check_no_problems().await;
}

#[tokio::test]
async fn keyboard_alone_adds_a_rule() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.show("").await;
    browser.has("#overview-add").await;
    reach(browser, "nav-policy").await;
    browser.press(ENTER).await;
    browser.has("#policy-title").await;
    reach(browser, "add-rule").await;
    browser.press(ENTER).await;
    reach(browser, "guide-rule").await;
    browser.press("nightly").await;
    reach(browser, "guide-subject").await;
    browser.press("repo:acme/shop:ref:refs/heads/nightly").await;
    reach(browser, "guide-tenant").await;
    browser.press("acme").await;
    reach(browser, "guide-scopes").await;
    browser.press("secrets:read").await;
    reach(browser, "guide-insert").await;
    browser.press(ENTER).await;
    browser.shows("The rule was inserted").await;
    browser.shows("No faults.").await;
    reach(browser, "review").await;
    browser.press(ENTER).await;
    browser.has("#save-note").await;
    reach(browser, "save").await;
    browser.press(ENTER).await;
    browser.shows("Saved as version").await;
    assert!(page.text().await.contains("name = \"nightly\""));
    page.check_no_problems().await;
}

/// Presses Tab until an element has the focus, and checks that the focus can be seen.
async fn reach(browser: &Browser, id: &str) {
    for _ in 0..100 {
        let focus = browser
            .script("return [document.activeElement.id, document.activeElement.matches(':focus-visible')]")
            .await;
        if focus[0] == id {
            assert_eq!(focus[1], true, "{id}");
            return;
        }
        browser.press(TAB).await;
    }
    panic!("no way to #{id} by keyboard");
}

#[tokio::test]
async fn pasted_token_stays_in_memory() {
    let page = Page::open().await;
    let browser = &page.browser;
    browser.has("#token").await;
    browser.write("#token", "not a token").await;
    browser.press(ENTER).await;
    browser.shows("The token is not accepted").await;
    browser.write("#token", &page.token).await;
    browser.press(ENTER).await;
    browser.has("#overview-add").await;
    let stored = "return [localStorage.length, sessionStorage.length, document.cookie, document.querySelector('#token').value,
        document.documentElement.outerHTML.includes('eyJ')]";
    assert_eq!(browser.script(stored).await, json!([0, 0, "", "", false]));
    page.check_no_problems().await;
    browser.click("#forget").await;
    browser.has("#token").await;
    let views = "return document.querySelector('#views').checkVisibility()";
    assert_eq!(browser.script(views).await, false);
    browser.write("#token", "tok€n").await;
    browser.press(ENTER).await;
    browser.shows("The token is not accepted").await;
}

#[tokio::test]
async fn skip_link_leaves_the_address() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    page.show("#policy").await;
    browser.has("#policy-title").await;
    // A click gives the window the focus, which it may not have after a sign-in.
    browser.click("#policy-title").await;
    browser.script("document.querySelector('.skip').focus()").await;
    browser.press(ENTER).await;
    page.focus_is("policy-title").await;
    browser.script("location.reload()").await;
    browser.has("#policy-title").await;
    for unknown in ["#main", "#toString", "#x?y"] {
        page.show(unknown).await;
        browser.has("#overview-title").await;
    }
    page.check_no_problems().await;
}

#[tokio::test]
async fn failed_load_is_repeated() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    let away = "const real = window.fetch; window.isAway = true;
        window.fetch = (...request) => isAway ? Promise.resolve(new Response('{}', { status: 503 })) : real(...request)";
    browser.run_in_pages(away).await;
    browser.script("location.reload()").await;
    browser.has("#try-again").await;
    browser.shows("The policy cannot be shown").await;
    browser.script("window.isAway = false").await;
    browser.click("#try-again").await;
    browser.has("#overview-add").await;
    page.focus_is("overview-title").await;
    page.check_no_problems().await;
}

#[tokio::test]
async fn dialogs_give_the_focus_back() {
    let page = Page::signed_in().await;
    let browser = &page.browser;
    browser.click("#overview-add").await;
    browser.has("#guide-insert").await;
    browser.press(ESCAPE).await;
    page.focus_is("overview-add").await;
    browser.has("#overview-title").await;

    // What was typed is asked for once, and goes along to another platform.
    browser.click("#overview-add").await;
    browser.has("#guide-insert").await;
    browser.write("#guide-audience", "vault").await;
    browser.write("#guide-account", "reporter").await;
    browser.click("label[for=platform-aws]").await;
    let answers = "return ['audience', 'account'].map(name => document.querySelector(`#guide-${name}`).value)";
    assert_eq!(browser.script(answers).await, json!(["vault", ""]));
    browser.press(ESCAPE).await;
    browser.shows("Discard what you typed?").await;
    browser.press(ESCAPE).await;
    page.focus_is("overview-add").await;

    // Enter in the note saves.
    page.show("#policy").await;
    browser.has("#review").await;
    page.edit("max_lifetime = \"1h\"", "max_lifetime = \"2h\"").await;
    browser.click("#review").await;
    browser.has("#save-note").await;
    browser.write("#save-note", "longer").await;
    browser.press(ENTER).await;
    browser.shows("Saved as version").await;
    page.focus_is("policy-title").await;
    page.go("history").await;
    browser.shows("longer").await;
    browser.click(".roll-back").await;
    browser.click("#confirm-rollback").await;
    browser.shows("is restored").await;
    page.focus_is("history-title").await;
    page.check_no_problems().await;
}

#[tokio::test]
async fn draft_is_for_its_account_only() {
    let page = Page::open().await;
    let browser = &page.browser;
    browser.has("#token").await;
    // The second sign-in is another account, then the third is the first one again.
    let accounts = "window.account = 'a'; window.expired = false; const real = window.fetch;
        window.fetch = async (url, init) => String(url).endsWith('whoami')
            ? new Response(JSON.stringify({ identity_id: account }))
            : expired ? new Response('{}', { status: 401 }) : real(url, init);";
    browser.run_in_pages(accounts).await;
    browser.script("location.reload()").await;
    for (next, is_kept) in [("a", true), ("b", false)] {
        browser.has("#token").await;
        let sign_in = async |account: &str| {
            browser.script(&format!("expired = false; account = '{account}'")).await;
            browser.write("#token", &page.token).await;
            browser.press(ENTER).await;
            browser.has("#nav-policy").await;
        };
        sign_in("a").await;
        page.go("policy").await;
        page.edit("[[trust]]", "# my draft\n[[trust]]").await;
        browser.script("expired = true").await;
        browser.click("#nav-overview").await;
        browser.has("#token").await;
        assert_eq!(page.text().await, "", "signed out");
        sign_in(next).await;
        assert_eq!(page.text().await.contains("my draft"), is_kept, "{next}");
        browser.script("expired = true; document.querySelector('#nav-history').click()").await;
    }
    page.check_no_problems().await;
}
