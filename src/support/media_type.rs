//! The media type of a request's body.

use http::{HeaderMap, header};

/// The media type of forms (<https://url.spec.whatwg.org/#application/x-www-form-urlencoded>).
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// Returns the media type in lower case, without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Returns whether the body is a form.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    media_type(headers) == FORM
}
