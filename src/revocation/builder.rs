//! [`RevocationsBuilder`].

use std::sync::{Arc, RwLock};
use std::time::Duration;

use super::following::Following;
use super::index::Index;
use super::lifetimes::Lifetimes;
use super::log::RevocationLog;
use super::{Inner, Revocations};
use crate::clock::{Clock, SystemClock};

/// The default of [`RevocationsBuilder::max_entries`].
const MAX_ENTRIES: usize = 1_000_000;

/// The default of [`RevocationsBuilder::leeway`].
const LEEWAY: Duration = Duration::from_secs(5);

/// The default of [`RevocationsBuilder::check_every`].
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// The shortest and the longest time between two reads of the log.
const PERIODS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3600));

/// The shortest value of [`RevocationsBuilder::refuse_after`]. Between two reads, a process may append what the log
/// lacks, and remove what has ended.
const SHORTEST_LIMIT: Duration = Duration::from_secs(5);

/// A builder for [`Revocations`].
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::Auth;
/// use scaikey_auth::revocation::Revocations;
///
/// let revocations = Revocations::builder().token_lifetime(Duration::from_secs(3600)).build();
/// let auth = Auth::builder().revocations(revocations);
/// ```
#[derive(Debug)]
#[must_use = "nothing is revoked before `build()`"]
pub struct RevocationsBuilder {
    max_entries: usize,
    token_lifetime: Option<Duration>,
    leeway: Duration,
    log: Option<Arc<dyn RevocationLog>>,
    check_every: Duration,
    refuse_after: Option<Duration>,
    clock: Option<Arc<dyn Clock>>,
}

impl Default for RevocationsBuilder {
    fn default() -> Self {
        Self {
            max_entries: MAX_ENTRIES,
            token_lifetime: None,
            leeway: LEEWAY,
            log: None,
            check_every: CHECK_EVERY,
            refuse_after: None,
            clock: None,
        }
    }
}

impl RevocationsBuilder {
    /// Sets the log through which all processes of the service share revocations, such as `RedisRevocations` (feature
    /// `redis`). Default: none; then revocations are in force in this process only, until it ends.
    ///
    /// A task follows the log. The first request starts it, or [`Auth::ready`](crate::Auth::ready), which waits until
    /// the history of the log is read. The first requests wait for that, too, but for 2 s at most. It needs a tokio
    /// runtime.
    ///
    /// ```
    /// use scaikey_auth::Auth;
    /// use scaikey_auth::revocation::{RevocationLog, Revocations};
    ///
    /// fn builder(log: impl RevocationLog) -> scaikey_auth::AuthBuilder {
    ///     let revocations = Revocations::builder().log(log).build();
    ///     Auth::builder().issuer("https://scaikey.example").audience("docs").revocations(revocations)
    /// }
    /// ```
    pub fn log(mut self, log: impl RevocationLog) -> Self {
        self.log = Some(Arc::new(log));
        self
    }

    /// Sets the time between two reads of the log, in real time. Default: 250 ms; at least 10 ms and at most an hour:
    /// other values count as the nearest of these. It is how late another process refuses a token.
    pub fn check_every(mut self, period: Duration) -> Self {
        self.check_every = period.clamp(PERIODS.0, PERIODS.1);
        self
    }

    /// Refuses all requests with 503 when the log has not answered for this long, or was not read to its end since the
    /// process started. While a long history is read, each part of it counts. Default: never; then requests are judged
    /// by the revocations that are known here.
    ///
    /// At least 5 s, and four times [`check_every`](Self::check_every): a shorter time counts as the longer of these.
    ///
    /// **The price:** an outage of the log is one of the service. Choose it if a revoked token must not be accepted
    /// during an outage.
    pub fn refuse_after(mut self, period: Duration) -> Self {
        self.refuse_after = Some(period);
        self
    }

    /// Sets the largest number of entries. Default: 1,000,000, which take some 60 MB.
    ///
    /// A revocation is one entry; that of a session [of a subject](super::Revocation::of_subject) is two. When the
    /// index is full, entries of sessions and tokens with a subject are merged into one of the subject, which then
    /// refuses *all* its tokens that were issued until now. What that loses: the entry of a session refuses its tokens
    /// whatever their `iat`, the merged one only those that were issued until the merge. If that does not help,
    /// [`revoke`](Revocations::revoke) fails. No entry is forgotten early.
    ///
    /// From 10,000 entries on, room is made on another thread, because that takes up to a second for a million.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets the longest lifetime of the tokens that the service accepts. A revocation is forgotten after this time.
    /// Default: the [`max_token_lifetime`](crate::IssuerConfig::max_token_lifetime) of the issuer and the time by which
    /// clocks may differ; for an issuer without this limit, and for a service with validators of its own, 24 h.
    ///
    /// At least one minute, the limit of the issuer, and, unless a single [token](super::Revocation::token) is revoked,
    /// the lifetime of browser sessions: a shorter time counts as the longest of these. Services that share a log
    /// may differ in it: each applies its own to what it reads.
    ///
    /// **A token that lives longer is accepted again** when its revocation is forgotten. To be sure, limit the
    /// lifetime with [`IssuerConfig::max_token_lifetime`](crate::IssuerConfig::max_token_lifetime).
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = Some(lifetime);
        self
    }

    /// Sets how much the clocks of this service and of its issuers may differ. Default: 5 s.
    ///
    /// It is in favour of refusing: tokens that were issued up to this long after a revocation are refused, too. A
    /// user who signs in again during that time has to sign in once more.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets the clock. Default: the system clock.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.shared_clock(Arc::new(clock))
    }

    pub(crate) fn shared_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds the revocations. None is in force yet. Does no I/O.
    pub fn build(self) -> Revocations {
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let every = self.check_every;
        let limit = self.refuse_after.map(|limit| limit.max(SHORTEST_LIMIT).max(every * 4));
        let following = self.log.map(|log| Following::new(log, every, limit, clock.elapsed()));
        let index = Index::new(self.max_entries);
        index.set_flag(following.as_ref().map_or(0, Following::flags));
        let leeway = self.leeway.as_millis().div_ceil(1000);
        Revocations(Arc::new(Inner {
            index,
            clock,
            lifetimes: Lifetimes::new(self.token_lifetime, self.leeway),
            leeway: u64::try_from(leeway).unwrap_or(u64::MAX),
            following,
            listeners: RwLock::default(),
        }))
    }
}
