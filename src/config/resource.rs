//! [`Resource`]: the resource identifier of this service and the URL of its protected resource metadata
//! (RFC 9728).

use url::Url;

use super::{Fault, is_loopback};
use crate::identity::Scopes;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A resource identifier and the URL of its metadata.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// The configured text, which clients compare byte by byte.
    pub(crate) identifier: String,
    /// The scopes that clients may request.
    pub(crate) scopes: Scopes,
    url: Url,
}

/// Parses a resource identifier: `https` without a fragment (RFC 9728 §1.2), and without a query, which the
/// RFC discourages. For development, `http` on a loopback address is accepted too.
pub(super) fn parse(resource: &str) -> Result<Resource, Fault> {
    let url = Url::parse(resource).ok().filter(|url| {
        let scheme = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
        scheme
            && !resource.contains(['{', '}'])
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let url = url.ok_or_else(|| Fault::new("resource", "must be an https URL without query, fragment and braces (http is allowed on loopback addresses)"))?;
    Ok(Resource { identifier: resource.to_owned(), scopes: Scopes::new(), url })
}

impl Resource {
    pub(crate) fn new(resource: &str, scopes: &Scopes) -> Option<Self> {
        let resource = parse(resource).ok()?;
        Some(Self { scopes: scopes.clone(), ..resource })
    }

    /// Returns the path of the metadata: the well-known path followed by the path of the resource
    /// (RFC 9728 §3).
    fn metadata_path(&self) -> String {
        format!("{WELL_KNOWN}{}", self.url.path().trim_end_matches('/'))
    }

    /// Returns whether the metadata is served at `path`: the well-known path, alone or followed by the path
    /// of the resource.
    pub(crate) fn has_metadata_at(&self, path: &str) -> bool {
        let rest = path.strip_prefix(WELL_KNOWN).unwrap_or("-");
        rest.is_empty() || rest == self.url.path().trim_end_matches('/')
    }

    /// Returns the URL of the metadata.
    pub(crate) fn metadata_url(&self) -> String {
        let mut url = self.url.clone();
        url.set_path(&self.metadata_path());
        url.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_path_precedes_the_resource_path() {
        let metadata = |resource: &str| parse(resource).map(|it| it.metadata_url()).ok();
        let at = |url: &str| Some(url.to_owned());
        let root = "https://h.example/.well-known/oauth-protected-resource";
        assert_eq!(metadata("https://h.example"), at(root));
        assert_eq!(metadata("https://h.example/"), at(root));
        assert_eq!(metadata("https://h.example/v1/x"), at(&format!("{root}/v1/x")));
        assert!(metadata("http://127.0.0.1:8080").is_some());
        for bad in ["h.example", "http://h.example", "https://h.example?a", "https://h/#b", ""] {
            assert_eq!(metadata(bad), None, "{bad}");
        }
    }
}
