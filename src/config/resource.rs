//! [`Resource`]: what clients call this service, and where they find its metadata (RFC 9728).

use url::Url;

use super::{Fault, is_loopback};
use crate::identity::Scopes;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A resource identifier and the places of its metadata.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// As configured: it is compared byte for byte.
    pub(crate) identifier: String,
    /// What clients may ask for.
    pub(crate) scopes: Scopes,
    url: Url,
}

/// Whether it can be a resource identifier: `https` without query and fragment (RFC 9728 §1.2), or
/// `http` on this machine, for development.
pub(super) fn check(resource: &str) -> Result<Resource, Fault> {
    let url = Url::parse(resource).ok().filter(|url| {
        let scheme = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
        scheme && url.query().is_none() && url.fragment().is_none()
    });
    let url = url.ok_or_else(|| Fault::new("resource", "is not an https URL without a query"))?;
    Ok(Resource { identifier: resource.to_owned(), scopes: Scopes::new(), url })
}

impl Resource {
    pub(crate) fn new(resource: &str, scopes: &Scopes) -> Option<Self> {
        let resource = check(resource).ok()?;
        Some(Self { scopes: scopes.clone(), ..resource })
    }

    /// The path of the metadata: the well-known part stands in front of the resource's own
    /// (RFC 9728 §3).
    fn metadata_path(&self) -> String {
        format!("{WELL_KNOWN}{}", self.url.path().trim_end_matches('/'))
    }

    /// Whether a path is where the metadata is looked for: in front of the resource's own path, or
    /// at the root.
    pub(crate) fn has_metadata_at(&self, path: &str) -> bool {
        let own = path.strip_prefix(WELL_KNOWN).unwrap_or("-");
        own.is_empty() || own == self.url.path().trim_end_matches('/')
    }

    /// The URL of the metadata.
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
    fn the_metadata_is_in_front_of_the_path_of_the_resource() {
        let metadata = |resource: &str| check(resource).map(|it| it.metadata_url()).ok();
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
