//! Conditional requests (RFC 9110 §13.1).

use http::{HeaderMap, header};

/// Returns whether `If-None-Match` names an entity tag, or is `*`. Weak tags count, too (RFC 9110 §13.1.2).
pub(super) fn names_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    tags.any(|it| it.trim() == "*" || it.trim().trim_start_matches("W/") == tag)
}
