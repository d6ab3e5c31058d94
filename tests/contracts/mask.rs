//! The mask contract: `bit[i]` is a pure function of the seed, `p` and `i`, frozen for ever.
//!
//! Golden bytes say what the sequence is; `rand_xoshiro` says that it is the published one; exact integer arithmetic
//! says what the probabilities and scales are; tests of randomness with fixed seeds say that it is fit for its use.

use std::collections::HashSet;

use normdrop::{Bernoulli, Buffer, Config, Error, Identity, Layer, Shape, mask_len, seed_for, seed_from};
use proptest::prelude::*;
use rand_core::{Infallible, Rng, SeedableRng, TryRng};
use rand_xoshiro::{SplitMix64, Xoshiro128PlusPlus};

/// The generators side by side, and the bits of a word.
const LANES: usize = 16;
/// The elements that one word of each lane decides.
const GROUP: usize = 512;
/// The groups that share one seeding.
const GROUPS_PER_BLOCK: u64 = 8;
/// `T` of the keep probability 1.
const ONE: u64 = 1 << 32;

/// The first 64 bytes of masks, and the FNV-1a hash (64 bits) of their first mebibyte.
///
/// These bytes are the contract: a mask that was stored, or a seed that was noted, must mean the same in every later
/// version. Whoever has to change them makes a breaking change.
const GOLDEN: &[(u64, f64, &str, u64)] = &[
    (
        0,
        0.5,
        "90c7d5641737fb28fe7c1d95dd722846f97497a3f56c2e8e37a45f818ca63275\
     21d6cbde85f35bf222d1c9b21b293791d6a3b5165b0f0ee26d88e41a2c45ad9b",
        0x4334_c238_9b68_58de,
    ),
    (
        0,
        0.1,
        "ffdfffff77bffffdffffdfb7ff7afff7fbffffffffefffae7ffcfffdbeffffff\
     f7fedfdff7ff5fffa7fffffb5fff7ff7fefbffffffefffef7feceefffe47ffbf",
        0xb212_4283_44a3_0ae0,
    ),
    (
        1,
        0.5,
        "2f9b5fa88b282d0bcf4a9c54489680383ac00d4622314efb8d8b9f0cf4db1429\
     12944930053faddecc4148cc002a2fd2e64d97740105135dcaaf14c7eb1893c9",
        0x96c7_c2e0_ac65_37ea,
    ),
    (
        1,
        0.1,
        "ffffffafff7ffffffffbdfffffb7fd7ffadffff7ffff5fffefbfff0df7ffd77f\
     7bddffff8fffefffefffcffee6fffffbf77ff77fef6dfbffdeff3ff7fffefbfd",
        0x8020_6cfc_d827_14e3,
    ),
    (
        42,
        0.25,
        "7ffadffce67cff1fdfe15bfbf3bfbabfffdd4aad1dfec577ffffbcbcffcbabfa\
     dfdfbd5d57eebcbf3efffdfffe656fe1ffdebdffeffc376fffff6e5dbf73ce3d",
        0x568f_0196_e0e8_9bea,
    ),
    (
        42,
        0.9,
        "46088000c404000000000010020c008042004000010040100004002000020000\
     820001000008200004020540a000000040100402008000068b81025000028000",
        0xb9e3_8d30_5ce9_4384,
    ),
    (
        0x0123_4567_89AB_CDEF,
        0.5,
        "5388a996e9986d3ea398bf681fa9f72e752a86053e4db703a0790b7e14aaa738\
     4575300c44e4d7f3e1e726be609a2654b3d0ae95c313dd01cf3315b4ced5df18",
        0xc40d_d392_ed07_e1ba,
    ),
    (
        0x0123_4567_89AB_CDEF,
        0.01,
        "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     ffffffffffffffffffffffffefffffffffffffffffffffffffffffffffffffff",
        0xed36_a07d_a836_e0ca,
    ),
    (
        u64::MAX,
        0.5,
        "10ae71298d8097d12a2606d1138f1bae422da2e5b97742fcf5b396978c7c9d5a\
     8b87dd7818f760cc2fbd3d74773eeec6590dd0cb22782bb40f9f1de31b93a893",
        0xef77_ff3e_4cf0_1c92,
    ),
    (
        u64::MAX,
        0.3,
        "1efef5a99d8ff7f93a2e46d51fdf7fee4a6deaefbb7756fefdf39ed78cffbd7b\
     af87dff8d9f7e4dcbffd7d7c7f3effd6590dd2cf3a7d6bbfcf9f5df39ffba9f7",
        0xc86c_0ffc_8788_0f65,
    ),
];

fn bernoulli(p: f64) -> Bernoulli {
    Bernoulli::new(p).expect("a probability")
}

/// The distribution with a given `T`: `1 - T/2^32` has at most 32 bits after the point, so nothing is rounded.
fn with_threshold(threshold: u64) -> Bernoulli {
    let keep = bernoulli(1.0 - threshold as f64 / ONE as f64);
    assert_eq!(keep.threshold(), threshold);
    keep
}

fn fill(keep: Bernoulli, seed: u64, first: u64, elements: usize) -> Vec<u8> {
    let mut mask = vec![0xA5; mask_len(elements)];
    keep.fill(seed, first, elements, &mut mask).expect("a mask of the right length");
    mask
}

fn bit(mask: &[u8], element: usize) -> bool {
    mask[element / 8] >> (element % 8) & 1 == 1
}

fn ones(mask: &[u8]) -> u64 {
    mask.iter().map(|byte| u64::from(byte.count_ones())).sum()
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Which elements of a group are kept, by the definition: each compares its own uniform number with `T`, and the group
/// draws one more bit for all of them while any of them still equals `T` as far as it goes, unless all further bits of
/// `T` are 0, from which no number can be below.
fn group(threshold: u64, mut word: impl FnMut(usize) -> u32) -> [bool; GROUP] {
    let mut numbers = [0; GROUP];
    let mut steps = 0;
    while threshold << steps & (ONE - 1) != 0 && numbers.contains(&(threshold >> (32 - steps))) {
        let words: [u32; LANES] = std::array::from_fn(&mut word);
        for (element, number) in numbers.iter_mut().enumerate() {
            *number = *number << 1 | u64::from(words[element / 32] >> (element % 32) & 1);
        }
        steps += 1;
    }
    numbers.map(|number| number < threshold >> (32 - steps))
}

/// The mask of any range, with the generators of `rand_xoshiro`.
#[expect(clippy::cast_possible_truncation, reason = "a position inside a group")]
fn published(seed: u64, threshold: u64, first: u64, elements: usize) -> Vec<u8> {
    let mut mask = vec![0; mask_len(elements)];
    let key = SplitMix64::seed_from_u64(seed).next_u64();
    let mut element = 0;
    while element < elements {
        let number = (first + element as u64) / GROUP as u64;
        let mut lanes: [_; LANES] = std::array::from_fn(|lane| {
            let stream = (number / GROUPS_PER_BLOCK).wrapping_mul(16).wrapping_add(lane as u64);
            let step = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2);
            Xoshiro128PlusPlus::seed_from_u64(key.wrapping_add(stream.wrapping_mul(step)))
        });
        let mut kept = [false; GROUP];
        for _ in 0..=number % GROUPS_PER_BLOCK {
            kept = group(threshold, |lane| lanes[lane].next_u32());
        }
        let start = ((first + element as u64) % GROUP as u64) as usize;
        for &kept in &kept[start..(start + elements - element).min(GROUP)] {
            mask[element / 8] |= u8::from(kept) << (element % 8);
            element += 1;
        }
    }
    mask
}

#[test]
fn the_sequence_is_frozen() {
    for &(seed, p, first_bytes, hash) in GOLDEN {
        let mask = fill(bernoulli(p), seed, 0, 8 << 20);
        let hex: String = mask[..64].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            (hex.as_str(), fnv_1a(&mask)),
            (first_bytes, hash),
            "seed {seed:#x}, p = {p}: {:#018x}",
            fnv_1a(&mask)
        );
    }
}

/// Values of `T` that take few steps, many, all 32, or none.
const THRESHOLDS: &[u64] = &[
    0,
    1,
    2,
    3,
    0xFF,
    0x0001_0000,
    0x1000_0000,
    0x4000_0000,
    0x5555_5555,
    0x8000_0000,
    0x8000_0001,
    0xAAAA_AAAA,
    0xC000_0000,
    0xE666_6666,
    0xFFFF_FFFE,
    0xFFFF_FFFF,
    ONE,
];

#[test]
fn the_lanes_are_those_of_rand_xoshiro() {
    for (number, &threshold) in THRESHOLDS.iter().enumerate() {
        let keep = with_threshold(threshold);
        for seed in [0, 1, number as u64, 0x9E37_79B9_7F4A_7C15, 1 << 63, u64::MAX - 1, u64::MAX] {
            for elements in [0, 1, 7, 8, 9, 31, 32, 33, 511, 512, 513, 4095, 4096, 4097, 8191, 8193, 20_000] {
                assert!(
                    fill(keep, seed, 0, elements) == published(seed, threshold, 0, elements),
                    "T = {threshold:#x}, seed {seed:#x}, {elements} elements"
                );
            }
        }
    }
}

#[test]
fn the_last_elements_that_can_be_counted_are_those_of_rand_xoshiro() {
    for &threshold in THRESHOLDS {
        for seed in [0, 3, u64::MAX] {
            for before in [1_usize, 2, 8, 9, 500, 512, 513, 4095, 4096, 4097, 9001] {
                for elements in [1, before.div_ceil(2), before] {
                    // From `before` elements before 2^64 on, up to element 2^64 - 1 at most.
                    let first = u64::MAX - (before as u64 - 1);
                    assert!(
                        fill(with_threshold(threshold), seed, first, elements)
                            == published(seed, threshold, first, elements),
                        "T = {threshold:#x}, seed {seed:#x}, {elements} elements from {first}"
                    );
                }
            }
        }
    }
}

#[test]
fn behind_the_last_number_of_an_element_the_groups_go_on() {
    // 4096 elements share a seeding: ranges that begin with one and ranges that do not are made in different ways.
    let last = u64::MAX - 4095;
    for elements in [5000, 9000] {
        let whole = fill(bernoulli(0.1), 42, last, 4090 + elements);
        let range = fill(bernoulli(0.1), 42, last + 4090, elements);
        for element in 0..elements {
            assert_eq!(bit(&range, element), bit(&whole, 4090 + element), "element {element} of {elements}");
        }
        assert_ne!(whole[512..1024], fill(bernoulli(0.1), 42, 0, 4096), "they do not begin again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_range_equals_that_part_of_the_whole(
        seed: u64, threshold in 0..=ONE, first in 0_usize..20_000, elements in 0_usize..6_000,
    ) {
        let keep = with_threshold(threshold);
        let whole = fill(keep, seed, 0, first + elements);
        let range = fill(keep, seed, first as u64, elements);
        for element in 0..elements {
            prop_assert_eq!(bit(&range, element), bit(&whole, first + element), "element {} of the range", element);
        }
        prop_assert!((elements..8 * range.len()).all(|unused| !bit(&range, unused)));
    }

    #[test]
    fn any_range_anywhere_is_that_of_rand_xoshiro(
        seed: u64, threshold in 0..=ONE, first in 0..u64::MAX - 6_000, elements in 0_usize..6_000,
    ) {
        prop_assert_eq!(fill(with_threshold(threshold), seed, first, elements), published(seed, threshold, first, elements));
    }

    #[test]
    fn any_probability_has_the_threshold_of_its_definition(p in 0.0..=1.0) {
        let threshold = bernoulli(p).threshold();
        // Exact: numbers this close to each other have an exact difference.
        let distance = (1.0 - p) * ONE as f64 - threshold as f64;
        prop_assert!(distance.abs() <= 0.5, "T = {} is {} away", threshold, distance);
    }
}

#[test]
fn unused_bits_are_0_and_nothing_beyond_the_mask_is_written() {
    for threshold in [0, 1, 0x8000_0000, 0xE666_6666, 0xFFFF_FFFF, ONE] {
        let keep = with_threshold(threshold);
        for first in [0, 1, 8, 505, 512, 4099] {
            for elements in (0..70).chain([511, 512, 513, 519, 1023, 4095, 4097]) {
                let bytes = mask_len(elements);
                let mut around = vec![0xA5; 64 + bytes + 64];
                keep.fill(9, first, elements, &mut around[64..64 + bytes]).expect("a mask of the right length");
                check_margins(&around, elements);
                around.fill(0xA5);
                keep.fill_with(&mut Xoshiro128PlusPlus::seed_from_u64(9), elements, &mut around[64..64 + bytes])
                    .expect("a mask of the right length");
                check_margins(&around, elements);
            }
        }
    }
}

fn check_margins(around: &[u8], elements: usize) {
    let (before, rest) = around.split_at(64);
    let (mask, after) = rest.split_at(mask_len(elements));
    assert!(before.iter().chain(after).all(|&byte| byte == 0xA5), "{elements} elements");
    assert!((elements..8 * mask.len()).all(|unused| !bit(mask, unused)), "{elements} elements: {mask:02x?}");
}

#[test]
fn a_mask_of_the_wrong_length_is_refused_and_left_alone() {
    for p in [0.0, 0.1, 1.0] {
        let keep = bernoulli(p);
        let layer = layer(p, 100);
        for actual in [0, 1, 12, 14, 100] {
            let refused = Err(Error::Length { buffer: Buffer::Mask, expected: 13, actual });
            let mut mask = vec![0xA5; actual];
            assert_eq!(keep.fill(1, 0, 100, &mut mask), refused);
            assert_eq!(keep.fill(1, 5, 100, &mut mask), refused);
            let mut words = Words::default();
            assert_eq!(keep.fill_with(&mut words, 100, &mut mask), refused);
            assert_eq!(layer.fill_mask(1, &mut mask).map(drop), refused);
            assert_eq!(layer.fill_mask_with(&mut words, &mut mask).map(drop), refused);
            assert_eq!(words.taken, 0, "a refused call draws nothing");
            assert!(mask.iter().all(|&byte| byte == 0xA5));
        }
    }
}

fn layer(p: f64, elements: usize) -> Layer<Identity> {
    let shape = Shape::nc(elements, 1).expect("a shape that fits memory");
    Layer::new(shape, Identity, Config { p, ..Config::DEFAULT }).expect("constants in their ranges")
}

#[test]
fn the_layer_draws_the_mask_of_its_probability() {
    for p in [0.0, 0.1, 0.5, 1.0] {
        let layer = layer(p, 5000);
        assert_eq!(layer.mask_len(), 625);
        assert_eq!(layer.keep(), bernoulli(p));
        let mut mask = vec![0xA5; 625];
        layer.fill_mask(77, &mut mask).expect("a mask of the right length");
        assert_eq!(mask, fill(bernoulli(p), 77, 0, 5000));

        let mut expected = vec![0xA5; 625];
        layer.fill_mask_with(&mut Words::default(), &mut mask).expect("a mask of the right length");
        bernoulli(p).fill_with(&mut Words::default(), 5000, &mut expected).expect("a mask of the right length");
        assert_eq!(mask, expected);
    }
}

/// Probabilities to drop, with `T`, the keep probability and the scale.
const PROBABILITIES: &[(f64, u64, f64, f32)] = &[
    (0.0, ONE, 1.0, 1.0),
    (-0.0, ONE, 1.0, 1.0),
    (f64::MIN_POSITIVE, ONE, 1.0, 1.0),
    // Half of 2^-32 is rounded away from 0, so nothing is dropped; any more drops one in 2^32.
    (1.0 / (1_u64 << 33) as f64, ONE, 1.0, 1.0),
    (3.0 / (1_u64 << 34) as f64, ONE - 1, 4_294_967_295.0 / 4_294_967_296.0, 1.0),
    (1.0 / ONE as f64, ONE - 1, 4_294_967_295.0 / 4_294_967_296.0, 1.0),
    (0.1, 3_865_470_566, 3_865_470_566.0 / 4_294_967_296.0, 1.111_111_2),
    (0.2, 3_435_973_837, 3_435_973_837.0 / 4_294_967_296.0, 1.25),
    (0.25, 0xC000_0000, 0.75, 1.333_333_4),
    (0.3, 3_006_477_107, 3_006_477_107.0 / 4_294_967_296.0, 1.428_571_5),
    (0.5, 0x8000_0000, 0.5, 2.0),
    (0.75, 0x4000_0000, 0.25, 4.0),
    (0.9, 429_496_730, 429_496_730.0 / 4_294_967_296.0, 10.0),
    (1.0 - 1.0 / ONE as f64, 1, 1.0 / 4_294_967_296.0, 4_294_967_296.0),
    // Half of 2^-32 is kept as if it were all of it; any less is nothing.
    (1.0 - 1.0 / (1_u64 << 33) as f64, 1, 1.0 / 4_294_967_296.0, 4_294_967_296.0),
    (1.0 - 1.0 / (1_u64 << 34) as f64, 0, 0.0, 0.0),
    (1.0, 0, 0.0, 0.0),
];

#[test]
fn thresholds_probabilities_and_scales_are_exact() {
    for &(p, threshold, keep_probability, scale) in PROBABILITIES {
        let keep = bernoulli(p);
        assert_eq!(keep.threshold(), threshold, "p = {p:e}");
        assert_eq!(keep.keep_probability(), keep_probability, "p = {p:e}");
        assert_eq!(keep.scale(), scale, "p = {p:e}");
    }
}

#[test]
fn what_is_no_probability_is_refused() {
    for p in [-f64::MIN_POSITIVE, -1e-9, -1.0, 1.0 + f64::EPSILON, 2.0, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(Bernoulli::new(p), Err(Error::Probability { p }));
    }
    assert!(matches!(Bernoulli::new(f64::NAN), Err(Error::Probability { p }) if p.is_nan()));
}

/// Whether no f32 is nearer to `2^32/T` than `scale`, and of two that are as near, `scale` is the even one. All numbers
/// are integers, in units of 2^-25.
fn is_nearest(threshold: u64, scale: f32) -> bool {
    let bits = scale.to_bits();
    let (exponent, fraction) = (bits >> 23, bits & 0x7F_FFFF);
    // From 1 to 2^32: one unit in the last place is 2^2 or more, and what lies below a power of two is half as far away.
    let unit = 1_u128 << (exponent - 127 + 2);
    let value = u128::from(1 << 23 | fraction) * unit;
    let (above, below) = (unit / 2, if fraction == 0 { unit / 4 } else { unit / 2 });
    let (quotient, threshold) = (1_u128 << 57, u128::from(threshold));
    let (least, most) = ((value - below) * threshold, (value + above) * threshold);
    if fraction.is_multiple_of(2) { least <= quotient && quotient <= most } else { least < quotient && quotient < most }
}

#[test]
fn the_scale_is_the_f32_nearest_to_the_exact_quotient() {
    // The test can tell neighbours apart.
    assert!(is_nearest(3, 1_431_655_765.333_333) && !is_nearest(3, 1_431_655_936.0));
    let scale = with_threshold(0xE666_6666).scale();
    assert!(!is_nearest(0xE666_6666, scale.next_up()) && !is_nearest(0xE666_6666, scale.next_down()));

    let near_powers_of_two = (0..=32).flat_map(|power| {
        (0..2000_u64).flat_map(move |step| [(1 << power) + step, (1_u64 << power).saturating_sub(step)])
    });
    // Where the quotient is halfway between two f32, or nearly: T = 2^32/(1 + (2k+1)/2^24) and what is beside it.
    let near_ties = (0..100_000_u64).flat_map(|k| {
        let divisor = (1 << 24) + 2 * (k * 83 % (1 << 23)) + 1;
        let nearest = (1_u64 << 56) / divisor;
        [nearest, nearest + 1]
    });
    let mut random = SplitMix64::seed_from_u64(1);
    let random = (0..300_000).map(move |_| (random.next_u64() >> 32) >> (random.next_u64() >> 59));
    for threshold in (1..5000).chain(ONE - 5000..=ONE).chain(near_powers_of_two).chain(near_ties).chain(random) {
        if (1..=ONE).contains(&threshold) {
            let scale = with_threshold(threshold).scale();
            assert!(is_nearest(threshold, scale), "T = {threshold}: {scale:e}");
        }
    }
}

/// A generator of known words that counts what is taken from it.
#[derive(Debug, Default)]
struct Words {
    taken: usize,
}

impl Words {
    #[expect(clippy::cast_possible_truncation, reason = "numbers of words are small")]
    fn word(number: usize) -> u32 {
        (number as u32).wrapping_mul(0x9E37_79B1).rotate_left(number as u32 % 31) ^ 0x5A5A_0F0F
    }
}

impl TryRng for Words {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.taken += 1;
        Ok(Self::word(self.taken - 1))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("masks are made of words of 32 bits");
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        unreachable!("masks are made of words of 32 bits");
    }
}

#[test]
fn one_half_costs_one_random_bit_an_element() {
    for elements in [1, 8, 511, 512, 513, 1024, 1025, 4096, 10_000] {
        let (mut words, mut mask) = (Words::default(), vec![0xA5; mask_len(elements)]);
        bernoulli(0.5).fill_with(&mut words, elements, &mut mask).expect("a mask of the right length");
        assert_eq!(words.taken, elements.div_ceil(512) * 16, "{elements} elements");
        for element in 0..elements {
            // Kept where the random bit is 0: bit k of word l decides element 32*l + k of its group.
            let word = Words::word(element / 512 * 16 + element % 512 / 32);
            assert_eq!(bit(&mask, element), word >> (element % 32) & 1 == 0, "element {element} of {elements}");
        }
    }
}

#[test]
fn a_caller_s_generator_is_expanded_bit_by_bit() {
    for &threshold in THRESHOLDS {
        for elements in [0, 1, 100, 512, 513, 5000] {
            let keep = with_threshold(threshold);
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(threshold);
            let (mut counted, mut mask) = (Words::default(), vec![0xA5; mask_len(elements)]);
            keep.fill_with(&mut rng.clone(), elements, &mut mask).expect("a mask of the right length");

            let mut expected = vec![0; mask_len(elements)];
            let mut known = 0;
            for first in (0..elements).step_by(512) {
                let kept = group(threshold, |_| rng.next_u32());
                for element in first..elements.min(first + 512) {
                    expected[element / 8] |= u8::from(kept[element - first]) << (element % 8);
                }
                group(threshold, |_| {
                    known += 1;
                    Words::word(known - 1)
                });
            }
            assert!(mask == expected, "T = {threshold:#x}, {elements} elements");

            keep.fill_with(&mut counted, elements, &mut mask).expect("a mask of the right length");
            assert_eq!(counted.taken, known, "words for T = {threshold:#x}, {elements} elements");
        }
    }
}

#[test]
fn a_seed_is_the_next_64_bits_of_a_generator() {
    let mut rng = SplitMix64::seed_from_u64(5);
    let expected = rng.clone().next_u64();
    assert_eq!(seed_from(&mut rng), expected);
}

/// Arguments of `seed_for` and its value, from another implementation of the formula in its
/// documentation.
const SEEDS: &[([u64; 4], u64)] = &[
    ([0, 0, 0, 0], 0x2382_75BC_38FC_BE91),
    ([0, 0, 0, 1], 0xF89A_2566_B582_2C54),
    ([0, 0, 1, 0], 0x2F10_1FE2_1496_EA20),
    ([0, 1, 0, 0], 0x80AB_E802_AC1E_182E),
    ([1, 0, 0, 0], 0xB18A_02F4_6D8D_86C3),
    ([42, 3, 1000, 7], 0xA1F2_A979_A516_9AD1),
    ([0x0123_4567_89AB_CDEF, 12, 1 << 40, 255], 0xFA17_1CB9_8493_4436),
    ([u64::MAX; 4], 0xDD2E_1269_81C8_585F),
];

#[test]
fn the_seeds_of_layers_steps_and_ranks_are_frozen() {
    for &(arguments @ [root, layer, step, rank], seed) in SEEDS {
        assert_eq!(seed_for(root, layer, step, rank), seed, "{arguments:?}: {:#x}", seed_for(root, layer, step, rank));
        // The published generator, moved on to the output that each number asks for.
        let next = |seed: u64, number: u64| {
            SplitMix64::seed_from_u64(seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))).next_u64()
        };
        assert_eq!(next(next(next(root, layer), step), rank), seed, "{arguments:?}");
    }
    const AT_COMPILE_TIME: u64 = seed_for(42, 3, 1000, 7);
    assert_eq!(AT_COMPILE_TIME, 0xA1F2_A979_A516_9AD1);
}

#[test]
fn layers_steps_and_ranks_have_seeds_of_their_own_where_sums_collide() {
    let run = || (0..24).flat_map(|layer| (0..500).flat_map(move |step| (0..8).map(move |rank| (layer, step, rank))));
    let seeds: HashSet<u64> = run().map(|(layer, step, rank)| seed_for(7, layer, step, rank)).collect();
    assert_eq!(seeds.len(), 24 * 500 * 8);
    let sums: HashSet<u64> = run().map(|(layer, step, rank)| 7 + layer + step + rank).collect();
    assert_eq!(sums.len(), 24 + 500 + 8 - 2);
    // Two runs, too, and the same numbers in other places.
    assert!(run().all(|(layer, step, rank)| !seeds.contains(&seed_for(8, layer, step, rank))));
    let places: HashSet<u64> =
        [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]].map(|[a, b, c]| seed_for(0, a, b, c)).into();
    assert_eq!(places.len(), 6);
}

/// The largest number of standard deviations that a statistic may be away from its expectation. A right generator has
/// one outside of it in 16,000 (two-sided); the tests below look at some hundred. The seeds are fixed, so a pass stays
/// one.
const LIMIT: f64 = 4.0;

/// The elements that each test of randomness looks at.
const MANY: usize = 1 << 21;

/// Probabilities to drop whose expansions are of different lengths.
const RANDOMNESS: &[f64] = &[0.5, 0.25, 0.1, 0.9, 1.0 / 3.0, 0.01];

#[test]
fn the_rate_of_kept_elements_is_the_keep_probability() {
    for &p in RANDOMNESS {
        for seed in [0, 1, 2, 0xDEAD_BEEF, u64::MAX] {
            let keep = bernoulli(p);
            let q = keep.keep_probability();
            let kept = ones(&fill(keep, seed, 0, MANY)) as f64;
            let z = (kept - MANY as f64 * q) / (MANY as f64 * q * (1.0 - q)).sqrt();
            assert!(z.abs() < LIMIT, "p = {p}, seed {seed}: {kept} kept, {z:.2} standard deviations off");
        }
    }
}

/// A chi-square statistic as a normal variate (Wilson and Hilferty, *The distribution of chi-square*, 1931).
fn normal_of_chi_square(statistic: f64, degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    ((statistic / degrees).cbrt() - (1.0 - spread)) / spread.sqrt()
}

#[test]
fn the_bytes_of_a_mask_are_as_frequent_as_they_should_be() {
    for p in [0.5, 0.25] {
        let q = bernoulli(p).keep_probability();
        for seed in [0, 1, 2, u64::MAX] {
            let mask = fill(bernoulli(p), seed, 0, 4 * MANY);
            let mut counts = [0_u32; 256];
            for &byte in &mask {
                counts[usize::from(byte)] += 1;
            }
            let terms = counts.iter().zip(0..=u8::MAX).map(|(&count, byte)| {
                let kept = byte.count_ones() as i32;
                let expected = mask.len() as f64 * q.powi(kept) * (1.0 - q).powi(8 - kept);
                (f64::from(count) - expected).powi(2) / expected
            });
            // Too even a distribution is as suspicious as too uneven a one.
            let z = normal_of_chi_square(terms.sum(), 255.0);
            assert!(z.abs() < LIMIT, "p = {p}, seed {seed}: {z:.2}");
        }
    }
}

#[test]
fn elements_at_a_distance_are_not_correlated() {
    // Neighbours; half a word, a word (the next lane), two and eight; a group (the next step of the generators); the
    // rest of a block; a seeding.
    let distances = [1, 2, 8, 16, 31, 32, 33, 64, 256, 480, 512, 1024, 3584, 4096, 8192, 65_536];
    for &p in RANDOMNESS {
        for seed in [0, 1, u64::MAX] {
            let keep = bernoulli(p);
            let q = keep.keep_probability();
            let mask = fill(keep, seed, 0, MANY + 65_536);
            for distance in distances {
                let shifted = fill(keep, seed, distance, MANY);
                let both = mask.iter().zip(&shifted).map(|(a, b)| u64::from((a & b).count_ones())).sum::<u64>();
                let (here, there) = (ones(&mask[..MANY / 8]) as f64 / MANY as f64, ones(&shifted) as f64 / MANY as f64);
                let covariance = both as f64 / MANY as f64 - here * there;
                let z = covariance / (q * (1.0 - q)) * (MANY as f64).sqrt();
                assert!(z.abs() < LIMIT, "p = {p}, seed {seed}, distance {distance}: {z:.2}");
            }
        }
    }
}

/// Checks that the masks of any two of eight seeds are not correlated, nor any mask with a later
/// part of another, and that all eight masks together take every combination of bits as often as
/// independent ones would.
fn check_independence(seeds: [u64; 8], what: &str) {
    // The same elements; neighbours; the next lane of generators and the one after it; the next
    // group of 512 elements; the next seeding, and the sixteenth.
    const SHIFTS: [u64; 7] = [0, 1, 32, 64, 512, 4096, 65_536];
    const ELEMENTS: usize = 1 << 18;
    for &p in &[0.5, 0.1, 0.9] {
        let keep = bernoulli(p);
        let q = keep.keep_probability();
        let masks = seeds.map(|seed| SHIFTS.map(|shift| fill(keep, seed, shift, ELEMENTS)));
        for (one, mask) in masks.iter().enumerate() {
            for (other, shifted) in masks.iter().enumerate().filter(|&(other, _)| other != one) {
                for (shift, shifted) in SHIFTS.iter().zip(shifted) {
                    let both = mask[0].iter().zip(shifted).map(|(a, b)| u64::from((a & b).count_ones())).sum::<u64>();
                    let expected = ones(&mask[0]) as f64 * ones(shifted) as f64 / ELEMENTS as f64;
                    let z = (both as f64 - expected) / (q * (1.0 - q) * (ELEMENTS as f64).sqrt());
                    // About 4000 of them in all: one in 10 billion right generators has one outside
                    // of 6.8.
                    assert!(z.abs() < 6.0, "{what}, p = {p}: seeds {one} and {other}, shift {shift}: {z:.2}");
                }
            }
        }
        // A value each element: one bit of each mask.
        let mut counts = [0_u32; 256];
        for element in 0..ELEMENTS {
            let kept = masks.iter().enumerate().map(|(seed, mask)| usize::from(bit(&mask[0], element)) << seed);
            counts[kept.sum::<usize>()] += 1;
        }
        // Of rare combinations there are too few for a chi-square; together they are as good as any
        // other.
        let (mut rare, mut rare_expected, mut statistic, mut degrees) = (0.0, 0.0, 0.0, -1.0);
        for (combination, &count) in (0..=u8::MAX).zip(&counts) {
            let kept = combination.count_ones() as i32;
            let expected = ELEMENTS as f64 * q.powi(kept) * (1.0 - q).powi(8 - kept);
            if expected < 50.0 {
                (rare, rare_expected) = (rare + f64::from(count), rare_expected + expected);
            } else {
                statistic += (f64::from(count) - expected).powi(2) / expected;
                degrees += 1.0;
            }
        }
        if rare_expected > 0.0 {
            statistic += (rare - rare_expected).powi(2) / rare_expected;
            degrees += 1.0;
        }
        let z = normal_of_chi_square(statistic, degrees);
        assert!(z.abs() < LIMIT, "{what}, p = {p}: combinations {z:.2}");
    }
}

#[test]
fn the_masks_of_neighbouring_seeds_are_independent() {
    for first in [0, 41, 1 << 32, u64::MAX - 3] {
        check_independence(std::array::from_fn(|number| first.wrapping_add(number as u64)), "neighbours");
    }
    // Steps that mean something inside a generator: a seeding's stride, SplitMix64's increment, and
    // powers of two.
    for step in [2, 16, 4096, 1 << 32, 0x9E37_79B9_7F4A_7C15, 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(32)] {
        check_independence(std::array::from_fn(|number| step.wrapping_mul(number as u64)), "steps");
    }
}

#[test]
fn the_masks_of_neighbouring_layers_steps_and_ranks_are_independent() {
    for root in [0, 42] {
        check_independence(std::array::from_fn(|number| seed_for(root, number as u64, 5, 0)), "layers");
        check_independence(std::array::from_fn(|number| seed_for(root, 3, number as u64, 0)), "steps");
        check_independence(std::array::from_fn(|number| seed_for(root, 3, 5, number as u64)), "ranks");
        let mixed = |number: u64| seed_for(root, number % 2, number / 2 % 2, number / 4);
        check_independence(std::array::from_fn(|number| mixed(number as u64)), "all three");
    }
}

#[test]
fn different_seeds_give_different_masks() {
    let keep = bernoulli(0.5);
    let seeds = (0..20_000).chain(u64::MAX - 20_000..=u64::MAX).chain((16..64).map(|power| 1 << power));
    let masks: HashSet<Vec<u8>> = seeds.clone().map(|seed| fill(keep, seed, 0, 256)).collect();
    assert_eq!(masks.len(), seeds.count());

    // One other bit of the seed gives a mask that agrees in half of its elements.
    let elements = 1 << 18;
    for seed in [0, 0x0123_4567_89AB_CDEF] {
        let mask = fill(keep, seed, 0, elements);
        for changed in 0..64 {
            let other = fill(keep, seed ^ 1 << changed, 0, elements);
            let differing = mask.iter().zip(&other).map(|(a, b)| f64::from((a ^ b).count_ones())).sum::<f64>();
            let z = (differing - elements as f64 / 2.0) / (elements as f64 / 4.0).sqrt();
            assert!(z.abs() < LIMIT, "bit {changed} of seed {seed:#x}: {z:.2}");
        }
    }
}
