//! [`Mark`]: recognises octets that were seen before, without keeping them.
//!
//! A mark is a HighwayHash of 128 bits under a key that is drawn when the process starts and never
//! leaves it. Whoever chooses the octets sees neither key nor marks, so that two texts have one
//! mark only by chance: 2⁻⁶⁴ after four thousand million texts. A copy of the memory would give
//! away which texts were seen to somebody who can guess them whole, and nothing else.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::LazyLock;

use aws_lc_rs::rand;
use highway::{HighwayHash, HighwayHasher, Key};

static KEY: LazyLock<Key> = LazyLock::new(|| {
    let mut key = [0; 4];
    for word in &mut key {
        let mut octets = [0; 8];
        #[expect(clippy::expect_used, reason = "without random numbers no secret can be kept")]
        rand::fill(&mut octets).expect("the system has random numbers");
        *word = u64::from_ne_bytes(octets);
    }
    Key(key)
});

/// Stands for some octets, in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark([u64; 2]);

/// Makes the mark of octets that come in parts. Parts leave no trace: where their boundaries
/// matter, their lengths must be among what is added.
#[derive(Clone)]
pub(crate) struct Marker(HighwayHasher);

impl Default for Marker {
    fn default() -> Self {
        Self(HighwayHasher::new(*KEY))
    }
}

impl Marker {
    pub(crate) fn add(&mut self, octets: &[u8]) {
        self.0.append(octets);
    }

    pub(crate) fn mark(self) -> Mark {
        Mark(self.0.finalize128())
    }
}

impl Mark {
    /// Its bits, which nobody outside can foresee, to place things by.
    pub(crate) fn words(self) -> [u64; 2] {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn of(words: [u64; 2]) -> Self {
        Self(words)
    }
}

/// A mark is its own hash.
impl Hash for Mark {
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write_u64(self.0[0]);
    }
}

/// For maps whose keys are marks.
pub(crate) type MarkHasher = BuildHasherDefault<AsIs>;

/// Hands a mark on as its hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(parts: &[&[u8]]) -> Mark {
        let mut marker = Marker::default();
        parts.iter().for_each(|part| marker.add(part));
        marker.mark()
    }

    #[test]
    fn a_mark_depends_on_every_octet_and_not_on_how_they_came() {
        let text = [7; 100];
        assert_eq!(mark(&[&text]), mark(&[&text[..33], &text[33..]]));
        assert_ne!(mark(&[&text]), mark(&[&text[1..]]));
        for changed in 0..text.len() {
            let mut other = text;
            other[changed] ^= 1;
            assert_ne!(mark(&[&text]), mark(&[&other]), "octet {changed}");
        }
    }
}
