//! The token in a parameter of the query (RFC 6750 §2.3).

use std::borrow::Cow;
use std::mem;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;

use super::source::TWO_TOKENS;
use crate::error::AuthError;

/// Returns the decoded value of the parameter `name`. `+` is a plus sign (RFC 3986), which a token
/// may contain, and not a space, which it may not.
pub(super) fn token(name: &str, uri: &Uri) -> Result<Option<HeaderValue>, AuthError> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut values = pairs.filter(|pair| is_named(pair, name));
    let Some(pair) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(TWO_TOKENS);
    }
    let value = pair.split_once('=').map_or("", |(_, value)| value);
    let value: Cow<'_, [u8]> = percent_decode_str(value).into();
    let mut token = HeaderValue::from_bytes(&value).map_err(|_| MALFORMED)?;
    token.set_sensitive(true);
    Ok(Some(token))
}

const MALFORMED: AuthError = AuthError::MalformedCredentials(
    "The bearer token in the query contains characters that are not allowed.",
);

/// Marks a response to a request from whose query the layer removed a token, so that an outer layer does
/// not put the URI into a redirect.
#[derive(Clone)]
pub(crate) struct HadQueryToken;

/// Marks a response that refuses the token in `Authorization` because it is revoked, so that the session layer ends the
/// session that it belongs to.
#[derive(Clone)]
pub(crate) struct HadRevokedToken;

/// Returns whether the query has a parameter with the name of RFC 6750 §2.3.
pub(crate) fn has_access_token(uri: &Uri) -> bool {
    uri.query().unwrap_or_default().split('&').any(|pair| is_named(pair, "access_token"))
}

fn is_named(pair: &str, name: &str) -> bool {
    let own = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_decode_str(own).eq(name.bytes())
}

/// Removes all parameters with this name. Returns whether there was one.
pub(super) fn remove(name: &str, uri: &mut Uri) -> bool {
    let Some(query) = uri.query() else { return false };
    let kept: Vec<_> = query.split('&').filter(|pair| !is_named(pair, name)).collect();
    if kept.len() == query.split('&').count() {
        return false;
    }
    let target = match kept.join("&") {
        query if query.is_empty() => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let mut parts = mem::take(uri).into_parts();
    // A part of a valid target is valid. If it were not, the request would go to `/`, without a token.
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
    true
}

/// Keeps the response to a URI with a token out of shared caches (RFC 6750 §2.3). A cache would find
/// it under this URI, also after the token has expired.
pub(super) fn forbid_shared_caches(headers: &mut HeaderMap) {
    if !is_private(headers) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
}

/// Returns whether shared caches must not store the response.
pub(crate) fn is_private(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let mut directives = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    directives.any(|directive| {
        let directive = directive.trim_ascii();
        directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Result<Option<&'static str>, ()>;

    #[test]
    fn token_is_read_once_and_removed() {
        let table: [(&str, Found, &str); 14] = [
            ("/a", Ok(None), "/a"),
            ("/a?", Ok(None), "/a?"),
            ("/a?b=1&access_tokens=x", Ok(None), "/a?b=1&access_tokens=x"),
            ("/a?access_token=x.y-z_", Ok(Some("x.y-z_")), "/a"),
            ("/a?b=1&access_token=x&c", Ok(Some("x")), "/a?b=1&c"),
            ("/a?access_token=x&&c=?/", Ok(Some("x")), "/a?&c=?/"),
            ("/a?access%5Ftoken=%78%2b+%3D", Ok(Some("x++=")), "/a"),
            ("/a?access_token=x&access_token=x", Err(()), "/a"),
            ("/a?access_token=x&b&access%5ftoken", Err(()), "/a?b"),
            ("/a?access_token", Ok(Some("")), "/a"),
            ("/a?access_token=%0d%0ax", Err(()), "/a"),
            ("/a?Access_Token=x", Ok(None), "/a?Access_Token=x"),
            ("https://h:1/a?access_token=x", Ok(Some("x")), "https://h:1/a"),
            ("https://h:1?access_token=x&b", Ok(Some("x")), "https://h:1/?b"),
        ];
        for (uri, expected, left) in table {
            let mut uri: Uri = uri.parse().unwrap();
            let found = token("access_token", &uri).map_err(|_| ());
            let found = found.map(|found| found.map(|it| it.to_str().unwrap().to_owned()));
            assert_eq!(found, expected.map(|it| it.map(str::to_owned)), "{uri}");
            let before = uri.clone();
            assert_eq!(remove("access_token", &mut uri), uri != before);
            assert_eq!(uri.to_string(), left, "{before}");
        }
    }

    #[test]
    fn responses_stay_out_of_shared_caches() {
        for (own, expected) in [
            (None, "private, no-store"),
            (Some("no-cache"), "private, no-store"),
            (Some("public, max-age=60"), "private, no-store"),
            (Some("max-age=60, Private"), "max-age=60, Private"),
            (Some("no-store"), "no-store"),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(own.map(|own| (header::CACHE_CONTROL, HeaderValue::from_static(own))));
            forbid_shared_caches(&mut headers);
            assert_eq!(headers[header::CACHE_CONTROL], expected);
        }
    }
}
