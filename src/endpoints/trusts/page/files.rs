//! The files of the page: the last part of the path, the media type and the text.

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page itself, at `trusts/ui`.
pub(super) const PAGE: (&str, &str, &str) = ("", HTML, include_str!("page.html"));

/// The files that the page loads, at `trusts/ui/<name>`.
pub(super) const FILES: &[(&str, &str, &str)] =
    &[("app.js", SCRIPT, include_str!("app.js")), ("style.css", STYLE, include_str!("style.css"))];
