//! [`KeyRing`]: the published keys and the signing keys of an issuer.

use super::keys::SigningKey;
use crate::config::Algorithm;

/// The keys of an issuer: published ahead of use, in use, old, and removed.
#[derive(Default)]
pub(super) struct KeyRing {
    published: Vec<SigningKey>,
    /// In order of use. The last key of an algorithm is the current one.
    used: Vec<SigningKey>,
    /// Published ahead of its use.
    next: Option<SigningKey>,
    /// Kept alive, so that no later key reuses the material: see [`SigningKey`].
    removed: Vec<SigningKey>,
}

impl KeyRing {
    /// Returns the keys in the key set.
    pub(super) fn published(&self) -> &[SigningKey] {
        &self.published
    }

    /// Returns the current signing key of this algorithm.
    pub(super) fn current(&self, algorithm: Algorithm) -> Option<&SigningKey> {
        self.used.iter().rev().find(|key| key.algorithm() == algorithm)
    }

    /// Publishes a key unless it is published, and makes it current.
    pub(super) fn make_current(&mut self, key: SigningKey) -> SigningKey {
        // Compares keys, not `kid`s: two keys may have the same `kid` (RFC 7517 §4.5).
        let public = key.public_key();
        if !self.published.iter().any(|known| known.public_key() == public) {
            self.published.push(key.clone());
        }
        self.used.push(key.clone());
        key
    }

    /// Publishes a key that the next rotation will use.
    pub(super) fn publish_next(&mut self, key: SigningKey) {
        self.published.push(key.clone());
        self.next = Some(key);
    }

    /// Takes the key that was published ahead of its use.
    pub(super) fn take_next(&mut self) -> Option<SigningKey> {
        self.next.take()
    }

    /// Removes keys from the set, current or not.
    pub(super) fn remove_key(&mut self, which: impl Fn(&SigningKey) -> bool) {
        self.removed.extend(self.published.extract_if(.., |key| which(key)));
    }

    /// Removes all keys from the set except the current ones.
    pub(super) fn remove_old_keys(&mut self) {
        let current = Algorithm::ALL.map(|algorithm| self.current(algorithm).cloned());
        self.remove_key(|key| !current.iter().flatten().any(|used| used.kid() == key.kid()));
        self.next = None;
    }
}
