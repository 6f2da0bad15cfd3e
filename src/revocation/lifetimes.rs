//! [`Lifetimes`]: how long a revocation lasts that does not say so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::issuer::{IssuerLookup, Issuers, WeakIssuers};

/// The time for tokens of an issuer without a limit.
const UNLIMITED: Duration = Duration::from_secs(24 * 3600);

/// The shortest time. A revocation that ends when it begins would revoke nothing.
const SHORTEST: Duration = Duration::from_secs(60);

/// The longest time, some 136 years. It can be added to the current time.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

pub(super) struct Lifetimes {
    /// The setting.
    setting: Option<Duration>,
    leeway: Duration,
    /// In seconds.
    at_least: AtomicU64,
    services: RwLock<Vec<Service>>,
}

/// A service whose tokens are judged.
struct Service {
    issuers: WeakIssuers,
    /// Whether only the built-in validators accept tokens, so that the limits of the issuers apply to all of them.
    has_limits: bool,
}

impl Lifetimes {
    pub(super) fn new(setting: Option<Duration>, leeway: Duration) -> Self {
        Self { setting, leeway, at_least: AtomicU64::new(0), services: RwLock::default() }
    }

    pub(super) fn at_least(&self, time: Duration) {
        let seconds = time.min(LONGEST).as_secs_f64().ceil() as u64;
        self.at_least.fetch_max(seconds, Ordering::Relaxed);
    }

    pub(super) fn add_service(&self, issuers: &Issuers, has_limits: bool) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service| service.issuers.upgrade().is_some());
        services.push(Service { issuers: issuers.downgrade(), has_limits });
    }

    /// Returns how long a revocation of tokens of this issuer lasts: as long as they can live.
    pub(super) fn of(&self, issuer: &str) -> Duration {
        let limit = self.limit(issuer);
        let lifetime = match self.setting {
            Some(setting) => setting.max(limit.unwrap_or_default()),
            None => limit.unwrap_or(UNLIMITED),
        };
        let at_least = Duration::from_secs(self.at_least.load(Ordering::Relaxed));
        lifetime.max(at_least).clamp(SHORTEST, LONGEST)
    }

    /// Returns the limit for tokens of an issuer, if all services that accept them have one.
    fn limit(&self, issuer: &str) -> Option<Duration> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let mut longest = None;
        for service in services.iter() {
            let Some(issuers) = service.issuers.upgrade() else { continue };
            let limit = match issuers.find(issuer) {
                _ if !service.has_limits => None,
                IssuerLookup::Found(issuer) => issuer.longest_validity(),
                IssuerLookup::NotOpen(..) => None,
                IssuerLookup::Unknown => continue,
            };
            longest = longest.max(Some(limit?.saturating_add(self.leeway)));
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_time_counts() {
        let lifetimes = Lifetimes::new(None, Duration::ZERO);
        assert_eq!(lifetimes.of("https://a"), UNLIMITED);
        for (at_least, expected) in [
            (UNLIMITED / 2, UNLIMITED),
            (UNLIMITED * 2, UNLIMITED * 2),
            (UNLIMITED, UNLIMITED * 2),
            (Duration::MAX, LONGEST),
        ] {
            lifetimes.at_least(at_least);
            assert_eq!(lifetimes.of("https://a"), expected, "{at_least:?}");
        }
        let short = Lifetimes::new(Some(Duration::from_millis(1)), Duration::ZERO);
        assert_eq!(short.of("https://a"), SHORTEST);
        short.at_least(SHORTEST + Duration::from_millis(1));
        assert_eq!(short.of("https://a"), SHORTEST + Duration::from_secs(1), "rounded up");
    }
}
