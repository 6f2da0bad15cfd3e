//! What identities are called in answers.

use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::clock::unix_seconds;
use crate::identity::{Identity, IdentityKind};

/// From an identity to its `identity_id`.
pub(super) type Naming = Arc<dyn Fn(&Identity) -> String + Send + Sync>;

/// `user:` and the verified address, else the name to sign in with, else `sub`; `sa:` and
/// `workload:` with `sub`. To be shown, and never to be authorized by: addresses move.
pub(super) fn by_address(identity: &Identity) -> String {
    #[derive(Default, Deserialize)]
    struct Names {
        preferred_username: Option<String>,
    }
    match identity.kind() {
        IdentityKind::User => {
            let verified = identity.email().filter(|_| identity.email_verified());
            let named = || identity.claims::<Names>().unwrap_or_default().preferred_username;
            let name = verified.map(str::to_owned).or_else(named);
            format!("user:{}", name.as_deref().unwrap_or(identity.subject()))
        }
        IdentityKind::ServiceAccount => format!("sa:{}", identity.subject()),
        IdentityKind::Workload => format!("workload:{}", identity.subject()),
    }
}

/// RFC 3339 in UTC, whole seconds: `2026-04-23T13:45:00Z`.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let seconds = unix_seconds(at);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = String::with_capacity(20);
    // Writing into a text cannot fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    text
}

/// The date that is so many days after 1970-01-01. Years begin in March here, so that the leap day
/// is the last; 400 of them have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339_wants() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_776_951_900, "2026-04-23T13:45:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
