//! [`Mark`]: recognises octets that were seen before, without keeping them.
//!
//! A mark is a universal [hash](nh), and how long that is of which it is. For any two different texts, one
//! key in 2¹²⁸ gives both the same mark: that is proven, and rests on nothing but the key, which is drawn
//! when the process starts and never leaves it, as no mark does. A copy of the memory, which holds key
//! and marks, would give away 256 bits of each text that was seen: of a long one little, a short one whole.
//!
//! The key has an end. What is longer counts by its SHA-256.

mod nh;
mod spot;

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};

use self::nh::{Pair, Sums, halves};

pub(crate) use self::spot::Spot;

/// So many octets in words, from the operating system: the crypto library would first take 60 ms to
/// gather entropy of its own, and the first request would wait for that.
fn random(octets: usize) -> Vec<u64> {
    let mut random = vec![0; octets];
    #[expect(clippy::expect_used, reason = "without random numbers no secret can be kept")]
    getrandom::fill(&mut random).expect("the system has random numbers");
    let (words, _) = random.as_chunks();
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

fn random_pair() -> Pair {
    let words = random(size_of::<Pair>());
    words.first_chunk().copied().unwrap_or_default()
}

/// Stands for some octets, in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    sums: [Pair; 2],
    /// How many chunks the sums are of: hashes of more and of fewer must not be taken for each other.
    /// 0 for what counts by its digest, which is no text of its own.
    chunks: u32,
    octets: u32,
}

/// What places are found with, so that marks themselves show nowhere.
static PLACES: LazyLock<Pair> = LazyLock::new(random_pair);

impl Mark {
    #[inline]
    pub(crate) fn of(text: &[u8]) -> Self {
        match Sums::of(text) {
            Some((sums, chunks)) => Self { sums, chunks, octets: text.len() as u32 },
            None => Self::of_digest(text),
        }
    }

    /// Of two texts. How long the first is must be told by something else: texts that are divided otherwise
    /// may be made of the same chunks.
    #[inline]
    pub(crate) fn of_both(first: &[u8], second: &[u8]) -> Self {
        let mut sums = Sums::default();
        sums.add(first);
        sums.add(second);
        let octets = (first.len() + second.len()) as u32;
        match sums.finish() {
            Some((sums, chunks)) => Self { sums, chunks, octets },
            None => Self::of_digest(&[first, second].concat()),
        }
    }

    /// What a text adds to the mark [of both](Self::of_both) if it comes second, behind so many octets.
    /// Whoever knows the first text learns no more of the second from both marks than from one.
    #[inline]
    pub(crate) fn behind(octets: usize, second: &[u8]) -> Self {
        let mut sums = Sums::behind(octets);
        sums.add(second);
        match sums.finish() {
            Some((sums, chunks)) => Self { sums, chunks, octets: second.len() as u32 },
            None => Self::of_digest(second),
        }
    }

    /// By its digest, however long it is.
    pub(crate) fn of_digest(text: &[u8]) -> Self {
        let (sums, _) = Sums::of(digest(&SHA256, text).as_ref()).unwrap_or_default();
        Self { sums, chunks: 0, octets: text.len() as u32 }
    }

    /// Bits to place things by, spread evenly, which nobody outside can foresee.
    pub(crate) fn places(&self) -> u64 {
        let [[a, b], [c, d]] = self.sums;
        let [places, _] = spread([a ^ c, b ^ d ^ u64::from(self.octets)], *PLACES);
        places
    }
}

/// Makes words of which every bit is as good as any other, whatever two sums were made of: those of
/// texts that differ little lie at even distances.
#[inline]
fn spread([a, b]: Pair, [key, other]: Pair) -> Pair {
    let fold = |a: u64, b: u64| halves(u128::from(a) * u128::from(b));
    let [high, low] = fold(a ^ key, b ^ other);
    let [high, low] = fold(high ^ low, key ^ other);
    [high ^ low, high]
}

/// Makes the mark of octets that come in parts. What they mean must be told by the parts in their order
/// and by nothing else: where it is not clear where one ends, its length is to be added before.
pub(crate) struct Marker {
    sums: Sums,
    octets: usize,
    /// Small parts are put together first.
    staged: [u8; STAGE],
    filled: usize,
}

const STAGE: usize = 256;

impl Default for Marker {
    #[inline]
    fn default() -> Self {
        Self { sums: Sums::default(), octets: 0, staged: [0; STAGE], filled: 0 }
    }
}

impl Marker {
    /// Most parts are short, and of a length that the caller knows: a call would take longer than a copy.
    #[inline(always)]
    pub(crate) fn add(&mut self, octets: &[u8]) {
        let end = self.filled + octets.len();
        match self.staged.get_mut(self.filled..end) {
            Some(room) => {
                room.copy_from_slice(octets);
                self.filled = end;
            }
            None => {
                self.flush();
                self.sums.add(octets);
            }
        }
        self.octets += octets.len();
    }

    /// `None` if all that was too long: then it must be made by a [digest](Mark::of_digest).
    pub(crate) fn mark(mut self) -> Option<Mark> {
        self.flush();
        let (sums, chunks) = self.sums.finish()?;
        Some(Mark { sums, chunks, octets: self.octets as u32 })
    }

    fn flush(&mut self) {
        self.sums.add(self.staged.get(..self.filled).unwrap_or_default());
        self.filled = 0;
    }
}

/// By its places, which need no other hash.
impl Hash for Mark {
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write_u64(self.places());
    }
}

/// For maps whose keys are marks.
pub(crate) type MarkHasher = BuildHasherDefault<AsIs>;

/// Hands a mark's places on as its hash.
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
    use std::collections::HashSet;

    use super::nh::LONGEST;
    use super::*;

    fn of_parts(parts: &[&[u8]]) -> Option<Mark> {
        let mut marker = Marker::default();
        parts.iter().for_each(|part| marker.add(part));
        marker.mark()
    }

    #[test]
    fn a_mark_depends_on_every_octet_and_on_the_length() {
        for letters in [1000, LONGEST + 100] {
            let text = vec![b'A'; letters];
            let mut marks = HashSet::new();
            let lengths = (0..=1000).chain(LONGEST - 10..LONGEST + 10);
            for length in lengths.filter(|length| *length <= letters) {
                assert!(marks.insert(Mark::of(&text[..length])), "{length}");
            }
            for changed in (0..900).chain(letters - 100..letters) {
                let mut other = text.clone();
                other[changed] = b'B';
                assert!(marks.insert(Mark::of(&other)), "octet {changed}");
            }
        }
        // What stands behind the end does not count as if it were there.
        assert_ne!(Mark::of(b"AA"), Mark::of(b"AA\0"));
    }

    #[test]
    fn a_digest_is_no_text_of_its_own() {
        let text = vec![b'A'; LONGEST + 1];
        assert_eq!(Mark::of(&text), Mark::of_digest(&text));
        assert_ne!(Mark::of(&text), Mark::of(digest(&SHA256, &text).as_ref()));
        // Nor where both have as many octets.
        let text = [7; 32];
        assert_ne!(Mark::of_digest(&text), Mark::of(digest(&SHA256, &text).as_ref()));
    }

    #[test]
    fn a_mark_depends_on_every_octet_of_every_part() {
        let octets: Vec<u8> = (0..1000).map(|nth| nth as u8).collect();
        for split in [0, 1, 33, 255, 256, 257, 512, 999, 1000] {
            let mut marks = HashSet::new();
            for changed in 0..=octets.len() {
                let mut other = octets.clone();
                if let Some(octet) = other.get_mut(changed) {
                    *octet ^= 1;
                }
                let (one, two) = other.split_at(split);
                assert!(marks.insert(of_parts(&[one, two, b"end"])), "{changed} at {split}");
            }
        }
        assert_eq!(of_parts(&[b"one", b"two"]), of_parts(&[b"onetwo"]));
        assert_ne!(of_parts(&[b"one", b"two"]), of_parts(&[b"one", b"two", b"\0"]));
        let zeros = [0; 700];
        let split = |at: usize| of_parts(&[&zeros[..300], &zeros[300..at], &zeros[at..]]);
        let told = |mark: Mark| (mark.octets, mark.chunks);
        assert_eq!([331, 600].map(|at| split(at).map(told)), [Some((700, 23)), Some((700, 24))]);
        assert_eq!(of_parts(&[&[0; LONGEST], b"more"]), None);
    }

    #[test]
    fn a_mark_of_two_texts_depends_on_both_and_that_of_the_second_gives_away_no_more() {
        let (first, second) = ([b'A'; 500], [b'B'; 86]);
        let (mark, behind) = (Mark::of_both(&first, &second), Mark::behind(500, &second));
        for at in 0..500 {
            let mut other = first;
            other[at] ^= 1;
            assert_ne!(mark, Mark::of_both(&other, &second), "octet {at}");
        }
        for at in 0..86 {
            let mut other = second;
            other[at] ^= 1;
            assert_ne!(mark, Mark::of_both(&first, &other), "octet {at}");
            assert_ne!(behind, Mark::behind(500, &other), "octet {at}");
        }
        assert_ne!(Mark::of_both(b"AA", b"B"), Mark::of_both(b"AA\0", b"B"));
        assert_ne!(Mark::behind(2, b"B"), Mark::behind(2, b"B\0"));
        // The difference is what the first text has by itself.
        let number = |[high, low]: Pair| u128::from(high) << 64 | u128::from(low);
        let [mark, behind, first] = [mark, behind, Mark::of(&first)].map(|it| it.sums.map(number));
        for pass in 0..2 {
            assert_eq!(mark[pass].wrapping_sub(behind[pass]), first[pass]);
        }
        let long = vec![b'A'; LONGEST];
        assert_eq!(Mark::of_both(&long, b"more"), Mark::of_digest(&[&long[..], b"more"].concat()));
        assert_eq!(Mark::behind(LONGEST, b"more"), Mark::of_digest(b"more"));
    }

    /// Sixty-four places for two thousand marks: each gets some, also of texts that differ in one bit.
    #[test]
    fn places_are_spread_evenly() {
        let (mut high, mut low) = ([0; 64], [0; 64]);
        for n in 0..2000_u64 {
            let places = Mark::of(&n.to_le_bytes()).places();
            high[(places >> 58) as usize] += 1;
            low[(places % 64) as usize] += 1;
        }
        for count in high.into_iter().chain(low) {
            assert!((1..120).contains(&count), "{high:?} {low:?}");
        }
    }
}
