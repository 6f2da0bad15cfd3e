//! Lengths of time and dates, as a policy writes them.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// A length of time: `90s`, `15m`, `1h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) struct Period(pub(super) Duration);

impl Period {
    pub(super) const fn hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let unit = match text.chars().last()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return None,
        };
        let number = text.get(..text.len() - 1)?;
        let is_plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let seconds = number.parse::<u64>().ok().filter(|_| is_plain)?.checked_mul(unit)?;
        Some(Self(Duration::from_secs(seconds)))
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A moment in UTC, as written: a day, which then counts to its end, or a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    text: String,
    /// The first moment that is later.
    pub(super) end: SystemTime,
}

impl Moment {
    /// `2027-06-30` or `2027-06-30T12:00:00Z`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = match text.split_once(['T', 't', ' ']) {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let [year, month, day] = numbers::<3>(date, '-', [4, 2, 2])?;
        let days = days_since_1970(year, month, day)?;
        let seconds = match time {
            None => (days + 1) * 24 * 3600,
            Some(time) => {
                let time = time.strip_suffix(['Z', 'z'])?;
                let [hour, minute, second] = numbers::<3>(time, ':', [2, 2, 2])?;
                let valid = hour < 24 && minute < 60 && second < 60;
                valid.then_some(days * 24 * 3600 + hour * 3600 + minute * 60 + second)?
            }
        };
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(Self { text: text.to_owned(), end })
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

/// As many numbers as there are widths, each of its width.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width)?;
        *number = part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()))?;
    }
    parts.next().is_none().then_some(numbers)
}

/// In the Gregorian calendar; from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |month: u64| match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    };
    let exists = year >= 1970 && (1..=12).contains(&month) && (1..=length(month)).contains(&day);
    let years =
        |year: u64| (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>();
    exists.then(|| years(year) + (1..month).map(length).sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix_seconds;

    #[test]
    fn periods_are_a_number_and_a_unit() {
        let seconds = |text| Period::parse(text).map(|period| period.0.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("15m"), Some(900));
        assert_eq!(seconds("1h"), Some(3600));
        assert_eq!(seconds("2d"), Some(172_800));
        for text in ["", "h", "1", "1.5h", "-1h", "+1h", "1 h", "1w", "99999999999999999999h", "1é"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_day_counts_to_its_end_and_a_second_to_itself() {
        let end = |text| Moment::parse(text).map(|moment| unix_seconds(moment.end));
        assert_eq!(end("1970-01-01"), Some(86_400));
        assert_eq!(end("2027-06-30"), Some(1_814_400_000));
        assert_eq!(end("2024-02-29"), Some(1_709_251_200));
        assert_eq!(end("2026-05-16T13:51:07Z"), Some(1_778_939_467));
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
        ] {
            assert_eq!(end(text), None, "{text}");
        }
    }
}
