//! Provider metadata (OpenID Connect Discovery 1.0, RFC 8414): its URLs, and the members that this crate uses.

use url::Url;

use super::http::{FetchError, Http, Limits, check_metadata_url};
use super::near_miss::NearMiss;
use crate::config::{PlainHttp, Route, has_user_information};
use crate::support::json::{Document, Fault, Value};

/// The reason why metadata is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("is not a JSON object")]
    Syntax,
    #[error("has too many members, or is nested too deeply")]
    Limit,
    #[error("has a duplicate member")]
    Duplicate,
    #[error("{}", wrong_issuer(expected, *near_miss, *is_expected_issuer))]
    Issuer {
        expected: Box<str>,
        /// The difference, if it is only a slash or the scheme.
        near_miss: Option<NearMiss>,
        /// Whether the name of the issuer was set as `expected_issuer`.
        is_expected_issuer: bool,
    },
    #[error("has no usable {0}")]
    Lacks(&'static str),
    #[error(transparent)]
    Forbidden(#[from] FetchError),
}

impl MetadataError {
    /// Names expected_issuer as the cause, if that is set.
    pub(super) fn with_expected_issuer(mut self, is_set: bool) -> Self {
        if let Self::Issuer { is_expected_issuer, .. } = &mut self {
            *is_expected_issuer = is_set;
        }
        self
    }
}

fn wrong_issuer(expected: &str, near_miss: Option<NearMiss>, is_expected_issuer: bool) -> String {
    let actual = near_miss.map(|miss| format!(", but for `{}`", miss.spelled(expected)));
    let actual = actual.unwrap_or_default();
    match is_expected_issuer {
        true => format!(
            "is not for `{expected}`, the value of expected_issuer{actual}: correct expected_issuer, or leave it out"
        ),
        false => format!(
            "is not for the issuer `{expected}`{actual}: set expected_issuer to the value of its member `issuer`"
        ),
    }
}

/// Parses a metadata document. Its `issuer` must be exactly `expected` (RFC 8414 §3.3).
fn parse(body: &[u8], expected: &str) -> Result<Document, MetadataError> {
    let document = Document::parse(body).map_err(|fault| match fault {
        Fault::Syntax => MetadataError::Syntax,
        Fault::Limit => MetadataError::Limit,
        Fault::Duplicate => MetadataError::Duplicate,
    })?;
    let actual = text(&document, "issuer").unwrap_or_default();
    if actual == expected {
        return Ok(document);
    }
    let near_miss = NearMiss::between(expected, actual);
    Err(MetadataError::Issuer { expected: expected.into(), near_miss, is_expected_issuer: false })
}

fn text<'d>(document: &'d Document, name: &str) -> Option<&'d str> {
    document.root().get(name).and_then(Value::as_str)
}

/// Returns the URL of the key set that the metadata `body`, fetched from `from`, names.
pub(crate) fn jwks_uri(
    body: &[u8],
    from: &Url,
    issuer: &str,
    plain_http: &PlainHttp,
) -> Result<Url, MetadataError> {
    let document = parse(body, issuer)?;
    let jwks_uri = text(&document, "jwks_uri").and_then(|uri| Url::parse(uri).ok());
    let jwks_uri = jwks_uri.ok_or(MetadataError::Lacks("jwks_uri"))?;
    check_metadata_url(&jwks_uri, from, plain_http)?;
    Ok(jwks_uri)
}

/// The client endpoints of an authorization server, and its capabilities.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) token: Url,
    pub(crate) revocation: Option<Url>,
    pub(crate) introspection: Option<Url>,
    pub(crate) authorization: Option<Url>,
    /// Where a browser ends the provider's session (OpenID Connect RP-Initiated Logout §2.1).
    pub(crate) end_session: Option<Url>,
    /// Whether authorization responses have `iss` (RFC 9207 §3).
    pub(crate) supports_iss_parameter: bool,
    /// Whether the metadata lists the supported code challenge methods without S256.
    pub(crate) lacks_s256: bool,
}

impl Endpoints {
    pub(super) fn parse(
        body: &[u8],
        from: &Url,
        issuer: &str,
        plain_http: &PlainHttp,
    ) -> Result<Self, MetadataError> {
        let document = parse(body, issuer)?;
        let endpoint = |name: &str| {
            let url = Url::parse(text(&document, name)?).ok()?;
            // Credentials are sent there, so the rules are at least as strict as for keys.
            check_metadata_url(&url, from, plain_http).ok().map(|()| url)
        };
        // Browsers see these.
        let page = |name: &str| endpoint(name).filter(|url| !has_user_information(url));
        let member = |name: &str| document.root().get(name);
        let supports_iss_parameter = member("authorization_response_iss_parameter_supported");
        let challenges = member("code_challenge_methods_supported").filter(|list| list.is_list());
        let has_s256 = |list: Value<'_>| list.children().any(|one| one.as_str() == Some("S256"));
        Ok(Self {
            token: endpoint("token_endpoint").ok_or(MetadataError::Lacks("token_endpoint"))?,
            revocation: endpoint("revocation_endpoint"),
            introspection: endpoint("introspection_endpoint"),
            authorization: page("authorization_endpoint"),
            end_session: page("end_session_endpoint"),
            supports_iss_parameter: supports_iss_parameter
                .and_then(Value::as_bool)
                .unwrap_or(false),
            lacks_s256: challenges.is_some_and(|list| !has_s256(list)),
        })
    }
}

impl Http {
    /// Fetches the metadata of `issuer` from the first of `urls` that has valid metadata, and returns the
    /// endpoints in it. The error is that of the last URL.
    pub(crate) async fn endpoints(
        &self,
        urls: &[Url],
        issuer: &str,
        plain_http: &PlainHttp,
        route: &Route,
        limits: Limits,
    ) -> Result<Endpoints, String> {
        let mut problem = "the issuer has no metadata URL, so its endpoints are unknown".to_owned();
        for url in urls {
            let found = match self.get(url, limits, route, None).await {
                Ok(answer) => Endpoints::parse(&answer.body, url, issuer, plain_http),
                Err(error) => Err(error.into()),
            };
            match found {
                Ok(endpoints) => return Ok(endpoints),
                Err(error) => problem = format!("the metadata at {url} {error}"),
            }
        }
        Err(problem)
    }

    /// Returns the end-session endpoint in the first metadata of `issuer` that names one. That of RFC 8414
    /// need not have it, because OpenID Connect defines it. If none names it, and some could not be read,
    /// the error says why: nothing is then known.
    pub(crate) async fn end_session_endpoint(
        &self,
        urls: &[Url],
        issuer: &str,
        plain_http: &PlainHttp,
        route: &Route,
        limits: Limits,
    ) -> Result<Option<Url>, String> {
        let mut problem = None;
        for url in urls {
            match self.get(url, limits, route, None).await {
                Ok(answer) => {
                    let found = Endpoints::parse(&answer.body, url, issuer, plain_http).ok();
                    if let Some(endpoint) = found.and_then(|endpoints| endpoints.end_session) {
                        return Ok(Some(endpoint));
                    }
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => problem = Some(format!("the metadata at {url} {error}")),
            }
        }
        problem.map_or(Ok(None), Err)
    }
}

/// Returns whether the server said that there is no such document, which a retry would not change. Some
/// servers answer 400, 401 or 403 to paths that they do not know.
fn is_missing(error: &FetchError) -> bool {
    use http::StatusCode as Code;
    let FetchError::Status { status, .. } = error else { return false };
    // These are about the connection, the proxy or the time, not about the document.
    let others = [
        Code::PROXY_AUTHENTICATION_REQUIRED,
        Code::REQUEST_TIMEOUT,
        Code::MISDIRECTED_REQUEST,
        Code::TOO_EARLY,
        Code::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !others.contains(status)
}

/// Returns the possible metadata URLs of `issuer`. RFC 8414 inserts the well-known path before the issuer's
/// path; OpenID Connect appends it.
pub(crate) fn well_known(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let mut paths = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
        format!("{path}/.well-known/openid-configuration"),
    ];
    paths.dedup();
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    paths.into_iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urls(issuer: &str) -> Vec<String> {
        well_known(&issuer.parse().unwrap()).into_iter().map(String::from).collect()
    }

    #[test]
    fn well_known_path_is_inserted_and_appended() {
        assert_eq!(
            urls("https://a.example/realms/x/"),
            [
                "https://a.example/.well-known/oauth-authorization-server/realms/x",
                "https://a.example/.well-known/openid-configuration/realms/x",
                "https://a.example/realms/x/.well-known/openid-configuration",
            ]
        );
        assert_eq!(urls("https://a.example").len(), 2);
    }

    #[test]
    fn metadata_of_another_issuer_is_refused() {
        let from: Url = "https://a.example/d".parse().unwrap();
        let parse = |body: &str| {
            jwks_uri(body.as_bytes(), &from, "https://a.example", &PlainHttp::default())
        };
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://a.example/k","x":{"y":1}}"#;
        assert_eq!(parse(good).unwrap().as_str(), "https://a.example/k");
        for issuer in ["https://a.example/", "https://A.example", "https://b.example", ""] {
            let body = format!(r#"{{"issuer":"{issuer}","jwks_uri":"https://a.example/k"}}"#);
            assert!(matches!(parse(&body), Err(MetadataError::Issuer { .. })), "{issuer}");
        }
        for body in [
            r#"{"issuer":"https://a.example"}"#,
            r#"{"issuer":"https://a.example","jwks_uri":7}"#,
            r#"{"issuer":"https://a.example","jwks_uri":"http://a.example/k"}"#,
            r#"{"issuer":"https://a.example","issuer":"x","jwks_uri":"https://a.example/k"}"#,
            "<html>",
        ] {
            assert!(parse(body).is_err(), "{body}");
        }
    }

    #[test]
    fn pages_for_browsers_have_no_password() {
        let from: Url = "https://a.example/d".parse().unwrap();
        let body = r#"{"issuer":"https://a.example","token_endpoint":"https://a.example/t",
            "authorization_endpoint":"https://u:p@a.example/a",
            "end_session_endpoint":"https://u@a.example/e"}"#;
        let plain = PlainHttp::default();
        let read = Endpoints::parse(body.as_bytes(), &from, "https://a.example", &plain).unwrap();
        assert_eq!((read.authorization, read.end_session), (None, None));
    }

    /// Generates URLs of all kinds, some of which are acceptable.
    fn url() -> impl Strategy<Value = String> {
        let scheme = prop::sample::select(vec!["https", "HTTPS", "http", "ftp", "file", ""]);
        let host = prop::sample::select(vec![
            "a.example",
            "A.EXAMPLE",
            "keys.example",
            "127.0.0.1",
            "127.1",
            "localhost",
            "[::1]",
            "10.0.0.1",
            "0x7f000001",
            "[",
            "",
        ]);
        (scheme, host, "[a-z0-9:@/?#%\\[\\].-]{0,12}")
            .prop_map(|(scheme, host, rest)| format!("{scheme}://{host}{rest}"))
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let from = "https://a.example/d".parse().unwrap();
            let plain = PlainHttp { loopback: true, ..PlainHttp::default() };
            let _ = jwks_uri(&body, &from, "https://a.example", &plain);
        }

        #[test]
        fn accepted_url_is_https_and_public(url in url()) {
            let from = "https://a.example/d".parse().unwrap();
            let plain = PlainHttp { loopback: true, ..PlainHttp::default() };
            let body = format!(r#"{{"issuer":"https://a.example","jwks_uri":"{url}"}}"#);
            if let Ok(accepted) = jwks_uri(body.as_bytes(), &from, "https://a.example", &plain) {
                prop_assert_eq!(accepted.scheme(), "https");
                let host = accepted.host_str().unwrap();
                prop_assert!(!["127.0.0.1", "localhost", "[::1]", "10.0.0.1"].contains(&host));
            }
        }
    }
}
