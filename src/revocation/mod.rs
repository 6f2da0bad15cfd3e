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

mod builder;
mod event;
mod following;
mod index;
mod key;
mod lifetimes;
mod log;
mod memory;
mod session;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use builder::RevocationsBuilder;
pub use event::Revocation;
pub use log::{InvalidLogEntry, LogCursor, LogEntry, LogPage, RevocationLog};
pub use memory::MemoryRevocationLog;

pub(crate) use event::Target;
pub(crate) use session::SessionFacts;

use crate::admission::{Admission, AdmissionCheck, AdmissionRequest};
use crate::clock::{Clock, unix_seconds};
use crate::error::{AuthError, BoxError, InvalidToken};
use crate::identity::Identity;
use crate::issuer::Issuers;
use crate::support::off_thread::off_thread;
use crate::support::telemetry;
use crate::validator::RevokedAnswers;
use following::Following;
use index::{Entry, Full, Index, KINDS, Now, Origin, TIMELESS};
use key::{Key, Kind, keys_of, kinds_of_keys};
use lifetimes::Lifetimes;

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
    lifetimes: Lifetimes,
    /// In seconds.
    leeway: u64,
    following: Option<Following>,
    listeners: RwLock<Vec<Listener>>,
}

/// A function that is called with each revocation that comes into force.
pub(crate) type Listener = Arc<dyn Fn(&Revocation) + Send + Sync>;

/// Where a revocation comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Here,
    Log,
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

/// The state of [`Revocations`], for monitoring.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::Auth;
///
/// /// Whether an event at another process is noticed here.
/// fn is_current(auth: &Auth) -> bool {
///     let health = auth.revocations().health();
///     !health.is_away && health.lag < Duration::from_secs(10)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevocationHealth {
    /// The time since the log was read to its end; before that, since these revocations were built. Zero without a
    /// log.
    pub lag: Duration,
    /// Whether the last read of the log failed, or none has ended yet. False without a log.
    pub is_away: bool,
    /// The number of entries in force. Expired ones are counted until they are removed, once a minute.
    pub entries: usize,
    /// The number of entries that were merged into one of their subject, because there were [as many as
    /// allowed](RevocationsBuilder::max_entries).
    pub widened: u64,
    /// The number of entries of the log that could not be read, and are *not* in force.
    pub unreadable: u64,
}

impl Revocations {
    /// Returns a builder.
    pub fn builder() -> RevocationsBuilder {
        RevocationsBuilder::default()
    }

    /// Puts a revocation in force, in this process immediately, and in the others when they read the log. It may be
    /// repeated.
    ///
    /// When this returns `Ok`, the log has the revocation. It is appended even if the returned future is dropped after
    /// its first poll. A revocation whose [end](Revocation::until) has passed does nothing.
    ///
    /// # Errors
    /// [`RevokeError::Full`] if there are as many entries as allowed; [`RevokeError::Log`] if the log failed or did not
    /// answer within 10 s. Then try again. This process also tries again by itself, as long as it lives.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), RevokeError> {
        let inner = &self.0;
        let revocation = inner.with_times(revocation);
        if revocation.until.is_some_and(|until| until <= inner.clock.now()) {
            return Ok(());
        }
        let entries = inner.entries(&revocation);
        if inner.insert(&entries).await.map_err(|_| RevokeError::Full)? {
            inner.announce(&revocation, Source::Here);
        }
        match inner.following {
            Some(_) => inner.share(LogEntry::of_event(revocation), entries).await,
            None => Ok(()),
        }
    }

    /// Returns whether a token with this identity is refused.
    ///
    /// It does not wait for the log, and ignores [`refuse_after`](RevocationsBuilder::refuse_after).
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.0.index.state() & KINDS != 0 && self.0.is_revoked(identity)
    }

    /// Waits until the history of the log is read. [`Auth::ready`](crate::Auth::ready) calls it. Returns immediately
    /// without a log.
    ///
    /// # Errors
    /// The log cannot be read, or there is no tokio runtime. The log is read when it works again.
    pub async fn ready(&self) -> Result<(), BoxError> {
        self.0.ready().await
    }

    /// Returns the state.
    pub fn health(&self) -> RevocationHealth {
        let inner = &self.0;
        let following = inner.following.as_ref();
        RevocationHealth {
            lag: following.map_or(Duration::ZERO, |it| it.lag(inner.clock.elapsed())),
            is_away: following.is_some_and(Following::is_away),
            entries: inner.index.len(),
            widened: inner.index.widened(),
            unreadable: following.map_or(0, Following::unreadable),
        }
    }

    /// Calls `listener` with each revocation that comes into force, after it does, from this process or from the log.
    /// One that is repeated may come twice. A revocation that reaches the log late may not come at all.
    ///
    /// The listener runs where `revoke` is called or the log is read, so it must not block. It lives as long as
    /// the revocations, so it must not own an `Auth`.
    pub(crate) fn subscribe(&self, listener: Listener) {
        self.0.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Makes revocations without an [end](Revocation::until) last as long as browser sessions, but not those of single
    /// tokens.
    pub(crate) fn keep_for_at_least(&self, time: Duration) {
        if self.0.lifetimes.add_sessions(time) {
            self.read_again();
        }
    }

    /// Adds a service whose tokens are judged. Revocations last as long as tokens of its issuers may live, unless
    /// they say otherwise. `has_limits`: the limits of the issuers apply to all its tokens.
    pub(crate) fn add_service(&self, issuers: &Issuers, has_limits: bool) {
        self.0.lifetimes.add_service(issuers, has_limits);
        self.read_again();
    }

    /// Reads the log from its beginning, because what was read lasts longer now.
    fn read_again(&self) {
        if let Some(following) = &self.0.following {
            following.read_again();
        }
    }

    /// Judges the token of an identity, if that is possible without waiting, else returns `None`.
    pub(crate) fn try_check(&self, identity: &Identity) -> Result<Option<()>, AuthError> {
        if self.0.index.state() & !KINDS != 0 && !self.0.may_judge().map_err(unavailable)? {
            return Ok(None);
        }
        match self.is_revoked(identity) {
            true => Err(InvalidToken::Revoked.into()),
            false => Ok(Some(())),
        }
    }

    /// Judges the token of an identity. Waits for the history of the log, if it is not read yet.
    pub(crate) async fn check(&self, identity: &Identity) -> Result<(), AuthError> {
        if self.try_check(identity)?.is_none() {
            self.0.until_read().await;
            self.try_check(identity)?;
        }
        Ok(())
    }

    /// Returns whether every token is allowed.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.index.state() == 0
    }
}

fn unavailable(error: BoxError) -> AuthError {
    AuthError::unavailable("revocation log", None, error)
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

    /// Returns the revocation with both times. An event of the future is one of now. Unless its caller set the end, it
    /// lasts as long as what this process judges.
    fn with_times(&self, mut revocation: Revocation) -> Revocation {
        let now = self.clock.now();
        let issued_before = revocation.issued_before.unwrap_or(now).min(now);
        revocation.issued_before = Some(issued_before);
        if revocation.until.is_none() {
            revocation.made_at = Some(now);
        }
        if let Some(made_at) = revocation.made_at {
            let lifetime = match revocation.target {
                Target::Token { .. } => self.lifetimes.of_tokens(&revocation.issuer),
                _ => self.lifetimes.of_sessions(&revocation.issuer),
            };
            revocation.until = revocation.until.max(made_at.min(now).checked_add(lifetime));
        }
        revocation
    }

    /// Returns the entries of a revocation with both times.
    fn entries(&self, revocation: &Revocation) -> Vec<Entry> {
        let seconds = |at: Option<SystemTime>| at.map_or(u32::MAX, seconds_rounded_up);
        let (issued_before, until) = (seconds(revocation.issued_before), seconds(revocation.until));
        let subject = revocation.subject_key().unwrap_or(Key::NONE);
        let entry = |(kind, key): (Kind, Key)| {
            let is_timeless = kind.may_be_timeless() && revocation.is_timeless();
            let issued_before = if is_timeless { TIMELESS } else { issued_before };
            Entry { kind, key, subject, issued_before, until }
        };
        revocation.keys().into_iter().map(entry).collect()
    }

    /// Puts entries of this process in force. If that may take long, another thread does it, also if the caller is
    /// dropped; the log then gets them later.
    async fn insert(self: &Arc<Self>, entries: &[Entry]) -> Result<bool, Full> {
        if !self.index.may_take_long(self.now()) {
            return self.index.insert(entries, Origin::Here, self.now());
        }
        let (inner, entries) = (self.clone(), entries.to_vec());
        let inserted = off_thread(move || {
            let inserted = inner.index.insert(&entries, Origin::Here, inner.now());
            inner.expect_in_log(&entries);
            inserted
        });
        // Only a panic, or the end of the runtime, leaves no answer.
        inserted.await.unwrap_or(Err(Full))
    }

    /// Tells the log and the listeners of a revocation that has come into force.
    fn announce(&self, revocation: &Revocation, source: Source) {
        let from = match source {
            Source::Here => "here",
            Source::Log => "log",
        };
        let kind = revocation.kind().as_str();
        telemetry::revoked(kind, &revocation.issuer, from);
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone();
        listeners.iter().for_each(|listener| listener(revocation));
    }

    #[cold]
    fn is_revoked(&self, identity: &Identity) -> bool {
        self.refusing(identity).next().is_some()
    }

    /// Returns the entries that refuse the token of an identity. The kinds are read anew for each key: an entry of a
    /// session may just now become one of its subject, which comes later in their order.
    fn refusing(&self, identity: &Identity) -> impl Iterator<Item = Entry> {
        let keys = identity.digests(keys_of);
        let entries = kinds_of_keys().zip(keys).filter_map(move |(kind, key)| {
            let has_entries = *key != Key::NONE.0 && self.index.state() & kind.bit() != 0;
            has_entries.then(|| self.index.get(Key(*key))).flatten()
        });
        let issued_at = identity.issued_at().or(identity.answered_at()).map_or(0, unix_seconds);
        entries.filter(move |entry| self.refuses(entry, issued_at))
    }

    /// Returns whether an entry that matches a token or session refuses it.
    fn refuses(&self, entry: &Entry, issued_at: u64) -> bool {
        let is_meant = self.end_of(entry).is_none_or(|end| issued_at < end);
        is_meant && u64::from(entry.until) > unix_seconds(self.clock.now())
    }

    /// Returns the time of issue, in seconds since 1970, from which on an entry refuses no token. `None`: it refuses
    /// all.
    fn end_of(&self, entry: &Entry) -> Option<u64> {
        let is_timeless = entry.issued_before == TIMELESS;
        (!is_timeless).then(|| u64::from(entry.issued_before).saturating_add(self.leeway))
    }
}

/// An issuer that answers after an event knows of it. What is revoked by its id stays refused, whatever the issuer
/// says.
impl RevokedAnswers for Revocations {
    fn counts_from(&self, identity: &Identity) -> Option<SystemTime> {
        if self.0.index.state() & KINDS == 0 {
            return None;
        }
        let ends = self.0.refusing(identity).map(|entry| self.0.end_of(&entry));
        let end = ends.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end))
    }
}

fn seconds_rounded_up(at: SystemTime) -> u32 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}

/// For a second set of revocations, such as one that several services share: an [`Auth`](crate::Auth) judges its
/// own by itself. [`Auth::ready`](crate::Auth::ready) does not wait for the log of this one: call
/// [`ready`](Revocations::ready).
#[async_trait]
impl AdmissionCheck for Revocations {
    fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        admission(self.try_check(request.identity)).transpose()
    }

    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        let checked = self.check(request.identity).await;
        Ok(admission(checked.map(Some))?.unwrap_or(Admission::Allow))
    }
}

/// Returns the decision of a check. A log that is away is an error of the check.
fn admission(checked: Result<Option<()>, AuthError>) -> Result<Option<Admission>, BoxError> {
    match checked {
        Ok(decided) => Ok(decided.map(|()| Admission::Allow)),
        Err(error) if error.is_unavailable() => Err(error.into()),
        Err(error) => Ok(Some(Admission::Deny(error))),
    }
}

#[cfg(test)]
mod tests;
