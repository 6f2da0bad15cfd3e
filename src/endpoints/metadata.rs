//! `GET /.well-known/oauth-protected-resource`: metadata of this service (RFC 9728).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::Inner;
use super::response::json_response;

/// The metadata of a protected resource (RFC 9728 §2). Empty lists are omitted (§3.2).
#[derive(Serialize)]
struct Metadata<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_servers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<&'a str>,
    bearer_methods_supported: [&'static str; 1],
}

impl Inner {
    /// Returns the metadata, from the settings of [`Auth`](crate::Auth). Pages of any origin may
    /// read it, and caches may store it for an hour.
    pub(super) fn metadata(&self) -> Response<Bytes> {
        let resource = self.auth.resource();
        let metadata = Metadata {
            resource: resource.map_or("", |resource| &resource.identifier),
            authorization_servers: self.auth.issuers().names(),
            // The scopes of sign-ins are not listed: `offline_access`, for example, is not a scope
            // of a resource.
            scopes_supported: resource.map(|it| it.scopes.iter().collect()).unwrap_or_default(),
            bearer_methods_supported: ["header"],
        };
        let mut response = json_response(StatusCode::OK, &metadata);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        response
    }
}
