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
    /// The longest lifetime of browser sessions, in seconds.
    sessions: AtomicU64,
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
        Self { setting, leeway, sessions: AtomicU64::new(0), services: RwLock::default() }
    }

    /// Adds browser sessions that live so long. Returns whether that is longer than before.
    pub(super) fn add_sessions(&self, time: Duration) -> bool {
        let seconds = time.min(LONGEST).as_secs_f64().ceil() as u64;
        self.sessions.fetch_max(seconds, Ordering::Relaxed) < seconds
    }

    pub(super) fn add_service(&self, issuers: &Issuers, has_limits: bool) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service| service.issuers.upgrade().is_some());
        services.push(Service { issuers: issuers.downgrade(), has_limits });
    }

    /// Returns how long a revocation of tokens of this issuer and of sessions lasts: as long as they can live.
    pub(super) fn of_sessions(&self, issuer: &str) -> Duration {
        let sessions = Duration::from_secs(self.sessions.load(Ordering::Relaxed));
        self.of_tokens(issuer).max(sessions)
    }

    /// Returns how long a revocation of tokens only lasts.
    pub(super) fn of_tokens(&self, issuer: &str) -> Duration {
        let limit = self.limit(issuer);
        let lifetime = match self.setting {
            Some(setting) => setting.max(limit.unwrap_or_default()),
            None => limit.unwrap_or(UNLIMITED),
        };
        lifetime.clamp(SHORTEST, LONGEST)
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
        assert_eq!(lifetimes.of_sessions("https://a"), UNLIMITED);
        for (sessions, expected) in [
            (UNLIMITED / 2, UNLIMITED),
            (UNLIMITED * 2, UNLIMITED * 2),
            (UNLIMITED, UNLIMITED * 2),
            (Duration::MAX, LONGEST),
        ] {
            lifetimes.add_sessions(sessions);
            assert_eq!(lifetimes.of_sessions("https://a"), expected, "{sessions:?}");
        }
        assert_eq!(lifetimes.of_tokens("https://a"), UNLIMITED);
        let short = Lifetimes::new(Some(Duration::from_millis(1)), Duration::ZERO);
        assert_eq!(short.of_sessions("https://a"), SHORTEST);
        short.add_sessions(SHORTEST + Duration::from_millis(1));
        assert_eq!(short.of_sessions("https://a"), SHORTEST + Duration::from_secs(1), "rounded up");
    }
}
