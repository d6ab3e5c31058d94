//! `SplitMix64` (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014,
//! with the constants of Stafford's mix 13), from which the generators of masks take their states.

use super::{LANES, Lanes};

/// The increment: 2^64 divided by the golden ratio, made odd.
pub(crate) const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
/// The multipliers of the mix.
pub(super) const MULTIPLIERS: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];
/// The shifts of the mix to the right, before each multiplication and at the end.
pub(super) const SHIFTS: [u32; 3] = [30, 27, 31];

/// Output number `index` (from 1) of the sequence that starts at `seed`.
#[inline(always)]
pub(crate) const fn splitmix64(seed: u64, index: u64) -> u64 {
    let z = seed.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA));
    let z = (z ^ (z >> SHIFTS[0])).wrapping_mul(MULTIPLIERS[0]);
    let z = (z ^ (z >> SHIFTS[1])).wrapping_mul(MULTIPLIERS[1]);
    z ^ (z >> SHIFTS[2])
}

/// Four words of 32 bits for each lane: the next two outputs of the sequence that starts at `seed`,
/// lower half first.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a u64")]
pub(super) fn states(seed: u64, [w0, w1, w2, w3]: &mut [Lanes<u32>; 4]) {
    for ((((lane, w0), w1), w2), w3) in (0..LANES as u64).zip(w0).zip(w1).zip(w2).zip(w3) {
        let low = splitmix64(seed, 2 * lane + 1);
        let high = splitmix64(seed, 2 * lane + 2);
        (*w0, *w1, *w2, *w3) = (low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32);
    }
}
