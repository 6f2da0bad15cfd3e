//! The parts of the crate that do without locks, compiled once more over a model of memory.
//!
//! The files are the shipped ones. What they import is replaced: the atomics by loom's, which try
//! every order of threads and every value that a load may see; the rest by the least that will do.

#![forbid(unsafe_code)]
#![expect(clippy::duplicate_mod, reason = "the table is looked at by itself, too")]

mod rest;
mod sync;

#[path = "../../src/issuer/grounds.rs"]
mod grounds;
#[path = "../../src/validator/known/mod.rs"]
mod known;
#[path = "../../src/validator/known/table.rs"]
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use known::{KnownTokens, KnownTokensStats};
pub use loom;

pub use self::rest::identity::{Identity, TenantId};
pub use self::sync::{most_taken, taken};
// As the files name them.
use self::rest::{clock, identity, issuer, mark, rules, telemetry};

/// Runs `model` in every order of its threads, but those in which they are interrupted more than
/// `interruptions` times, if that is given. `LOOM_MAX_PREEMPTIONS` gives another number.
pub fn in_every_order(
    interruptions: impl Into<Option<usize>>,
    model: impl Fn() + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(interruptions.into());
    builder.max_branches = 20_000;
    let orders = Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        sync::start();
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    eprintln!("{:>8} orders: {name}", orders.load(Ordering::Relaxed));
}

/// By what values are told apart.
pub type Words = [u64; 2];

/// The table, of eight places.
#[derive(Debug)]
pub struct Table<V>(table::Table<(Words, V)>);

impl<V> Table<V> {
    const ITSELF: usize = 8 * (size_of::<sync::AtomicU32>() + size_of::<sync::ArcSwapOption<V>>());

    /// Little enough for one set of places to be made.
    const ROOM: usize = 500;

    /// A table in whose budget there is room for so many values. For exactly so many up to three.
    pub fn with_room_for(values: usize) -> Self {
        Self(table::Table::new(Self::ITSELF + values * Self::ROOM))
    }

    /// How many others went, or `None` if it was turned away.
    pub fn insert(&self, name: Words, value: V, is_dead: impl Fn(&V) -> bool) -> Option<usize> {
        let (spot, bytes) = (mark::Spot::at(name), Self::ROOM - 150);
        let is_same = |(held, _): &(Words, V)| *held == name;
        match self.0.insert(spot, bytes, (name, value), is_same, |(_, value)| is_dead(value)) {
            table::Placed::Displacing(others) => Some(others),
            table::Placed::TurnedAway => None,
        }
    }

    pub fn find<R>(&self, name: Words, accept: impl Fn(&V) -> Option<R>) -> Option<R> {
        let accept = |(held, value): &(Words, V)| if *held == name { accept(value) } else { None };
        self.0.find(mark::Spot::at(name), accept)
    }

    pub fn sweep(&self, is_unwanted: impl Fn(&V) -> bool) {
        self.0.sweep(|(_, value)| is_unwanted(value));
    }

    pub fn entries(&self) -> usize {
        self.0.entries()
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub fn max_bytes(&self) -> usize {
        self.0.max_bytes()
    }
}

/// What the verification of a token rests on.
#[derive(Debug, Clone)]
pub struct Grounds(grounds::Grounds);

impl Grounds {
    /// A key that is published, in a set that may be relied on until then.
    pub fn until(moment: u64) -> Self {
        let grounds = grounds::Grounds { key: Default::default(), set: Default::default() };
        grounds.set.set(Duration::from_secs(moment));
        Self(grounds)
    }

    pub fn withdraw(&self) {
        self.0.key.set();
    }

    pub fn rely_until(&self, moment: u64) {
        self.0.set.set(Duration::from_secs(moment));
    }

    pub fn stand(&self, now: u64) -> bool {
        self.0.stand(Duration::from_secs(now))
    }
}

/// A token that was looked for and not found.
#[derive(Debug)]
pub struct Sighting<'t>(known::Sighting<'t>);

pub fn known_tokens() -> KnownTokens {
    // One set of places.
    KnownTokens::new(5000)
}

/// Looks for a token, at that moment.
pub fn recall<'t>(
    known: &KnownTokens,
    token: &'t [u8],
    now: u64,
) -> Result<Identity, Sighting<'t>> {
    known.recall(token, 0, &clock::At(now)).map_err(Sighting)
}

/// Remembers a token that never expires.
pub fn remember(
    known: &KnownTokens,
    sighting: Sighting<'_>,
    identity: &Identity,
    grounds: &Grounds,
) {
    known.remember(sighting.0, identity, rules::Lifetime, grounds.0.clone(), &clock::At(0));
}
