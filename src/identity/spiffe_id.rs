//! SPIFFE IDs: the names of workloads in a trust domain (SPIFFE-ID §2).

/// The scheme with its separator.
const SCHEME: &str = "spiffe://";

/// The maximum length of an id, and of the name of a trust domain, in bytes (SPIFFE-ID §2.3).
const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

/// Returns the trust domain of a workload's id, with the scheme: `spiffe://prod.example` for
/// `spiffe://prod.example/ns/reports`. Returns `None` if the id is not valid, or has no path: it would name the
/// trust domain, not a workload.
///
/// The form is the strict one of SPIFFE-ID §2, so that two ids never differ only in their spelling: scheme and
/// trust domain in lower case, no user, port, query, fragment or percent-encoding, and no empty, `.` or `..`
/// segment.
pub(crate) fn trust_domain(id: &str) -> Option<&str> {
    let (name, path) = id.strip_prefix(SCHEME)?.split_once('/')?;
    let is_valid = id.len() <= MAX_ID && is_trust_domain(name) && path.split('/').all(is_segment);
    id.get(..SCHEME.len() + name.len()).filter(|_| is_valid)
}

/// Returns whether this is the name of a trust domain, without a scheme.
#[cfg_attr(not(feature = "trust"), allow(dead_code))]
pub(crate) fn is_trust_domain(name: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    (1..=MAX_TRUST_DOMAIN).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn is_segment(segment: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_strict_ids_name_a_workload() {
        for (id, expected) in [
            ("spiffe://td/ns/reports/sa/reporter", Some("spiffe://td")),
            ("spiffe://prod-1.acme_2.example/A.b-C_d", Some("spiffe://prod-1.acme_2.example")),
            ("spiffe://td/...", Some("spiffe://td")),
            ("spiffe://td/a..b", Some("spiffe://td")),
            ("", None),
            ("td/a", None),
            ("spiffe:td/a", None),
            ("spiffe:/td/a", None),
            ("SPIFFE://td/a", None),
            ("Spiffe://td/a", None),
            ("https://td/a", None),
            (" spiffe://td/a", None),
            ("spiffe://td", None),
            ("spiffe://td/", None),
            ("spiffe:///a", None),
            ("spiffe://TD/a", None),
            ("spiffe://td./a", Some("spiffe://td.")),
            ("spiffe://user@td/a", None),
            ("spiffe://td:443/a", None),
            ("spiffe://td:/a", None),
            ("spiffe://[::1]/a", None),
            ("spiffe://t%64/a", None),
            ("spiffe://tд/a", None),
            ("spiffe://td/a?b", None),
            ("spiffe://td/a#b", None),
            ("spiffe://td?a/b", None),
            ("spiffe://td#a/b", None),
            ("spiffe://td/a%2Fb", None),
            ("spiffe://td/%2e%2e/a", None),
            ("spiffe://td//a", None),
            ("spiffe://td/a//b", None),
            ("spiffe://td/a/", None),
            ("spiffe://td/./a", None),
            ("spiffe://td/a/..", None),
            ("spiffe://td/a/../b", None),
            ("spiffe://td/a b", None),
            ("spiffe://td/a\n", None),
            ("spiffe://td/é", None),
            ("spiffe://td/a*", None),
            ("spiffe://td\\evil/a", None),
        ] {
            assert_eq!(trust_domain(id), expected, "{id:?}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let id = |name: usize, all: usize| {
            let start = format!("spiffe://{}/", "t".repeat(name));
            let path = "p".repeat(all - start.len());
            trust_domain(&format!("{start}{path}")).is_some()
        };
        assert!(id(2, 2048) && !id(2, 2049));
        assert!(id(255, 300) && !id(256, 300));
    }

    proptest! {
        #[test]
        fn trust_domain_begins_the_id(id in "(spiffe:/{1,3})?[a-zA-Z0-9._:@%?#/-]{0,20}") {
            if let Some(domain) = trust_domain(&id) {
                let rest = id.strip_prefix(domain);
                prop_assert!(rest.is_some_and(|rest| rest.starts_with('/') && rest.len() > 1));
                prop_assert!(domain.strip_prefix("spiffe://").is_some_and(is_trust_domain));
            }
        }
    }
}
