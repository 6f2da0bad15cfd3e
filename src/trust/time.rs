//! Periods and dates in the formats of a policy.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// A period of time in a policy: `90s`, `15m`, `1h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) struct Period(pub(super) Duration);

impl Period {
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Parses one number and one unit. `humantime` alone would accept more, such as `1M` for a
    /// month.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix(['s', 'm', 'h', 'd'])?;
        let is_number = number.bytes().all(|b| b.is_ascii_digit());
        humantime::parse_duration(text).ok().filter(|_| is_number).map(Self)
    }
}

/// Writes the longest unit that gives a whole number.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(24 * 3600, 'd'), (3600, 'h'), (60, 'm')];
        let is_whole = |(length, _): &(u64, char)| seconds > 0 && seconds.is_multiple_of(*length);
        let (length, unit) = units.into_iter().find(is_whole).unwrap_or((1, 's'));
        write!(f, "{}{unit}", seconds / length)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The end of a trust, in UTC: a date, which includes the whole day, or a time to the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Expiry {
    text: String,
    /// The first instant after the end.
    #[serde(skip)]
    pub(super) end: SystemTime,
}

impl Expiry {
    /// Returns the date as it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Parses `2027-06-30` or `2027-06-30T12:00:00Z`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = match text.len() {
            10 => {
                let last_second = humantime::parse_rfc3339(&format!("{text}T23:59:59Z")).ok()?;
                last_second.checked_add(Duration::from_secs(1))?
            }
            // Rejects fractions of a second and leap seconds, which `humantime` would accept.
            20 if text.get(17..19) != Some("60") => {
                let normalised = text.to_ascii_uppercase().replace(' ', "T");
                humantime::parse_rfc3339(&normalised).ok()?
            }
            _ => return None,
        };
        Some(Self { text: text.to_owned(), end })
    }
}

/// The last second that RFC 3339 can express.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Formats a time in UTC with nanoseconds (RFC 3339), so that texts sort by time. A time outside the years 1970 to
/// 9999 becomes the nearest one within.
pub(crate) fn to_rfc3339(at: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + LAST_SECOND;
    humantime::format_rfc3339_nanos(at.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// Parses a time in the format of [`to_rfc3339`].
pub(crate) fn from_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// Serialises a time as in RFC 3339, in UTC and whole seconds.
pub(super) fn rfc3339<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let last = SystemTime::UNIX_EPOCH + LAST_SECOND;
    to.collect_str(&humantime::format_rfc3339_seconds((*at).clamp(SystemTime::UNIX_EPOCH, last)))
}

/// Serialises a time as [`rfc3339`] does, if there is one.
pub(super) fn optional_rfc3339<S: Serializer>(
    at: &Option<SystemTime>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_survives_formatting() {
        let since = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        for nanos in [0, 1, 999_999_999, 1_778_939_467_000_000_000, 1_778_939_467_123_456_789] {
            assert_eq!(from_rfc3339(&to_rfc3339(since(nanos))), Some(since(nanos)));
        }
        assert_eq!(to_rfc3339(since(1_500_000_000)), "1970-01-01T00:00:01.500000000Z");
        let far = SystemTime::UNIX_EPOCH + LAST_SECOND;
        assert_eq!(to_rfc3339(far + Duration::from_secs(7)), to_rfc3339(far));
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(7);
        assert_eq!(to_rfc3339(before), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(from_rfc3339("yesterday"), None);
    }

    use crate::clock::unix_seconds;

    #[test]
    fn period_is_number_and_unit() {
        let seconds = |text| Period::parse(text).map(|period| period.0.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("15m"), Some(900));
        assert_eq!(seconds("1h"), Some(3600));
        assert_eq!(seconds("2d"), Some(172_800));
        for text in
            ["", "h", "1", "1.5h", "-1h", "+1h", "1 h", "1w", "1M", "99999999999999999999h", "1é"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn date_includes_its_whole_day() {
        let end = |text| Expiry::parse(text).map(|expiry| unix_seconds(expiry.end));
        assert_eq!(end("1970-01-01"), Some(86_400));
        assert_eq!(end("2027-06-30"), Some(1_814_400_000));
        assert_eq!(end("2024-02-29"), Some(1_709_251_200));
        for text in ["2026-05-16T13:51:07Z", "2026-05-16t13:51:07z", "2026-05-16 13:51:07Z"] {
            assert_eq!(end(text), Some(1_778_939_467), "{text}");
        }
        assert_eq!(end("9999-12-31"), Some(253_402_300_800));
        for text in [
            "",
            "2027",
            "2027-6-30",
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-06-31",
            "1969-12-31",
            "2027-06-30T12:00:00",
            "2027-06-30T12:00:00+01:00",
            "2027-06-30T24:00:00Z",
            "30.06.2027",
            "2027-06-3é",
            "2027-06-30T",
            "2027-06-30T12:00:00.Z",
            "2027-06-30T12:00:00.5Z",
            "2027-06-30T12:00:00.123456789Z",
            "2027-06-30T23:59:60Z",
            "2027-06-30T12:00:0.Z",
        ] {
            assert_eq!(end(text), None, "{text}");
        }
    }
}
