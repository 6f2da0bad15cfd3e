//! [`Mark`]: recognises octets that were seen before, without keeping them.
//!
//! A mark is a HighwayHash of 128 bits under a key that is drawn when the process starts and never
//! leaves it. Whoever chooses the octets sees neither key nor marks, so that two texts have one
//! mark only by chance: 2⁻⁶⁴ after four thousand million texts. A copy of the memory would give
//! away which texts were seen to somebody who can guess them whole, and nothing else.

mod signature;
mod spot;

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::LazyLock;

use highway::{HighwayHash, HighwayHasher, Key};

pub(crate) use signature::SignatureMark;
pub(crate) use spot::Spot;

static KEY: LazyLock<Key> = LazyLock::new(|| Key(std::array::from_fn(|_| random())));

/// A word of a key, from the operating system: the crypto library would first take 60 ms to gather
/// entropy of its own, and the first request would wait for that.
fn random() -> u64 {
    #[expect(clippy::expect_used, reason = "without random numbers no secret can be kept")]
    getrandom::u64().expect("the system has random numbers")
}

/// Stands for some octets, in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark([u64; 2]);

/// Makes the mark of octets that come in parts. Parts leave no trace: where their boundaries
/// matter, their lengths must be among what is added.
#[derive(Clone)]
pub(crate) struct Marker {
    hasher: HighwayHasher,
    /// Small parts are put together first: the hasher takes each as dear as a packet of 32 octets.
    staged: [u8; STAGE],
    filled: usize,
}

const STAGE: usize = 256;

/// What all marks of one kind begin with, hashed once.
#[derive(Clone, Copy)]
pub(crate) struct Seed([u64; 4]);

impl Default for Marker {
    fn default() -> Self {
        Self::of(Seed(KEY.0))
    }
}

impl Marker {
    /// Goes on where the [`seed`](Self::seed) was taken.
    #[inline]
    pub(crate) fn of(seed: Seed) -> Self {
        Self { hasher: HighwayHasher::new(Key(seed.0)), staged: [0; STAGE], filled: 0 }
    }

    /// What was added so far, for the marks of many that begin with it.
    pub(crate) fn seed(mut self) -> Seed {
        self.flush();
        Seed(self.hasher.finalize256())
    }

    #[inline]
    pub(crate) fn add(&mut self, octets: &[u8]) {
        let end = self.filled + octets.len();
        match self.staged.get_mut(self.filled..end) {
            Some(room) => {
                room.copy_from_slice(octets);
                self.filled = end;
            }
            None => {
                self.flush();
                self.hasher.append(octets);
            }
        }
    }

    pub(crate) fn mark(mut self) -> Mark {
        self.flush();
        Mark(self.hasher.finalize128())
    }

    fn flush(&mut self) {
        if let Some(staged) = self.staged.get(..self.filled).filter(|staged| !staged.is_empty()) {
            self.hasher.append(staged);
        }
        self.filled = 0;
    }
}

impl Mark {
    /// Its bits, which nobody outside can foresee, to place things by.
    pub(crate) fn words(self) -> [u64; 2] {
        self.0
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
        let text: [u8; 1000] = std::array::from_fn(|nth| nth as u8);
        for split in [0, 1, 33, 255, 256, 257, 999, 1000] {
            assert_eq!(mark(&[&text]), mark(&[&text[..split], &text[split..]]), "at {split}");
        }
        let small: Vec<&[u8]> = text.chunks(7).collect();
        assert_eq!(mark(&[&text]), mark(&small));
        assert_ne!(mark(&[&text]), mark(&[&text[1..]]));
        for changed in 0..text.len() {
            let mut other = text;
            other[changed] ^= 1;
            assert_ne!(mark(&[&text]), mark(&[&other]), "octet {changed}");
        }
    }
}
