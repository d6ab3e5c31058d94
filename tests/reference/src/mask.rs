//! The dropout mask as its contract states it, one element at a time.
//!
//! The keep probability is `T/2^32`. An element compares the bits of a uniform number with those of `T`, from the most
//! significant one on, and is decided by the first that differ: kept if the number is below `T`. A group of 512
//! elements takes its bits from 16 generators, bit `k` of word `l` for element `32*l + k`, and draws on until all of
//! its elements are decided or the rest of `T` is zero; what is undecided then is dropped. Groups are worked whole,
//! and eight of them in a row share one seeding of the generators.

use crate::random::{SplitMix64, Xoshiro128PlusPlus};

/// The generators side by side.
const LANES: usize = 16;
/// The elements decided by one round of words.
const GROUP: usize = 32 * LANES;
/// The elements that one seeding lasts for.
const BLOCK: usize = 8 * GROUP;
/// `T` of the keep probability 1.
const ONE: u64 = 1 << 32;

/// `T = round((1-p) * 2^32)` for a probability `p` to drop.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^32")]
pub fn threshold(p: f64) -> u64 {
    ((1.0 - p) * ONE as f64).round() as u64
}

/// What kept elements are multiplied by: the f32 nearest to `2^32 / T`, ties to even, and 0 if nothing is kept.
///
/// By long division, because a quotient that has been rounded to f64 may round to the wrong f32.
#[must_use]
pub fn scale(threshold: u64) -> f32 {
    if threshold == 0 {
        return 0.0;
    }
    // The exponent for which the quotient has the 24 bits of a significand.
    let (mut numerator, mut unit) = (u128::from(ONE), 1.0);
    while numerator / u128::from(threshold) < 1 << 23 {
        (numerator, unit) = (2 * numerator, unit / 2.0);
    }
    let mut divisor = u128::from(threshold);
    while numerator / divisor >= 1 << 24 {
        (divisor, unit) = (2 * divisor, unit * 2.0);
    }
    let (quotient, remainder) = (numerator / divisor, numerator % divisor);
    let up = 2 * remainder > divisor || (2 * remainder == divisor && quotient % 2 == 1);
    (quotient + u128::from(up)) as f32 * unit
}

/// What one bit of a mask decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// One element.
    Element,
    /// One channel of one sample.
    Channel,
    /// One sample.
    Sample,
}

/// The bit of a mask that decides about an element of `[samples*positions, channels, inner]`.
#[must_use]
pub fn bit(index: usize, [channels, inner, positions]: [usize; 3], granularity: Granularity) -> usize {
    let sample = index / (positions * channels * inner);
    match granularity {
        Granularity::Element => index,
        Granularity::Channel => sample * channels + index / inner % channels,
        Granularity::Sample => sample,
    }
}

/// The mask with a bit for every element that does the same as one with fewer bits.
#[must_use]
pub fn expanded(mask: &[u8], elements: usize, shape: [usize; 3], granularity: Granularity) -> Vec<u8> {
    let mut expanded = vec![0; elements.div_ceil(8)];
    for index in (0..elements).filter(|&index| keeps(mask, bit(index, shape, granularity))) {
        expanded[index / 8] |= 1 << (index % 8);
    }
    expanded
}

/// Whether the elements from 0 on are kept.
#[must_use]
pub fn kept(seed: u64, threshold: u64, elements: usize) -> Vec<bool> {
    match threshold {
        0 => return vec![false; elements],
        ONE => return vec![true; elements],
        _ => {}
    }
    let key = SplitMix64::new(seed).next_u64();
    let mut kept = Vec::with_capacity(elements + BLOCK);
    for block in 0..elements.div_ceil(BLOCK) as u64 {
        let mut generators: [_; LANES] = std::array::from_fn(|lane| {
            let stream = (LANES as u64).wrapping_mul(block).wrapping_add(lane as u64);
            let step = SplitMix64::GOLDEN_GAMMA.wrapping_mul(2);
            Xoshiro128PlusPlus::seed_from_u64(key.wrapping_add(stream.wrapping_mul(step)))
        });
        for _ in 0..BLOCK / GROUP {
            kept.extend(group(threshold, &mut generators));
        }
    }
    kept.truncate(elements);
    kept
}

fn group(threshold: u64, generators: &mut [Xoshiro128PlusPlus; LANES]) -> [bool; GROUP] {
    let mut decision: [Option<bool>; GROUP] = [None; GROUP];
    for place in (0..32).rev() {
        let rest_is_zero = threshold.is_multiple_of(1 << (place + 1));
        if rest_is_zero || decision.iter().all(Option::is_some) {
            break;
        }
        let threshold_bit = threshold >> place & 1 == 1;
        let words: [u32; LANES] = std::array::from_fn(|lane| generators[lane].next_u32());
        for (element, decision) in decision.iter_mut().enumerate() {
            let random_bit = words[element / 32] >> (element % 32) & 1 == 1;
            if decision.is_none() && random_bit != threshold_bit {
                // The number is below T if it has the 0 where T has the 1.
                *decision = Some(threshold_bit);
            }
        }
    }
    decision.map(|decision| decision.unwrap_or(false))
}

/// One bit per element, least significant bit first; unused bits of the last byte are 0.
#[must_use]
pub fn packed(kept: &[bool]) -> Vec<u8> {
    let mut bytes = vec![0; kept.len().div_ceil(8)];
    for (element, &kept) in kept.iter().enumerate() {
        bytes[element / 8] |= u8::from(kept) << (element % 8);
    }
    bytes
}

/// The mask of a seed, as bytes.
#[must_use]
pub fn bytes(seed: u64, threshold: u64, elements: usize) -> Vec<u8> {
    packed(&kept(seed, threshold, elements))
}

/// Whether a mask keeps an element.
#[must_use]
pub fn keeps(mask: &[u8], element: usize) -> bool {
    mask[element / 8] >> (element % 8) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_and_scales_of_known_probabilities() {
        let table = [(0.0, 1 << 32, 1.0), (0.5, 1 << 31, 2.0), (0.75, 1 << 30, 4.0), (1.0, 0, 0.0)];
        for (p, expected_threshold, expected_scale) in table {
            assert_eq!(threshold(p), expected_threshold);
            assert_eq!(scale(expected_threshold), expected_scale);
        }
        assert_eq!(scale(1), 4_294_967_296.0);
        assert_eq!(scale(threshold(0.1)), 1.0 / 0.9);
    }

    #[test]
    fn the_scale_is_the_nearest_f32() {
        let mut random = SplitMix64::new(3);
        for _ in 0..10_000 {
            let threshold = 1 + random.next_u64() % ONE;
            let scale = scale(threshold);
            // 2*T*s compared with 2*2^32, doubled so that midpoints are exact too: the error of the neighbours is larger.
            let error = |candidate: f32| {
                let scaled = f64::from(candidate) * (1u64 << 23) as f64;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^56")]
                let scaled = u128::from(scaled as u64) * u128::from(threshold);
                scaled.abs_diff(1 << 55)
            };
            assert!(error(scale) <= error(scale.next_up()) && error(scale) <= error(scale.next_down()), "{threshold}");
        }
    }

    #[test]
    fn kept_elements_are_as_many_as_the_probability_says() {
        for p in [0.1, 0.5, 0.9] {
            let elements = 1 << 20;
            let count = kept(11, threshold(p), elements).iter().filter(|&&kept| kept).count();
            let share = count as f64 / elements as f64;
            assert!((share - (1.0 - p)).abs() < 0.003, "p = {p}: {share} are kept");
        }
    }

    #[test]
    fn bits_are_packed_least_significant_first() {
        let mask = packed(&[true, false, false, false, false, false, false, true, false, true]);
        assert_eq!(mask, [0b1000_0001, 0b10]);
        assert!(keeps(&mask, 9) && !keeps(&mask, 8));
    }

    #[test]
    fn a_shorter_mask_is_the_beginning_of_a_longer_one() {
        let long = kept(5, threshold(0.3), 10_000);
        assert_eq!(kept(5, threshold(0.3), 4_567), long[..4_567]);
    }
}
