//! [`KnownTokens`]: tokens verified before, so that a signature is verified once and not per request.
//!
//! What is kept of a token is a [mark](crate::mark) of all its octets, the identity that was read
//! from it, and what its verification rests on; no part of the token. Only tokens that passed every
//! rule get in, and only acceptance is ever remembered: whatever else there is to say about a token,
//! the way of a first-seen token says it. A remembered token is taken if
//!
//! - it is the same, octet for octet;
//! - no issuer was removed, replaced or purged since before it was first looked at;
//! - nobody flushed it since then;
//! - its key was not withdrawn, and the key set is neither due to be asked for nor too old, so that
//!   a service that sees known tokens only still learns of withdrawn keys;
//! - the time is within its `nbf`, `iat` and `exp`, by the same arithmetic as the first time.
//!
//! Everything else the rules look at (audience, issuer policy, token type, claims mapping) belongs
//! to the issuer's configuration, which never changes: a change makes a new issuer.

mod table;
mod tally;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use self::table::{Placed, Table};
use self::tally::Tally;
use super::rules::Lifetime;
use crate::clock::{Clock, unix_time};
use crate::identity::{Identity, TenantId};
use crate::issuer::Grounds;
use crate::mark::{Mark, Marker};
use crate::telemetry;

/// The tokens a validator verified before and need not verify again. A handle: clones share them.
///
/// Switched on by default and bounded by `AuthConfig::known_tokens_bytes`. A token is forgotten
/// when it expires; it stops counting at once when its key is withdrawn or its issuer removed or
/// purged. There is nothing to flush for safety: a flushed token is verified anew, and accepted if
/// it still holds. Flush to free memory, or to hold fewer personal data of a tenant that left.
#[derive(Clone)]
pub struct KnownTokens(Option<Arc<Memory>>);

/// How many tokens are known, and how often that helped. Counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct KnownTokensStats {
    /// Tokens held now, those included that stopped counting and were not cleared away yet.
    pub tokens: usize,
    /// Bytes held now, as asked of the allocator; it takes some more. The table that finds them,
    /// 3 % of the limit, is included.
    pub bytes: usize,
    /// The limit; 0 if switched off.
    pub max_bytes: usize,
    /// Tokens looked for and found.
    pub hits: u64,
    /// Tokens looked for and not found, good or bad. One whose keys must be waited for is looked
    /// for more than once.
    pub misses: u64,
    /// Tokens that were still good and gave way to others, or were not taken in for want of room.
    /// When this grows like `misses`, the limit is too low.
    pub displaced: u64,
}

impl KnownTokensStats {
    /// The share of tokens that were found, if any was looked for.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits.saturating_add(self.misses);
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

#[derive(Debug)]
struct Memory {
    table: Table<Known>,
    tally: Tally,
    displaced: AtomicU64,
    flushes: Flushes,
}

/// A token that was verified.
#[derive(Debug)]
struct Known {
    identity: Identity,
    lifetime: Lifetime,
    grounds: Grounds,
    /// [`Issuers::changes`](crate::issuer::Issuers::changes) before its issuer was looked up.
    changes: u64,
    /// When it was looked at, in flushes.
    flushes: u64,
    lot: usize,
}

/// A token looked at for the first time: what to remember it by, should it turn out to be good.
#[derive(Debug)]
pub(super) struct Sighting(Option<Sighted>);

#[derive(Debug)]
struct Sighted {
    mark: Mark,
    changes: u64,
    flushes: u64,
}

impl Sighting {
    /// Of a token that is not to be remembered.
    pub(super) const NONE: Self = Self(None);
}

impl KnownTokens {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self((max_bytes > 0).then(|| {
            Arc::new(Memory {
                table: Table::new(max_bytes),
                tally: Tally::default(),
                displaced: AtomicU64::new(0),
                flushes: Flushes::default(),
            })
        }))
    }

    /// Forgets all tokens. Also those being verified right now are not remembered.
    pub fn flush(&self) {
        if let Some(memory) = &self.0 {
            memory.flushes.all();
            memory.table.sweep(|_| true);
        }
    }

    /// Forgets the tokens of one tenant, as [`flush`](Self::flush) does for all. Some of other
    /// tenants may go along, and are verified anew.
    pub fn flush_tenant(&self, tenant: &TenantId) {
        if let Some(memory) = &self.0 {
            memory.flushes.one(memory.flushes.lot(Some(tenant)));
            memory.table.sweep(|known| known.identity.tenant_id() == Some(tenant));
        }
    }

    /// How many tokens are known, and how often that helped.
    pub fn stats(&self) -> KnownTokensStats {
        let Some(memory) = &self.0 else { return KnownTokensStats::default() };
        let (hits, misses) = memory.tally.totals();
        KnownTokensStats {
            tokens: memory.table.entries(),
            bytes: memory.table.bytes(),
            max_bytes: memory.table.max_bytes(),
            hits,
            misses,
            displaced: memory.displaced.load(Ordering::Relaxed),
        }
    }

    /// Who the token stands for, if it is known and still good; `changes` is what the issuers say
    /// now. Otherwise, what to [remember](Self::remember) it by.
    pub(super) fn recall(
        &self,
        token: &[u8],
        changes: u64,
        clock: &dyn Clock,
    ) -> Result<Identity, Sighting> {
        let Some(memory) = &self.0 else { return Err(Sighting::NONE) };
        let mut marker = Marker::default();
        marker.add(token);
        let mark = marker.mark();
        // Before anything is verified: a flush from now on concerns this token too.
        let flushes = memory.flushes.so_far();
        let found = memory.table.find(mark, |known| {
            let counts = memory.counts(known, changes) && known.holds(clock);
            counts.then(|| known.identity.clone())
        });
        match found {
            Some(_) => memory.tally.hit(),
            None => memory.tally.miss(),
        }
        found.ok_or(Sighting(Some(Sighted { mark, changes, flushes })))
    }

    /// Remembers a token that passed every rule after it was sighted.
    pub(super) fn remember(
        &self,
        sighting: Sighting,
        identity: &Identity,
        lifetime: Lifetime,
        grounds: Grounds,
        clock: &dyn Clock,
    ) {
        let (Some(memory), Some(sighted)) = (&self.0, sighting.0) else { return };
        let Sighted { mark, changes, flushes } = sighted;
        let lot = memory.flushes.lot(identity.tenant_id());
        let known = Known { identity: identity.clone(), lifetime, grounds, changes, flushes, lot };
        let now = unix_time(clock.now());
        let is_dead = |known: &Known| !memory.counts(known, changes) || known.is_over(now);
        let displaced = match memory.table.insert(mark, identity.footprint(), known, is_dead) {
            Placed::Displacing(others) => others,
            Placed::TurnedAway => 1,
        };
        if displaced > 0 {
            memory.displaced.fetch_add(displaced as u64, Ordering::Relaxed);
            telemetry::known_tokens_displaced(displaced as u64);
        }
    }
}

impl fmt::Debug for KnownTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownTokens").field(&self.stats()).finish()
    }
}

impl Memory {
    /// Whether neither a change of the issuers nor a flush came after the token was looked at.
    fn counts(&self, known: &Known, changes: u64) -> bool {
        known.changes == changes && !self.flushes.concern(known.lot, known.flushes)
    }
}

impl Known {
    /// Whether the token would be accepted again now.
    fn holds(&self, clock: &dyn Clock) -> bool {
        self.grounds.stand(clock.elapsed()) && self.lifetime.check(unix_time(clock.now())).is_ok()
    }

    /// Whether it never will be again.
    fn is_over(&self, now: f64) -> bool {
        self.grounds.are_gone() || self.lifetime.is_over(now)
    }
}

/// How many lots tenants are in. One more costs eight bytes.
const LOTS: usize = 64;

/// What was flushed when, counted in flushes. A token sighted before the last flush of its lot is
/// flushed, wherever it is just then: in the table, or on its way there.
#[derive(Debug)]
struct Flushes {
    count: AtomicU64,
    last: [AtomicU64; LOTS],
    hasher: RandomState,
}

impl Default for Flushes {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            last: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }
}

impl Flushes {
    fn lot(&self, tenant: Option<&TenantId>) -> usize {
        (self.hasher.hash_one(tenant) % LOTS as u64) as usize
    }

    fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn one(&self, lot: usize) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(last) = self.last.get(lot) {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn all(&self) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        for last in &self.last {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Whether a token of this lot, sighted then, was flushed since.
    fn concern(&self, lot: usize, sighted: u64) -> bool {
        self.last.get(lot).is_none_or(|last| sighted < last.load(Ordering::Relaxed))
    }
}
