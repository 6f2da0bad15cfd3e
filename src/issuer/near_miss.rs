//! [`NearMiss`]: an `iss` that differs from a configured issuer only by a trailing slash or by its scheme.

/// The difference between an issuer and the configured one. Issuers are compared exactly, so tokens of the other
/// issuer are refused; the difference is easily overlooked, so it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NearMiss {
    /// It has a trailing slash.
    Slash,
    /// It lacks the trailing slash.
    NoSlash,
    /// It has `http` instead of `https`.
    Http,
    /// It has `https` instead of `http`.
    Https,
}

impl NearMiss {
    pub(super) const ALL: [Self; 4] = [Self::Slash, Self::NoSlash, Self::Http, Self::Https];

    /// Returns the configured issuer that `iss` misses in this way.
    pub(super) fn configured(self, iss: &str) -> Option<String> {
        match self {
            Self::Slash => iss.strip_suffix('/').map(str::to_owned),
            Self::NoSlash => Some(format!("{iss}/")),
            Self::Http => iss.strip_prefix("http://").map(|rest| format!("https://{rest}")),
            Self::Https => iss.strip_prefix("https://").map(|rest| format!("http://{rest}")),
        }
    }

    /// Returns the issuer that misses the configured one in this way. It contains only text of the
    /// configuration, so it may be logged.
    pub(super) fn spelled(self, configured: &str) -> String {
        let inverse = match self {
            Self::Slash => Self::NoSlash,
            Self::NoSlash => Self::Slash,
            Self::Http => Self::Https,
            Self::Https => Self::Http,
        };
        inverse.configured(configured).unwrap_or_default()
    }

    /// Returns the way in which `iss` misses the configured issuer, if it does.
    pub(super) fn between(configured: &str, iss: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|miss| miss.configured(iss).as_deref() == Some(configured))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slash_or_scheme_is_a_near_miss() {
        let https = "https://a.example";
        for (iss, miss) in [
            ("https://a.example/", Some(NearMiss::Slash)),
            ("http://a.example", Some(NearMiss::Http)),
            ("https://a.example", None),
            ("http://a.example/", None),
            ("https://A.example", None),
            ("", None),
        ] {
            assert_eq!(NearMiss::between(https, iss), miss, "{iss}");
            assert!(miss.is_none_or(|miss| miss.spelled(https) == iss));
        }
        assert_eq!(NearMiss::between("https://a/", "https://a"), Some(NearMiss::NoSlash));
        assert_eq!(NearMiss::between("http://a", "https://a"), Some(NearMiss::Https));
        assert_eq!(NearMiss::Https.spelled("http://a"), "https://a");
    }
}
