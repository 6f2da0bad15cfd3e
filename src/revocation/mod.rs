//! Revocation: tokens, sessions and users whose tokens are refused although they have not expired.
//!
//! A signed token is valid until it expires, whatever happens at its issuer. [`Revocations`] refuse it earlier. Each
//! [`Auth`](crate::Auth) has them, in [`Auth::revocations`](crate::Auth::revocations):
//!
//! ```
//! use scaikey_auth::Auth;
//! use scaikey_auth::revocation::Revocation;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let auth = Auth::builder().issuer("https://scaikey.example").audience("docs").build()?;
//! auth.revocations().revoke(Revocation::subject("https://scaikey.example", "alice")).await?;
//! # Ok(()) }
//! ```

mod event;
mod index;
mod key;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use event::Revocation;

use crate::admission::{Admission, AdmissionCheck, AdmissionRequest};
use crate::clock::{Clock, SystemClock, unix_seconds, unix_time};
use crate::error::{AuthError, BoxError, InvalidToken};
use crate::identity::Identity;
use index::{Entry, Index, KINDS, Now, Origin};
use key::{Key, Kind, keys_of};

/// The default of [`RevocationsBuilder::max_entries`].
const MAX_ENTRIES: usize = 1_000_000;

/// The default of [`RevocationsBuilder::token_lifetime`].
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The default of [`RevocationsBuilder::leeway`].
const LEEWAY: Duration = Duration::from_secs(5);

/// The revocations in force. Clones share them.
///
/// They are judged for *each request*, after the look-up in the cache of verified tokens, so a token that this
/// process knows is refused, too: with 401, `invalid_token` and
/// [`token_revoked`](crate::error::InvalidToken::Revoked).
///
/// ```
/// use scaikey_auth::revocation::{Revocation, Revocations};
/// use scaikey_auth::testing::identity;
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), scaikey_auth::revocation::RevokeError> {
/// let caller = identity(json!({ "iss": "https://id.example", "sub": "alice", "sid": "session-17" }));
/// let revocations = Revocations::default();
/// assert!(!revocations.is_revoked(&caller));
/// revocations.revoke(Revocation::session("https://id.example", "session-17")).await?;
/// assert!(revocations.is_revoked(&caller));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    index: Index,
    clock: Arc<dyn Clock>,
    token_lifetime: Duration,
    /// In seconds.
    leeway: u32,
}

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
    token_lifetime: Duration,
    leeway: Duration,
    clock: Option<Arc<dyn Clock>>,
}

impl RevocationsBuilder {
    /// Sets the largest number of entries. Default: 1,000,000, which take some 60 MB.
    ///
    /// A revocation is one entry; that of a session [of a subject](Revocation::of_subject) is two. When the index is
    /// full, entries of sessions and tokens with a subject are merged into one of the subject, which then refuses
    /// *all* its tokens that were issued until now. If that does not help, [`revoke`](Revocations::revoke) fails. No
    /// entry is forgotten early.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets the longest lifetime of the tokens that the service accepts. A revocation is forgotten after this time.
    /// Default: 24 h.
    ///
    /// **A token that lives longer is accepted again** when its revocation is forgotten. To be sure, limit the
    /// lifetime with [`IssuerConfig::max_token_lifetime`](crate::IssuerConfig::max_token_lifetime).
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
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

    /// Builds the revocations. None is in force yet.
    pub fn build(self) -> Revocations {
        Revocations(Arc::new(Inner {
            index: Index::new(self.max_entries),
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::default())),
            token_lifetime: self.token_lifetime,
            leeway: u32::try_from(self.leeway.as_secs()).unwrap_or(u32::MAX),
        }))
    }
}

/// The error of [`Revocations::revoke`].
///
/// ```
/// use scaikey_auth::revocation::RevokeError;
///
/// /// What a provider is told that sent an event: it sends the event again later.
/// fn status(outcome: Result<(), RevokeError>) -> u16 {
///     match outcome {
///         Ok(()) => 200,
///         Err(_) => 503,
///     }
/// }
/// # assert_eq!(status(Err(RevokeError::Full)), 503);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The [largest number of entries](RevocationsBuilder::max_entries) is in force. This revocation is not.
    #[error("the revocation is not in force: as many as allowed are")]
    Full,
    /// The log failed. The revocation is in force in this process only. Try again.
    #[error("the revocation is in force in this process only: the revocation log failed")]
    Log(#[source] BoxError),
}

impl Revocations {
    /// Returns a builder.
    pub fn builder() -> RevocationsBuilder {
        RevocationsBuilder {
            max_entries: MAX_ENTRIES,
            token_lifetime: TOKEN_LIFETIME,
            leeway: LEEWAY,
            clock: None,
        }
    }

    /// Puts a revocation in force. It may be repeated.
    ///
    /// A revocation whose [end](Revocation::until) has passed does nothing.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), RevokeError> {
        let inner = &self.0;
        let revocation = inner.with_times(revocation);
        let entries = inner.entries(&revocation);
        inner.index.insert(&entries, Origin::Here, inner.now()).map_err(|_| RevokeError::Full)?;
        Ok(())
    }

    /// Returns whether a token with this identity is refused.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        let kinds = self.0.index.state() & KINDS;
        kinds != 0 && self.0.is_revoked(identity, kinds)
    }

    /// Judges the token of an identity, if that is possible without waiting, else returns `None`.
    pub(crate) fn try_check(&self, identity: &Identity) -> Result<Option<()>, AuthError> {
        match self.is_revoked(identity) {
            true => Err(InvalidToken::Revoked.into()),
            false => Ok(Some(())),
        }
    }

    /// Judges the token of an identity.
    pub(crate) async fn check(&self, identity: &Identity) -> Result<(), AuthError> {
        self.try_check(identity).map(drop)
    }

    /// Returns whether nothing is in force.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.index.state() == 0
    }
}

impl Default for Revocations {
    /// Creates revocations in memory, for one process.
    fn default() -> Self {
        Self::builder().build()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("entries", &self.0.index.len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn now(&self) -> Now {
        let wall = u32::try_from(unix_seconds(self.clock.now())).unwrap_or(u32::MAX);
        Now { wall, elapsed: self.clock.elapsed() }
    }

    /// Returns the revocation with both times. An event of the future is one of now.
    fn with_times(&self, mut revocation: Revocation) -> Revocation {
        let now = self.clock.now();
        let issued_before = revocation.issued_before.unwrap_or(now).min(now);
        revocation.issued_before = Some(issued_before);
        revocation.until = revocation.until.or_else(|| now.checked_add(self.token_lifetime));
        revocation
    }

    /// Returns the entries of a revocation with both times.
    fn entries(&self, revocation: &Revocation) -> Vec<Entry> {
        let seconds = |at: Option<SystemTime>| at.map_or(u32::MAX, seconds_rounded_up);
        let (issued_before, until) = (seconds(revocation.issued_before), seconds(revocation.until));
        let subject = revocation.subject_key().unwrap_or(Key::NONE);
        let entry = |(kind, key)| Entry { kind, key, subject, issued_before, until };
        revocation.keys().into_iter().map(entry).collect()
    }

    #[cold]
    fn is_revoked(&self, identity: &Identity, kinds: u32) -> bool {
        let keys = identity.digests(keys_of);
        let mut entries = Kind::ALL.iter().zip(keys).filter_map(|(kind, key)| {
            let has_entries = kinds & kind.bit() != 0 && *key != Key::NONE.0;
            has_entries.then(|| self.index.get(Key(*key))).flatten()
        });
        entries.any(|entry| self.refuses(&entry, identity))
    }

    /// Returns whether an entry that matches an identity refuses its token.
    fn refuses(&self, entry: &Entry, identity: &Identity) -> bool {
        let issued_at = identity.issued_at().map_or(0, unix_seconds);
        let end = u64::from(entry.issued_before) + u64::from(self.leeway);
        let is_meant = entry.kind.ignores_time_of_issue() || issued_at < end;
        is_meant && u64::from(entry.until) > unix_seconds(self.clock.now())
    }
}

fn seconds_rounded_up(at: SystemTime) -> u32 {
    // Casts saturate.
    unix_time(at).ceil() as u32
}

#[async_trait]
impl AdmissionCheck for Revocations {
    fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        Some(Ok(match self.is_revoked(request.identity) {
            true => Admission::Deny(InvalidToken::Revoked.into()),
            false => Admission::Allow,
        }))
    }

    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        self.try_admit(request).unwrap_or(Ok(Admission::Allow))
    }
}
