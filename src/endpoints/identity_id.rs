//! `identity_id`, the displayed identifier of an identity, and timestamps in responses.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::unix_seconds;
use crate::identity::{Identity, IdentityKind};

/// 9999-12-31T23:59:59Z, the last second with a four-digit year.
const MAX_UNIX_SECONDS: u64 = 253_402_300_799;

/// A function from an identity to its `identity_id`.
pub(super) type IdentityIdRule = Arc<dyn Fn(&Identity) -> String + Send + Sync>;

/// Returns the displayed identifier: `user:` with the verified address (or with `sub` if there is
/// none), `sa:` with `sub`, or `workload:` with `sub`. For display only, not for authorization:
/// addresses change owners, and another issuer may verify the same address.
///
/// Unique per issuer and tenant: an address contains `@`, and `@` in a user's `sub` is encoded.
pub(super) fn default_identity_id(identity: &Identity) -> String {
    let subject = identity.subject();
    match identity.kind() {
        IdentityKind::User => {
            let verified = identity.email().filter(|_| identity.email_verified());
            match verified.filter(|address| is_address(address)) {
                Some(address) => format!("user:{address}"),
                None => format!("user:{}", percent_encode(subject, true)),
            }
        }
        IdentityKind::ServiceAccount => format!("sa:{}", percent_encode(subject, false)),
        IdentityKind::Workload => format!("workload:{}", percent_encode(subject, false)),
    }
}

/// Returns whether the text looks like an address: text on both sides of an `@`, and no invisible
/// characters.
fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
        && text.chars().all(is_visible)
}

/// Percent-encodes `%`, invisible characters, and `@` if `encode_at`.
fn percent_encode(text: &str, encode_at: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for character in text.chars() {
        if is_visible(character) && character != '%' && !(encode_at && character == '@') {
            encoded.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Returns whether a character is visible: alphanumeric or printable ASCII. Spaces, direction marks
/// and joiners are not.
fn is_visible(character: char) -> bool {
    character.is_ascii_graphic() || character.is_alphanumeric()
}

/// Formats a time as RFC 3339 in UTC, with whole seconds: `2026-04-23T13:45:00Z`. Clamps to the
/// years 1970 to 9999.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let seconds = Duration::from_secs(unix_seconds(at).min(MAX_UNIX_SECONDS));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_776_951_900, "2026-04-23T13:45:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
