//! The paths below `trusts`, each with its methods and the limit of its bodies.

use http::Method;

use super::page::PageFile;
use crate::trust::TrustPolicy;

/// The limit of a body without a policy.
const MAX_PARAMETERS_BYTES: usize = 64 * 1024;

/// A path below `trusts`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    Policy,
    Lint,
    Explain,
    DryRun,
    Decisions,
    History,
    Version(u64),
    Rollback,
    Presets,
    Page(&'static PageFile),
}

impl Route {
    /// Returns the route of a path, which is what follows `trusts`.
    pub(super) fn find(rest: &str) -> Option<Self> {
        Some(match rest {
            "" => Self::Policy,
            "/lint" => Self::Lint,
            "/explain" => Self::Explain,
            "/dry_run" => Self::DryRun,
            "/decisions" => Self::Decisions,
            "/history" => Self::History,
            "/rollback" => Self::Rollback,
            "/presets" => Self::Presets,
            _ => match rest.strip_prefix("/history/") {
                Some(number) => Self::Version(version_number(number)?),
                None => Self::Page(PageFile::find(rest)?),
            },
        })
    }

    /// Returns the value of the `Allow` header (RFC 9110 §10.2.1).
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Policy => "GET, HEAD, PUT",
            Self::Decisions | Self::History | Self::Version(_) | Self::Presets | Self::Page(_) => {
                "GET, HEAD"
            }
            Self::Lint | Self::Explain | Self::DryRun | Self::Rollback => "POST",
        }
    }

    pub(super) fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Returns the limit of the body, or `None` if the body is not read. Requests without a body are not throttled here:
    /// most cost little, and the page repeats them.
    pub(super) fn max_body(self, method: &Method) -> Option<usize> {
        match self {
            _ if matches!(*method, Method::GET | Method::HEAD) => None,
            // The JSON string of a policy may be twice as long as the policy.
            Self::Explain => Some(2 * TrustPolicy::MAX_TEXT_BYTES + MAX_PARAMETERS_BYTES),
            Self::Rollback => Some(MAX_PARAMETERS_BYTES),
            _ => Some(TrustPolicy::MAX_TEXT_BYTES),
        }
    }
}

/// Parses the number of a version, which has one spelling.
fn version_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}
