//! Policies to begin with, one for each platform (feature `trust`).
//!
//! Each is a text with gaps in angle brackets, to be copied and filled in. None can be used as it
//! is: the linter names every gap that is left.
//!
//! ```
//! use scaikey_auth::trust::{TrustPolicy, presets};
//!
//! let refused = TrustPolicy::from_toml(presets::github_actions()).unwrap_err();
//! assert!(refused.to_string().contains("placeholder <the repository's number>"));
//! ```

/// A Kubernetes cluster of your own: tokens of service accounts, by namespace and name.
pub const fn kubernetes() -> &'static str {
    include_str!("presets/kubernetes.toml")
}

/// A cluster of Amazon EKS.
pub const fn eks() -> &'static str {
    include_str!("presets/eks.toml")
}

/// A cluster of Google Kubernetes Engine.
pub const fn gke() -> &'static str {
    include_str!("presets/gke.toml")
}

/// A cluster of Azure Kubernetes Service.
pub const fn aks() -> &'static str {
    include_str!("presets/aks.toml")
}

/// GitHub Actions: jobs of a repository, by its number.
pub const fn github_actions() -> &'static str {
    include_str!("presets/github_actions.toml")
}

/// AWS: principals of an account, by ARN (IAM outbound identity federation).
pub const fn aws() -> &'static str {
    include_str!("presets/aws.toml")
}

/// Google Cloud: service accounts, by number.
pub const fn gcp() -> &'static str {
    include_str!("presets/gcp.toml")
}

/// Azure: managed identities, by object id.
pub const fn azure() -> &'static str {
    include_str!("presets/azure.toml")
}

/// Every preset, by name.
pub const ALL: [(&str, &str); 8] = [
    ("kubernetes", kubernetes()),
    ("eks", eks()),
    ("gke", gke()),
    ("aks", aks()),
    ("github_actions", github_actions()),
    ("aws", aws()),
    ("gcp", gcp()),
    ("azure", azure()),
];
