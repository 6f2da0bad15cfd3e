//! The files of the page: the last part of the path, the media type and the text.

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page itself, at `trusts/ui`.
pub(super) const PAGE: (&str, &str, &str) = ("", HTML, include_str!("page.html"));

/// The files that the page loads, at `trusts/ui/<name>`.
pub(super) const FILES: &[(&str, &str, &str)] = &[
    ("style.css", STYLE, include_str!("style.css")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("app.js", SCRIPT, include_str!("app.js")),
    ("changes.js", SCRIPT, include_str!("changes.js")),
    ("conflict.js", SCRIPT, include_str!("conflict.js")),
    ("decisions.js", SCRIPT, include_str!("decisions.js")),
    ("diff.js", SCRIPT, include_str!("diff.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("editor.js", SCRIPT, include_str!("editor.js")),
    ("explain.js", SCRIPT, include_str!("explain.js")),
    ("guide.js", SCRIPT, include_str!("guide.js")),
    ("history.js", SCRIPT, include_str!("history.js")),
    ("merge.js", SCRIPT, include_str!("merge.js")),
    ("outcomes.js", SCRIPT, include_str!("outcomes.js")),
    ("overview.js", SCRIPT, include_str!("overview.js")),
    ("platforms.js", SCRIPT, include_str!("platforms.js")),
    ("policy.js", SCRIPT, include_str!("policy.js")),
    ("state.js", SCRIPT, include_str!("state.js")),
    ("toml.js", SCRIPT, include_str!("toml.js")),
];
