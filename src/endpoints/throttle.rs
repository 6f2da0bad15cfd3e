//! [`Throttle`]: how often endpoints may be tried.

use std::convert::Infallible;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Endpoint;
use crate::clock::within;
use crate::error::BoxError;
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::retry::{Rate, TokenBucket};
use crate::support::telemetry::{self, Outage};

/// Somebody tries an endpoint.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// Which.
    pub endpoint: Endpoint,
    /// From where, if that is known: see
    /// [`client_address`](super::EndpointsBuilder::client_address).
    pub address: Option<IpAddr>,
    /// On whose account. `None` as an attempt begins, before its body is read; then, where there is an
    /// account, the throttle is asked a second time about the same attempt.
    ///
    /// At `token` it is the user name, folded so that all its spellings are one account
    /// ([`account_of`](super::EndpointsBuilder::account_of)); apart from that the caller chooses it, so
    /// it may be anything. At `introspect` it is the caller: issuer, tenant, kind and subject.
    pub account: Option<&'a str>,
}

impl<'a> Attempt<'a> {
    /// Makes what a throttle is incoming: to test a throttle.
    pub fn of(endpoint: Endpoint, address: Option<IpAddr>, account: Option<&'a str>) -> Self {
        Self { endpoint, address, account }
    }
}

/// Whether an attempt goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleDecision {
    /// It does.
    Allow,
    /// It is one too many, and is answered with 429 and `Retry-After`.
    Deny {
        /// When trying again makes sense. Rounded up to whole seconds, one at least.
        retry_after: Duration,
    },
}

/// Says whether an attempt may go on, so that nobody guesses passwords, codes and tokens
/// (RFC 6749 §4.3.2, §10.10; RFC 7662 §4).
///
/// Given to [`EndpointsBuilder::throttle`](super::EndpointsBuilder::throttle). The default,
/// [`TokenBuckets`], counts in the memory of one process; implement this trait over a store of your own,
/// and all processes count together.
///
/// [`attempt.account`](Attempt::account) is `None` at first, before the body is read. Where the body names
/// an account, the throttle is asked again about the same attempt, with the account. Count the two apart:
/// the address first, then the account.
///
/// EndpointRequest before a body is read, and before the provider or a key is: at first
/// [`try_admit`](Self::try_admit), and [`admit`](Self::admit) where that has no answer. `now` is the
/// monotonic clock's, which other processes do not share: a store counts by a clock of its own.
///
/// If the store fails, or does not answer within a second, this process counts meanwhile, by
/// [`TokenBuckets`] with their default rates, and the log says so once. So an outage neither locks users
/// out nor lets anybody guess without end: with ten processes there are at most ten times as many
/// guesses. To refuse instead, answer [`Deny`](ThrottleDecision::Deny) in place of the error.
///
/// Harmless mistakes: to forget, to count wrong by a few. Attacks: to keep something for each address
/// or account without a bound, since callers choose both; to refuse everybody because of one; to read a
/// count and to write it back in two steps, between which others read it.
///
/// ```
/// use std::time::Duration;
/// use async_trait::async_trait;
/// use scaikey_auth::endpoints::{Attempt, Throttle, ThrottleDecision};
/// use scaikey_auth::error::BoxError;
///
/// # #[derive(Debug)] struct Store;
/// # impl Store { async fn increment(&self, _: String, _: Duration) -> Result<u64, BoxError> { Ok(1) } }
/// const MINUTE: Duration = Duration::from_secs(60);
///
/// /// Ten attempts a minute, counted for all processes.
/// #[derive(Debug)]
/// struct Shared(Store); // of yours: counters that all processes share
///
/// #[async_trait]
/// impl Throttle for Shared {
///     async fn admit(&self, attempt: &Attempt<'_>, _: Duration) -> Result<ThrottleDecision, BoxError> {
///         let who = match (attempt.account, attempt.address) {
///             (Some(account), _) => account.to_owned(),
///             (None, Some(address)) => address.to_string(),
///             (None, None) => return Ok(ThrottleDecision::Allow),
///         };
///         // One step: adds one, and lets a new counter end after a minute.
///         let count = self.0.increment(format!("{}:{who}", attempt.endpoint.as_str()), MINUTE).await?;
///         if count <= 10 {
///             return Ok(ThrottleDecision::Allow);
///         }
///         Ok(ThrottleDecision::Deny { retry_after: MINUTE })
///     }
/// }
///
/// # let auth = scaikey_auth::Auth::builder().issuer("https://scaikey.example").audience("scaiwave");
/// # let auth = auth.build().unwrap();
/// # let store = Store;
/// let endpoints = auth.endpoints().throttle(Shared(store));
/// ```
#[async_trait]
pub trait Throttle: Debug + Send + Sync + 'static {
    /// Counts the attempt if that needs no waiting. `None`, the default, means that nothing was
    /// counted and [`admit`](Self::admit) must be asked.
    fn try_admit(&self, attempt: &Attempt<'_>, now: Duration) -> Option<ThrottleDecision> {
        let _ = (attempt, now);
        None
    }

    /// Counts the attempt.
    ///
    /// # Errors
    /// When the store cannot count. This process then counts by itself.
    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError>;
}

#[async_trait]
impl<T: Throttle + ?Sized> Throttle for Arc<T> {
    fn try_admit(&self, attempt: &Attempt<'_>, now: Duration) -> Option<ThrottleDecision> {
        (**self).try_admit(attempt, now)
    }

    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        (**self).admit(attempt, now).await
    }
}

/// How long an attempt waits for its [`Throttle`].
const TIMEOUT: Duration = Duration::from_secs(1);

/// A throttle, and what counts while it cannot.
#[derive(Debug)]
pub(super) struct ThrottleWithFallback {
    throttle: Box<dyn Throttle>,
    /// Made when the throttle fails for the first time.
    local: OnceLock<TokenBuckets>,
    outage: Outage,
}

impl ThrottleWithFallback {
    pub(super) fn new(throttle: impl Throttle) -> Self {
        let (local, outage) = (OnceLock::new(), Outage::default());
        Self { throttle: Box::new(throttle), local, outage }
    }

    /// Decides about an attempt at `now` of the monotonic clock.
    pub(super) async fn admit(&self, attempt: &Attempt<'_>, now: Duration) -> ThrottleDecision {
        if let Some(decision) = self.throttle.try_admit(attempt, now) {
            return decision;
        }
        let answer = within(TIMEOUT, self.throttle.admit(attempt, now)).await;
        match answer.unwrap_or_else(|| Err("it takes longer than a second".into())) {
            Ok(decision) => {
                if self.outage.ends(|| now) {
                    telemetry::store_recovered("throttle");
                }
                decision
            }
            Err(error) => {
                telemetry::throttle_failed(&*error, self.outage.begins(&error, now));
                self.local.get_or_init(TokenBuckets::new).count(attempt, now)
            }
        }
    }
}

/// Token buckets in the memory of this process, one for each endpoint and address, and one for each
/// endpoint and account. The default.
///
/// | | at once | then one per |
/// |---|---|---|
/// | each address: `login`, `token`, `refresh`, `logout`, `exchange` | 60 | second |
/// | each address, and each caller: `introspect` | 1000 | 10 ms |
/// | each account, [however it is spelt](super::EndpointsBuilder::account_of): `token` | 10 | 30 seconds |
///
/// Addresses are counted before a body is read. `register`, `whoami`, `config` and the metadata, which
/// read none, are not counted.
/// An IPv6 network of 64 bits counts as one address, since whoever has one address has all of it. An
/// address that is not known is not counted: the log says so once, and
/// [`client_address`](super::EndpointsBuilder::client_address) how to find it.
///
/// The last 100,000 are kept, about, and those that were seen again rather than those seen once; a bucket that
/// is forgotten is full when it comes back. That is some 10 MB if callers bring so many addresses. Several
/// processes count each for itself.
#[derive(Debug)]
pub struct TokenBuckets {
    buckets: Bounded<Mac, Arc<Mutex<TokenBucket>>, BuildMacHasher>,
    per_address: Rate,
    per_account: Rate,
    introspections: Rate,
}

const MAX_BUCKETS: usize = 100_000;
const MAX_PERIOD: Duration = Duration::from_secs(3600);

impl Default for TokenBuckets {
    fn default() -> Self {
        Self {
            buckets: bounded(MAX_BUCKETS),
            per_address: Rate::ADDRESS,
            per_account: Rate::ACCOUNT,
            introspections: Rate::INTROSPECTION,
        }
    }
}

impl TokenBuckets {
    /// The default rates.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many attempts at once from each address, and then one per `period`, an
    /// hour at most.
    #[must_use]
    pub fn per_address(mut self, burst: u32, period: Duration) -> Self {
        self.per_address = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    /// So many attempts at once on each account, and then one per `period`, an
    /// hour at most.
    #[must_use]
    pub fn per_account(mut self, burst: u32, period: Duration) -> Self {
        self.per_account = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    /// So many introspections at once from each address and by each caller, and then one per
    /// `period`.
    #[must_use]
    pub fn introspections(mut self, burst: u32, period: Duration) -> Self {
        self.introspections = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    fn take(
        &self,
        kind: &str,
        subject: &[u8],
        endpoint: Endpoint,
        rate: Rate,
        now: Duration,
    ) -> Result<(), Duration> {
        // No kind or endpoint has a NUL in its name.
        let key = [kind.as_bytes(), endpoint.as_str().as_bytes(), subject].join(&0);
        let new = || Ok::<_, Infallible>(Arc::default());
        let Ok(bucket) = self.buckets.get_or_insert_with(&Mac::of(&key), new);
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)
    }
}

impl TokenBuckets {
    fn count(&self, attempt: &Attempt<'_>, now: Duration) -> ThrottleDecision {
        let introspects = attempt.endpoint == Endpoint::Introspect;
        let (kind, subject, rate) = match (attempt.account, attempt.address) {
            // Its address was counted as it began.
            (Some(account), _) => ("account", account.as_bytes().to_vec(), self.per_account),
            (None, Some(address)) => ("address", network(address), self.per_address),
            (None, None) => return ThrottleDecision::Allow,
        };
        let rate = if introspects { self.introspections } else { rate };
        match self.take(kind, &subject, attempt.endpoint, rate, now) {
            Ok(()) => ThrottleDecision::Allow,
            Err(retry_after) => ThrottleDecision::Deny { retry_after },
        }
    }
}

#[async_trait]
impl Throttle for TokenBuckets {
    fn try_admit(&self, attempt: &Attempt<'_>, now: Duration) -> Option<ThrottleDecision> {
        Some(self.count(attempt, now))
    }

    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        Ok(self.count(attempt, now))
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !(u128::MAX >> 64);
            Ipv6Addr::from(prefix).octets().to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt<'a>(endpoint: Endpoint, address: &str, account: Option<&'a str>) -> Attempt<'a> {
        Attempt { endpoint, address: Some(address.parse().unwrap()), account }
    }

    fn admit(buckets: &TokenBuckets, attempt: &Attempt<'_>, now: Duration) -> Result<(), Duration> {
        match buckets.try_admit(attempt, now).unwrap() {
            ThrottleDecision::Allow => Ok(()),
            ThrottleDecision::Deny { retry_after } => Err(retry_after),
        }
    }

    /// As the endpoints ask: at first about the address alone.
    fn admit_with_account(
        buckets: &TokenBuckets,
        whole: &Attempt<'_>,
        now: Duration,
    ) -> Result<(), Duration> {
        admit(buckets, &Attempt { account: None, ..*whole }, now)?;
        if whole.account.is_some() { admit(buckets, whole, now) } else { Ok(()) }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_per_period() {
        let buckets = TokenBuckets::new().per_address(3, SECOND);
        let login = attempt(Endpoint::Login, "192.0.2.1", None);
        let mut now = Duration::from_secs(1000);
        for _ in 0..3 {
            admit(&buckets, &login, now).unwrap();
        }
        assert_eq!(admit(&buckets, &login, now), Err(SECOND));
        // To be refused costs nothing.
        assert_eq!(admit(&buckets, &login, now), Err(SECOND));
        now += SECOND / 2;
        assert_eq!(admit(&buckets, &login, now), Err(SECOND / 2));
        now += SECOND / 2;
        admit(&buckets, &login, now).unwrap();
        assert_eq!(admit(&buckets, &login, now), Err(SECOND));
        now += SECOND * 100;
        for _ in 0..3 {
            admit(&buckets, &login, now).unwrap();
        }
        assert_eq!(
            admit(&buckets, &login, now),
            Err(SECOND),
            "not more than the burst is saved up"
        );
    }

    #[test]
    fn a_period_without_end_is_an_hour() {
        let buckets = TokenBuckets::new().per_address(2, Duration::MAX);
        let login = attempt(Endpoint::Login, "192.0.2.1", None);
        for now in [Duration::ZERO, Duration::ZERO] {
            admit(&buckets, &login, now).unwrap();
        }
        assert_eq!(admit(&buckets, &login, Duration::ZERO), Err(Duration::from_secs(3600)));
        let _ = admit(&buckets, &login, Duration::MAX);
    }

    #[test]
    fn racing_attempts_take_from_one_bucket() {
        for round in 0..50 {
            let buckets = TokenBuckets::new().per_address(10, SECOND);
            let login = attempt(Endpoint::Login, &format!("192.0.2.{round}"), None);
            let start = std::sync::Barrier::new(4);
            let admitted = || {
                start.wait();
                (0..10).filter(|_| admit(&buckets, &login, SECOND).is_ok()).count()
            };
            let admitted: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(admitted)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).sum()
            });
            assert_eq!(admitted, 10);
        }
    }

    #[test]
    fn account_stays_refused_through_a_flood_of_addresses() {
        let (buckets, now) = (TokenBuckets::new(), SECOND);
        let flood = |from: u32| {
            for n in from..from + MAX_BUCKETS as u32 {
                let address = IpAddr::V4(n.into());
                let login =
                    Attempt { endpoint: Endpoint::Login, address: Some(address), account: None };
                admit(&buckets, &login, now).unwrap();
            }
        };
        flood(0);
        let alice = attempt(Endpoint::Token, "192.0.2.1", Some("alice"));
        while admit(&buckets, &alice, now).is_ok() {}
        flood(1 << 24);
        admit(&buckets, &alice, now).unwrap_err();
    }

    #[test]
    fn others_are_not_refused_because_of_one() {
        let buckets = TokenBuckets::new().per_address(1, SECOND).per_account(2, SECOND);
        let now = Duration::from_secs(1);
        let once = |attempt: Attempt<'_>| admit_with_account(&buckets, &attempt, now);
        once(attempt(Endpoint::Token, "192.0.2.1", Some("alice"))).unwrap();
        once(attempt(Endpoint::Token, "192.0.2.1", Some("bob"))).unwrap_err();
        once(attempt(Endpoint::Login, "192.0.2.1", None)).unwrap();
        once(attempt(Endpoint::Token, "::ffff:192.0.2.1", None)).unwrap_err();
        once(attempt(Endpoint::Token, "2001:db8::1", Some("alice"))).unwrap();
        once(attempt(Endpoint::Token, "2001:db8::ffff:2", None)).unwrap_err();
        once(attempt(Endpoint::Token, "2001:db8:0:1::1", Some("alice"))).unwrap_err();
        once(attempt(Endpoint::Token, "2001:db8:0:2::1", Some("bob"))).unwrap();
    }
}
