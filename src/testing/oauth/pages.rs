//! The provider's HTML pages.

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::{Answer, no_store_headers};

pub(super) fn page(status: StatusCode, title: &str, main: &str) -> Answer {
    let mut headers = no_store_headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // No form-action: browsers also apply it to the redirect after the form, which goes to the
    // client.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    let page = format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} – test provider</title>
<style>{STYLE}</style>
<main>
<p class="brand"><span></span>test provider</p>
{main}
</main>
</html>
"#
    );
    Answer { status, headers, json: Value::Null, page: Some(page), signed_by: None }
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f2a; --soft: #687084; --card: #fff; --paper: #eef1f6; --line: #d5dae4; --key: #2f5bea }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --soft: #98a1b5; --card: #1c212d; --paper: #11141c; --line: #343c4e; --key: #7b9bff } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { width: min(23rem, 92vw); padding: 2rem; background: var(--card); border: 1px solid var(--line); border-radius: 14px; box-shadow: 0 12px 32px rgb(20 30 60 / .08) }
.brand { margin: 0 0 1.5rem; color: var(--soft); font-size: .85rem; display: flex; align-items: center; gap: .5rem }
.brand span { width: .9rem; height: .9rem; border-radius: 4px; background: var(--key) }
h1 { margin: 0; font-size: 1.5rem }
h1 + p { margin: .1rem 0 1.4rem; color: var(--soft) }
strong { color: var(--ink) }
label { display: block; margin: .9rem 0 .3rem; font-size: .9rem; font-weight: 600 }
input { width: 100%; padding: .6rem .7rem; font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: 8px }
input:focus { outline: 2px solid var(--key); outline-offset: 1px; border-color: transparent }
button { width: 100%; margin-top: 1.3rem; padding: .65rem; font: inherit; font-weight: 600; color: #fff; background: #2f5bea; border: 0; border-radius: 8px; cursor: pointer }
button.quiet { margin-top: .4rem; color: var(--soft); background: transparent; font-weight: 400 }
.problem { margin: 0 0 .5rem; padding: .6rem .8rem; border-radius: 8px; background: #fdecec; color: #8c1d1d; font-size: .9rem }
.small { margin: 1.5rem 0 .4rem; color: var(--soft); font-size: .85rem }
.scopes { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .35rem }
.scopes li { padding: .1rem .55rem; border: 1px solid var(--line); border-radius: 99px; font-size: .8rem; color: var(--soft) }
";

/// Escapes text for HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
