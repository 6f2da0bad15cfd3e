//! SHAKE256 (FIPS 202), which the crypto library has, but does not export.

#![expect(clippy::indexing_slicing, reason = "every index is a constant or below the length")]

/// The bytes of the state that a block of the message replaces.
const RATE: usize = 136;

/// The constants of step ι, one a round (FIPS 202 §3.2.5).
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// Returns the first 32 bytes of SHAKE256.
pub(crate) fn shake256(message: &[u8]) -> [u8; 32] {
    let mut state = [0; 25];
    let mut blocks = message.chunks_exact(RATE);
    for block in &mut blocks {
        absorb(&mut state, block);
    }
    let rest = blocks.remainder();
    let mut last = [0; RATE];
    last[..rest.len()].copy_from_slice(rest);
    // The suffix of SHAKE and the first bit of the padding, then its last bit (FIPS 202 §6.2, appendix B.2).
    last[rest.len()] |= 0x1f;
    last[RATE - 1] |= 0x80;
    absorb(&mut state, &last);
    let mut output = [0; 32];
    for (bytes, lane) in output.chunks_exact_mut(8).zip(state) {
        bytes.copy_from_slice(&lane.to_le_bytes());
    }
    output
}

fn absorb(state: &mut [u64; 25], block: &[u8]) {
    let (lanes, _) = block.as_chunks();
    for (lane, bytes) in state.iter_mut().zip(lanes) {
        *lane ^= u64::from_le_bytes(*bytes);
    }
    for constant in ROUNDS {
        round(state, constant);
    }
}

/// One round of KECCAK-f[1600] (FIPS 202 §3.2 and §3.3). Lane (x, y) is at `x + 5 * y`.
fn round(state: &mut [u64; 25], constant: u64) {
    // θ: adds the parities of two neighbouring columns.
    let parity: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ state[x + 5 * y]));
    for (at, lane) in state.iter_mut().enumerate() {
        *lane ^= parity[(at + 4) % 5] ^ parity[(at + 1) % 5].rotate_left(1);
    }
    // ρ and π: rotates each lane and moves it from (x, y) to (y, 2x + 3y).
    let mut moved = [0; 25];
    moved[0] = state[0];
    let (mut x, mut y) = (1, 0);
    for step in 0..24 {
        let to = (y, (2 * x + 3 * y) % 5);
        moved[to.0 + 5 * to.1] = state[x + 5 * y].rotate_left((step + 1) * (step + 2) / 2 % 64);
        (x, y) = to;
    }
    // χ: combines each lane with the next two of its row. ι: adds the constant.
    *state = std::array::from_fn(|at| {
        let row = at - at % 5;
        moved[at] ^ (!moved[row + (at + 1) % 5] & moved[row + (at + 2) % 5])
    });
    state[0] ^= constant;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::crypto::hex;

    /// The values of `hashlib.shake_256(message).hexdigest(32)` in Python.
    #[test]
    fn shake256_is_that_of_fips_202() {
        for (length, expected) in [
            (0, "46b9dd2b0ba88d13233b3feb743eeb243fcd52ea62b81b82b50c27646ed5762f"),
            (3, "714501167ead924ea87e422993eea1e67df0ead7b93140c1109470fb66d50aaa"),
            (135, "c45dae624ad8a2f5aa7bac9d7557737fd91c96eedb70a6be5574d57a844eade0"),
            (136, "b7ff4073b3f5a8eabd6e17705ca7f6761a31058f9df781a6a47e3a3063b9d67a"),
            (137, "01d90952c642a5eb2a8fc9d713f843a45d7ac05132dddcb2efc9bebc27e37bcb"),
            (271, "946985982420b82481721a498ef0c8668d553177fd0da17bc67db9d2034d12ea"),
            (272, "e3299fa992163e7ffc875aff708dac93d2157e9b4ccaa2a13ba1ca4ef0b40f29"),
            (1000, "34833f03ed88bb5f083ce590c7ae5af93ede33e11f53c70e47916c7044746acb"),
        ] {
            let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            assert_eq!(hex(&shake256(&message)), expected, "{length} bytes");
        }
    }
}
