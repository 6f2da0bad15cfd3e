//! Presets: policies with placeholders, one for each platform (feature `trust`).
//!
//! Copy a preset and replace its placeholders, which are in angle brackets. A policy with
//! placeholders is rejected, and the error names each of them.
//!
//! ```
//! use scaikey_auth::trust::{TrustPolicy, presets};
//!
//! let rejected = TrustPolicy::from_toml(presets::github_actions()).unwrap_err();
//! assert!(rejected.to_string().contains("placeholder <the repository's number>"));
//! ```

/// Returns the preset for a self-hosted Kubernetes cluster. It matches service accounts by
/// namespace and name.
pub const fn kubernetes() -> &'static str {
    include_str!("presets/kubernetes.toml")
}

/// Returns the preset for a cluster of Amazon EKS. It matches service accounts by namespace and
/// name.
pub const fn eks() -> &'static str {
    include_str!("presets/eks.toml")
}

/// Returns the preset for a cluster of Google Kubernetes Engine. It matches service accounts by
/// namespace and name.
pub const fn gke() -> &'static str {
    include_str!("presets/gke.toml")
}

/// Returns the preset for a cluster of Azure Kubernetes Service. It matches service accounts by
/// namespace and name.
pub const fn aks() -> &'static str {
    include_str!("presets/aks.toml")
}

/// Returns the preset for GitHub Actions. It matches the jobs of a repository by the repository's
/// numeric id.
pub const fn github_actions() -> &'static str {
    include_str!("presets/github_actions.toml")
}

/// Returns the preset for GitLab CI/CD. It matches the jobs of a project, on one protected branch, by the
/// project's numeric id.
pub const fn gitlab() -> &'static str {
    include_str!("presets/gitlab.toml")
}

/// Returns the preset for AWS (IAM outbound identity federation). It matches principals by ARN.
pub const fn aws() -> &'static str {
    include_str!("presets/aws.toml")
}

/// Returns the preset for Google Cloud. It matches service accounts by numeric id.
pub const fn gcp() -> &'static str {
    include_str!("presets/gcp.toml")
}

/// Returns the preset for Azure. It matches managed identities by object id.
pub const fn azure() -> &'static str {
    include_str!("presets/azure.toml")
}

/// Returns the preset for a SPIFFE trust domain, such as one of SPIRE. It matches the JWT-SVIDs of
/// workloads by SPIFFE ID.
pub const fn spiffe() -> &'static str {
    include_str!("presets/spiffe.toml")
}

/// All presets, by name.
pub const ALL: [(&str, &str); 10] = [
    ("kubernetes", kubernetes()),
    ("eks", eks()),
    ("gke", gke()),
    ("aks", aks()),
    ("github_actions", github_actions()),
    ("gitlab", gitlab()),
    ("aws", aws()),
    ("gcp", gcp()),
    ("azure", azure()),
    ("spiffe", spiffe()),
];
