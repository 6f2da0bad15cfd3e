//! [`KeyRing`]: which keys an issuer shows, and which it signs with.

use super::keys::SigningKey;
use crate::config::Algorithm;

/// A key's way: published, used, old, withdrawn.
#[derive(Default)]
pub(super) struct KeyRing {
    published: Vec<SigningKey>,
    /// In order of use; the last of an algorithm is the current one.
    used: Vec<SigningKey>,
    /// Published ahead of its use.
    next: Option<SigningKey>,
    /// Held on to, so that no later key of this issuer is made of the same material.
    withdrawn: Vec<SigningKey>,
}

impl KeyRing {
    /// What the key set shows.
    pub(super) fn published(&self) -> &[SigningKey] {
        &self.published
    }

    /// What signs with this algorithm.
    pub(super) fn current(&self, algorithm: Algorithm) -> Option<&SigningKey> {
        self.used.iter().rev().find(|key| key.algorithm() == algorithm)
    }

    /// Publishes a key, if it is not yet, and uses it.
    pub(super) fn adopt(&mut self, key: SigningKey) -> SigningKey {
        // By key and not by name: two keys may have the same `kid` (RFC 7517 §4.5).
        let public = key.public_key();
        if !self.published.iter().any(|known| known.public_key() == public) {
            self.published.push(key.clone());
        }
        self.used.push(key.clone());
        key
    }

    /// Publishes a key to be used next.
    pub(super) fn publish_next(&mut self, key: SigningKey) {
        self.published.push(key.clone());
        self.next = Some(key);
    }

    /// The key published ahead of its use.
    pub(super) fn take_next(&mut self) -> Option<SigningKey> {
        self.next.take()
    }

    /// Takes keys out of the set, used or not.
    pub(super) fn remove_key(&mut self, which: impl Fn(&SigningKey) -> bool) {
        self.withdrawn.extend(self.published.extract_if(.., |key| which(key)));
    }

    /// Takes out of the set whatever does not sign now.
    pub(super) fn remove_old_keys(&mut self) {
        let current = Algorithm::ALL.map(|algorithm| self.current(algorithm).cloned());
        self.remove_key(|key| !current.iter().flatten().any(|used| used.kid() == key.kid()));
        self.next = None;
    }
}
