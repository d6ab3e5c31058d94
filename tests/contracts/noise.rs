//! Noise in the place of dropout: each factor is a pure function of the seed, the law and the index,
//! its law is the documented one, and every backend gives its bits. And alpha dropout, which keeps
//! the mean and the variance.
//!
//! That every number which the noise is made of has the bits of the reference, on every backend, is
//! a test beside the kernels: `noise_contract_every_uniform_and_normal_number_has_the_bits_of_the_reference`
//! in `src/pass/noise.rs`. So the laws can be tested here over all values of the reference.

use normdrop::{
    Bernoulli, Buffer, Config, Error, Granularity, Identity, Layer, Noise, Selu, Shape, mask_len, seed_for,
};
use normdrop_reference::mask as mask_reference;
use normdrop_reference::noise::{self as reference, Law};
use normdrop_reference::random::SplitMix64;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;
use serde::Deserialize;

use crate::digest::backends;
use crate::digest::corpus::environment::{enter, leave, raised};
use crate::environment::in_every_environment;
use crate::support::bits;

/// `2^-24`.
const U: f64 = 1.0 / (1 << 24) as f64;

fn noise(law: Law) -> Noise {
    let noise = match law {
        Law::Gaussian { sigma } => Noise::gaussian(sigma),
        Law::Uniform { half_width } => Noise::uniform(half_width),
    };
    noise.expect("a width in its range")
}

/// The factors from `first` on.
fn factors(law: Law, seed: u64, first: u64, elements: usize) -> Vec<f32> {
    let mut values = vec![1.0; elements];
    noise(law).apply(seed, first, &mut values);
    values
}

fn expected(law: Law, seed: u64, first: u64, elements: usize) -> Vec<f32> {
    reference::words(seed, first.into(), elements).into_iter().map(|word| reference::factor(law, word)).collect()
}

fn laws() -> impl Strategy<Value = Law> {
    let widths = || prop_oneof![Just(0.0), Just(1.0), Just(18_446_744_073_709_551_616.0), 0.0_f32..2.0, 1e-9_f32..1e-3];
    prop_oneof![
        widths().prop_map(|sigma| Law::Gaussian { sigma }),
        widths().prop_map(|half_width| Law::Uniform { half_width }),
    ]
}

fn layer(shape: Shape, p: f64, granularity: Granularity) -> Layer<Selu> {
    Layer::new(shape, Selu, Config { p, granularity, ..Config::DEFAULT }).expect("constants in their ranges")
}

fn nc(n: usize, c: usize) -> Shape {
    Shape::nc(n, c).expect("a small shape")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn noise_contract_any_range_has_the_factors_of_the_reference(
        seed: u64, law in laws(), first in prop_oneof![0_u64..20_000, any::<u64>(), u64::MAX - 9_000..=u64::MAX],
        elements in 0_usize..9_000,
    ) {
        prop_assert_eq!(bits(&factors(law, seed, first, elements)), bits(&expected(law, seed, first, elements)));
    }

    #[test]
    fn noise_contract_every_backend_multiplies_by_the_factors(
        seed: u64, law in laws(), elements in 0_usize..9_000, scale in -126..127_i32,
    ) {
        let mut random = SplitMix64::new(seed);
        #[expect(clippy::cast_possible_truncation, reason = "any numbers will do")]
        let values: Vec<f32> = (0..elements).map(|_| random.next_normal() as f32 * 2.0_f32.powi(scale)).collect();
        let products: Vec<f32> = values.iter().zip(expected(law, seed, 0, elements)).map(|(x, factor)| x * factor).collect();
        for backend in backends() {
            let layer = layer(nc(1, elements), 0.0, Granularity::Element).with_backend(backend).expect("available");
            let mut found = values.clone();
            prop_assert_eq!(layer.apply_noise(noise(law), seed, &mut found), Ok(()));
            prop_assert_eq!(bits(&found), bits(&products), "{:?}", backend);
        }
    }

    #[test]
    fn noise_contract_alpha_dropout_is_within_3_u_of_the_reference_in_every_layout(
        seed: u64, p in 0.0..=1.0, n in 1_usize..5, positions in 1_usize..60, channels in 1_usize..40, which in 0_usize..6,
    ) {
        let granularity = [Granularity::Element, Granularity::Channel, Granularity::Sample][which % 3];
        let last = which < 3;
        let shape = if last { Shape::nlc(n, positions, channels) } else { Shape::ncl(n, channels, positions) };
        check_alpha(shape.expect("a small shape"), [channels, positions, usize::from(last)], p, granularity, seed)?;
    }
}

/// Compares both directions of alpha dropout with the reference, on every backend; some values are NaN.
fn check_alpha(
    shape: Shape,
    [channels, positions, last]: [usize; 3],
    p: f64,
    granularity: Granularity,
    seed: u64,
) -> Result<(), TestCaseError> {
    let mut random = SplitMix64::new(seed);
    #[expect(clippy::cast_possible_truncation, reason = "any numbers will do")]
    let values: Vec<f32> = (0..shape.len())
        .map(|_| if random.next_below(9) == 0 { f32::NAN } else { (3.0 * random.next_normal()) as f32 })
        .collect();
    // [channels, inner, positions of a sample] of the layout.
    let dimensions = if last == 1 { [channels, 1, positions] } else { [channels, positions, 1] };
    let granularity_of_reference = match granularity {
        Granularity::Element => mask_reference::Granularity::Element,
        Granularity::Channel => mask_reference::Granularity::Channel,
        Granularity::Sample => mask_reference::Granularity::Sample,
    };
    let mut found: Option<[Vec<u32>; 2]> = None;
    for backend in backends() {
        let layer = layer(shape, p, granularity).with_backend(backend).expect("available");
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(seed, &mut mask).expect("the mask has the length");
        let (mut forward, mut backward) = (values.clone(), values.clone());
        prop_assert_eq!(layer.alpha_dropout(&mask, &mut forward), Ok(()));
        prop_assert_eq!(layer.alpha_dropout_backward(&mask, &mut backward), Ok(()));
        let exact_p = 1.0 - Bernoulli::new(p).expect("a probability").keep_probability();
        for (element, &x) in values.iter().enumerate() {
            let bit = mask_reference::bit(element, dimensions, granularity_of_reference);
            let kept = mask[bit / 8] >> (bit % 8) & 1 == 1;
            let (y, scale) = reference::alpha_dropout(f64::from(x), kept, exact_p);
            let dx = reference::alpha_dropout_gradient(f64::from(x), kept, exact_p);
            let near = |found: f32, exact: f64, scale: f64| {
                let found = f64::from(found);
                if exact.is_nan() { found.is_nan() } else { (found - exact).abs() <= 3.0 * U * scale }
            };
            prop_assert!(near(forward[element], y, scale), "{} is {} and not {y}", element, forward[element]);
            prop_assert!(near(backward[element], dx, dx.abs()), "{} is {} and not {dx}", element, backward[element]);
            prop_assert!(kept || exact_p == 1.0 || forward[element] < 0.0, "{element} is selected, NaN or not");
            prop_assert!(kept || backward[element].to_bits() == 0);
        }
        let bits = [bits(&forward), bits(&backward)];
        prop_assert_eq!(found.get_or_insert_with(|| bits.clone()), &bits, "{:?}", backend);
    }
    Ok(())
}

/// The first factors of a seed, and the FNV-1a hash (64 bits) of the first million: they are the contract.
#[test]
fn noise_contract_the_factors_are_frozen() {
    const GOLDEN: &[(u64, Law, [u32; 4], u64)] = &[
        (
            0,
            Law::Uniform { half_width: 0.1 },
            [0x3f7b_b9c9, 0x3f6c_4334, 0x3f88_e831, 0x3f8a_fa57],
            0xf805_8e24_faa4_3047,
        ),
        (
            42,
            Law::Uniform { half_width: 1.0 },
            [0x3f26_673b, 0x3eb3_3526, 0x3d57_9610, 0x3f10_eecf],
            0xbbdb_9d62_a9a1_c95b,
        ),
        (0, Law::Gaussian { sigma: 0.5 }, [0x3f65_0431, 0x3ecc_0cee, 0x3fc1_c41a, 0x3fdd_e4be], 0x218e_1cfa_f0e6_3a7c),
        (
            u64::MAX,
            Law::Gaussian { sigma: 1.0 },
            [0x3f38_3c92, 0x4028_f819, 0x3fa3_cc48, 0x3f92_6996],
            0x3ba3_c37b_ab78_b238,
        ),
    ];
    let found = GOLDEN.iter().map(|&(seed, law, ..)| {
        let factors = bits(&factors(law, seed, 0, 1 << 20));
        let hash = factors.iter().flat_map(|bits| bits.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        (seed, law, [factors[0], factors[1], factors[2], factors[3]], hash)
    });
    for (found, expected) in found.zip(GOLDEN) {
        assert_eq!(&found, expected, "{found:#x?}");
    }
}

/// The words are those of the published generators. With a half width of `2^64` a factor is `u*2^64` exactly.
#[test]
fn noise_contract_the_words_are_those_of_rand_xoshiro() {
    let (law, unit) = (Law::Uniform { half_width: 18_446_744_073_709_551_616.0 }, 18_446_744_073_709_551_616.0_f32);
    for seed in [0, 1, 42, u64::MAX] {
        let mut keys = rand_xoshiro::SplitMix64::seed_from_u64(seed);
        keys.next_u64();
        let key = keys.next_u64();
        let found = factors(law, seed, 0, 3 * 4096);
        for (element, factor) in found.into_iter().enumerate() {
            let (block, lane, place) = (element / 4096, element % 16, element % 4096 / 16);
            let stream = (16 * block + lane) as u64;
            let start = key.wrapping_add(stream.wrapping_mul(2).wrapping_mul(SplitMix64::GOLDEN_GAMMA));
            let mut generator = Xoshiro128PlusPlus::seed_from_u64(start);
            let word = (0..=place).map(|_| generator.next_u32()).last().expect("one word at least");
            assert_eq!((factor / unit).to_bits(), reference::uniform(word).to_bits(), "element {element}");
        }
    }
}

/// The sum of squares of all `2m + 1` below `2^24`, of which `u` is made, is `N*(4*N*N - 1)/3` with `N = 2^23`.
#[test]
fn noise_contract_a_uniform_number_has_the_documented_law() {
    let (mut squares, mut previous) = (0_u128, -1);
    for m in 0..1 << 23 {
        let (u, negative) = (reference::uniform(m), reference::uniform(m | 1 << 31));
        assert_eq!(u.to_bits(), (-negative).to_bits());
        let units = f64::from(u) / U;
        assert_eq!(units.fract(), 0.0);
        #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^24")]
        let units = units as i64;
        // Odd, each once, up to 1 - 2^-24.
        assert_eq!(units, previous + 2);
        previous = units;
        squares += u128::from(units.unsigned_abs()).pow(2);
    }
    assert_eq!(previous, (1 << 24) - 1);
    // The variance (1 - 2^-48)/3, in units of 2^-48: of 2^23 numbers.
    assert_eq!(squares * 3, ((1_u128 << 48) - 1) << 23);
}

/// Over all `u`: within `3e-7*|n|` of the exact quantile, and the documented variance and limit.
#[test]
fn noise_contract_a_normal_number_is_the_quantile_and_has_the_documented_law() {
    let (mut worst, mut squares, mut largest) = (0.0_f64, 0.0, 0.0_f64);
    for m in 0..1 << 23 {
        let u = reference::uniform(m);
        let erfinv = reference::erfinv(u);
        assert_eq!(erfinv.to_bits(), (-reference::erfinv(-u)).to_bits());
        let n = f64::from(erfinv) * std::f64::consts::SQRT_2;
        squares += n * n;
        largest = largest.max(n);
        let exact = reference::exact_normal(f64::from(u), n);
        worst = worst.max((n - exact).abs() / exact);
    }
    let variance = squares / f64::from(1 << 23);
    println!("worst error {worst:e}, variance 1 - {:e}, largest {largest}", 1.0 - variance);
    assert!(worst < 3e-7, "{worst:e}");
    assert!((1.0 - variance - 6.6e-8).abs() < 1e-9, "1 - {:e}", 1.0 - variance);
    assert!((5.4199..5.42).contains(&largest), "{largest}");
}

/// Over all words: what rounding does to the mean and the variance of factors.
#[test]
fn noise_contract_factors_have_the_mean_1_and_the_variance_of_their_width() {
    for (law, variance) in [
        (Law::Uniform { half_width: 0.1 }, 0.01 / 3.0),
        (Law::Uniform { half_width: 1.0 }, 1.0 / 3.0),
        (Law::Gaussian { sigma: 0.5 }, 0.25),
        (Law::Gaussian { sigma: 1.0 }, 1.0),
    ] {
        let (mut sum, mut squares) = (0.0, 0.0);
        for m in 0..1 << 23 {
            for word in [m, m | 1 << 31] {
                let deviation = f64::from(reference::factor(law, word)) - 1.0;
                sum += deviation;
                squares += deviation * deviation;
            }
        }
        let count = f64::from(1 << 24);
        let (mean, ratio) = (sum / count, squares / count / variance);
        println!("{law:?}: mean 1 + {mean:e}, variance {:e} off", ratio - 1.0);
        assert!(mean.abs() < U && (ratio - 1.0).abs() < 2e-7, "{law:?}: {mean:e}, {ratio}");
    }
}

/// Means, variances and correlations of neighbours within five standard errors, for seeds that layers and steps get.
#[test]
fn noise_contract_factors_of_any_seed_look_independent() {
    const COUNT: usize = 1 << 16;
    for law in [Law::Uniform { half_width: 3.0_f32.sqrt() }, Law::Gaussian { sigma: 1.0 }] {
        let kurtosis = if matches!(law, Law::Gaussian { .. }) { 3.0 } else { 1.8 };
        for step in 0..20 {
            let seed = if step < 10 { seed_for(1, 0, step, 0) } else { step };
            let next = factors(law, seed + 1, 0, COUNT);
            let values: Vec<f64> = factors(law, seed, 0, COUNT).iter().map(|&factor| f64::from(factor) - 1.0).collect();
            let mean = |products: &mut dyn Iterator<Item = f64>| products.sum::<f64>() / COUNT as f64;
            let error = 5.0 / (COUNT as f64).sqrt();
            assert!(mean(&mut values.iter().copied()).abs() < error);
            let variance = mean(&mut values.iter().map(|value| value * value));
            assert!((variance - 1.0).abs() < error * (kurtosis - 1.0_f64).sqrt(), "{variance}");
            // The same lane, other lanes, the same word of the next block, and the next seed.
            for distance in [1, 2, 15, 16, 32, 4096] {
                let correlation = mean(&mut values.iter().zip(&values[distance..]).map(|(a, b)| a * b));
                assert!(correlation.abs() < error, "{correlation} at {distance}");
            }
            let correlation = mean(&mut values.iter().zip(&next).map(|(a, b)| a * (f64::from(*b) - 1.0)));
            assert!(correlation.abs() < error, "{correlation} with the next seed");
        }
    }
}

#[test]
fn noise_contract_a_mask_and_noise_of_one_seed_are_independent() {
    const COUNT: usize = 1 << 18;
    let keep = Bernoulli::new(0.5).expect("a probability");
    for seed in 0..10 {
        let mut mask = vec![0; mask_len(COUNT)];
        keep.fill(seed, 0, COUNT, &mut mask).expect("the mask has the length");
        let factors = factors(Law::Uniform { half_width: 1.0 }, seed, 0, COUNT);
        let both = |element: &usize| (mask[element / 8] >> (element % 8) & 1 == 1) == (factors[*element] > 1.0);
        let equal = (0..COUNT).filter(both).count();
        assert!(equal.abs_diff(COUNT / 2) < 5 * 256, "{equal} of {COUNT}");
    }
}

#[test]
fn noise_contract_gaussian_dropout_has_the_deviation_of_dropout() {
    for (p, sigma) in [(0.0, 0.0_f32), (0.5, 1.0), (0.2, 0.5), (0.8, 2.0), (0.1, 1.0 / 3.0), (0.75, 3.0_f32.sqrt())] {
        let (mut of_p, mut of_sigma) = ([1.0; 100], [1.0; 100]);
        Noise::gaussian_dropout(p).expect("a probability below 1").apply(7, 3, &mut of_p);
        Noise::gaussian(sigma).expect("a width in its range").apply(7, 3, &mut of_sigma);
        assert_eq!(bits(&of_p), bits(&of_sigma), "p = {p}");
    }
}

#[test]
fn noise_contract_widths_and_probabilities_out_of_range_are_refused() {
    for width in [-1.0, -f32::from_bits(1), f32::NAN, f32::INFINITY, 18_446_746_272_732_807_168.0] {
        let refused =
            |noise| matches!(noise, Err(Error::NoiseWidth { width: found }) if found.to_bits() == width.to_bits());
        assert!(refused(Noise::gaussian(width)) && refused(Noise::uniform(width)), "{width}");
    }
    assert_eq!(Noise::gaussian_dropout(1.0), Err(Error::NoiseWidth { width: f32::INFINITY }));
    assert!(matches!(Noise::gaussian_dropout(f64::NAN), Err(Error::Probability { .. })));
    assert_eq!(Noise::gaussian_dropout(1.5), Err(Error::Probability { p: 1.5 }));
    let text = Error::NoiseWidth { width: -1.0 }.to_string();
    assert!(text.contains("[0, 2^64]") && text.contains("but is -1.0"), "{text}");
}

#[test]
fn noise_contract_wrong_lengths_are_refused_before_anything_is_written() {
    let layer = layer(nc(3, 5), 0.5, Granularity::Element);
    let noise = Noise::uniform(0.5).expect("a width in its range");
    for len in [0, 14, 16] {
        let mut values = vec![2.0; len];
        let refused = Err(Error::Length { buffer: Buffer::Values, expected: 15, actual: len });
        assert_eq!(layer.apply_noise(noise, 1, &mut values), refused);
        assert_eq!(layer.alpha_dropout(&[0xFF; 2], &mut values), refused);
        assert_eq!(layer.alpha_dropout_backward(&[0xFF; 2], &mut values), refused);
        assert!(values.iter().all(|&value| value == 2.0));
    }
    let mut values = [2.0; 15];
    let refused = Err(Error::Length { buffer: Buffer::Mask, expected: 2, actual: 1 });
    assert_eq!(layer.alpha_dropout(&[0xFF], &mut values), refused);
    assert_eq!(layer.alpha_dropout_backward(&[0xFF], &mut values), refused);
    assert_eq!(values, [2.0; 15]);
}

#[test]
fn noise_contract_special_values() {
    const FINITE: [f32; 6] = [f32::MAX, f32::MIN, 0.0, -0.0, 1e-45, -1e-45];
    let quiet: Vec<f32> = (0..60).map(|index| FINITE[index % 6]).collect();
    // A width of 0 leaves every bit as it was, NaN with its payload included.
    let mut values = quiet.clone();
    values.extend([f32::INFINITY, f32::from_bits(0x7F80_0001), f32::from_bits(0xFFC0_1234)]);
    // Not `support::bits`, for which every NaN is the same.
    let all_bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let before = all_bits(&values);
    for noise in [Noise::gaussian(0.0), Noise::uniform(-0.0), Noise::uniform(0.0), Noise::gaussian_dropout(0.0)] {
        noise.expect("a width in its range").apply(1, 2, &mut values);
        assert_eq!(all_bits(&values), before);
    }
    // The largest factors are finite, and so is everything whose product is.
    for law in [Law::Gaussian { sigma: 18_446_744_073_709_551_616.0 }, Law::Uniform { half_width: 0.5 }] {
        let mut values = quiet.clone();
        noise(law).apply(1, 2, &mut values);
        for ((value, x), factor) in values.iter().zip(&quiet).zip(expected(law, 1, 2, 60)) {
            assert!(factor.is_finite() && !value.is_nan());
            assert_eq!(value.is_finite(), (f64::from(*x) * f64::from(factor)).abs() <= f64::from(f32::MAX));
        }
    }
    let mut values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    Noise::uniform(1.0).expect("a width in its range").apply(1, 2, &mut values);
    assert!(values[0].is_nan() && values[1] == f32::INFINITY && values[2] == f32::NEG_INFINITY);
}

#[test]
fn noise_contract_alpha_dropout_of_nothing_and_of_everything() {
    let all = [f32::NAN, f32::INFINITY, -0.0, 0.0, 1e-45, f32::MAX, -3.0, f32::MIN];
    let (none, every) = (layer(nc(1, 8), 0.0, Granularity::Element), layer(nc(1, 8), 1.0, Granularity::Element));
    for mask in [[0xFF], [0x55]] {
        let (mut kept, mut gradient) = (all, all);
        none.alpha_dropout(&mask, &mut kept).expect("the lengths");
        none.alpha_dropout_backward(&mask, &mut gradient).expect("the lengths");
        for (element, x) in all.into_iter().enumerate() {
            let is_kept = mask[0] >> element & 1 == 1;
            let (forward, backward) = if is_kept { (x, x) } else { (-1.758_099_3, 0.0) };
            assert!(kept[element].to_bits() == forward.to_bits() || x.is_nan() && is_kept && kept[element].is_nan());
            assert!(gradient[element].to_bits() == backward.to_bits() || x.is_nan() && gradient[element].is_nan());
        }
        let (mut dropped, mut gradient) = (all, all);
        every.alpha_dropout(&mask, &mut dropped).expect("the lengths");
        every.alpha_dropout_backward(&mask, &mut gradient).expect("the lengths");
        assert_eq!((bits(&dropped), bits(&gradient)), (vec![0; 8], vec![0; 8]));
    }
}

#[test]
fn noise_contract_empty_tensors_are_left_alone() {
    for shape in [Shape::ncl(0, 3, 5), Shape::ncl(2, 0, 5), Shape::ncl(2, 3, 0)] {
        for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
            let layer = layer(shape.expect("an empty shape"), 0.3, granularity);
            let mask = vec![0; layer.mask_len()];
            assert_eq!(layer.alpha_dropout(&mask, &mut []), Ok(()));
            assert_eq!(layer.alpha_dropout_backward(&mask, &mut []), Ok(()));
            assert_eq!(layer.apply_noise(noise(Law::Gaussian { sigma: 1.0 }), 1, &mut []), Ok(()));
        }
    }
}

/// Of a tensor with the mean 0 and the variance 1: by the exact expectation over the bit of each element.
#[test]
fn noise_contract_alpha_dropout_leaves_mean_0_and_variance_1() {
    for p in [0.001, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999] {
        let layer = layer(nc(1, 8), p, Granularity::Element);
        let q = Bernoulli::new(p).expect("a probability").keep_probability();
        let of = |mask| {
            let mut values = [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0];
            layer.alpha_dropout(&[mask], &mut values).expect("the lengths");
            values.map(f64::from)
        };
        let (kept, dropped) = (of(0xFF), of(0));
        let expectation = |power: i32| {
            let mean = |values: [f64; 8]| values.iter().map(|value| value.powi(power)).sum::<f64>() / 8.0;
            q * mean(kept) + (1.0 - q) * mean(dropped)
        };
        let (mean, square) = (expectation(1), expectation(2));
        assert!(mean.abs() < 2e-7 && (square - 1.0).abs() < 5e-7, "p = {p}: {mean:e}, {square}");
    }
}

#[test]
fn environment_contract_noise_and_alpha_dropout_have_the_same_bits_in_every_environment() {
    // Subnormal values, for which a thread that flushes has another result, and factors, which depend on the rounding.
    let values: Vec<f32> =
        (1..200).map(|index| f32::from_bits(3 * index)).chain((1..200).map(|x| x as f32 / 7.0)).collect();
    for backend in backends() {
        let layer = layer(nc(1, values.len()), 0.3, Granularity::Element).with_backend(backend).expect("available");
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(3, &mut mask).expect("the mask has the length");
        let work = || {
            [0, 1, 2, 3, 4].map(|call| {
                let mut values = values.clone();
                let done = match call {
                    4 => Noise::gaussian(0.3).map(|noise| noise.apply(5, 9, &mut values)),
                    0 => layer.apply_noise(Noise::gaussian_dropout(0.3).expect("below 1"), 5, &mut values),
                    1 => layer.apply_noise(Noise::uniform(0.7).expect("a width"), 5, &mut values),
                    2 => layer.alpha_dropout(&mask, &mut values),
                    _ => layer.alpha_dropout_backward(&mask, &mut values),
                };
                done.expect("the lengths");
                // Not `support::bits`, whose comparisons raise flags.
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
        };
        let expected = work();
        for found in in_every_environment(work) {
            assert_eq!(found, expected, "{backend:?}");
        }
    }
}

/// Also those of a width of 0, and of a probability of 0 and 1.
#[test]
fn environment_contract_noise_of_ordinary_numbers_raises_no_flag_but_inexact_and_underflow() {
    #[expect(clippy::cast_possible_truncation, reason = "any numbers will do")]
    let values: Vec<f32> = {
        let mut random = SplitMix64::new(1);
        (0..5000).map(|_| random.next_normal() as f32).collect()
    };
    for backend in backends() {
        for (p, len) in [(0.3, values.len()), (0.0, 33), (1.0, 33), (0.999, 1)] {
            let layer = layer(nc(1, len), p, Granularity::Element).with_backend(backend).expect("available");
            let mut mask = vec![0; layer.mask_len()];
            let default = leave(enter(0));
            assert!(default);
            layer.fill_mask(3, &mut mask).expect("the mask has the length");
            for call in 0..6 {
                let mut values = values[..len].to_vec();
                let done = match call {
                    0 => Noise::gaussian(0.5).and_then(|noise| layer.apply_noise(noise, 5, &mut values)),
                    1 => Noise::uniform(0.7).and_then(|noise| layer.apply_noise(noise, 5, &mut values)),
                    2 => Noise::gaussian_dropout(0.3).and_then(|noise| layer.apply_noise(noise, 5, &mut values)),
                    3 => Noise::uniform(0.0).and_then(|noise| layer.apply_noise(noise, 5, &mut values)),
                    4 => layer.alpha_dropout(&mask, &mut values),
                    _ => layer.alpha_dropout_backward(&mask, &mut values),
                };
                assert!(!raised(), "call {call}, p = {p}, {backend:?}");
                done.expect("the lengths");
            }
        }
    }
}

/// Training, backward and Monte-Carlo calls of the layer that owns its memory, beside those of a layer with the same
/// buffers. An activation with gates, and one without.
#[cfg(feature = "alloc")]
#[test]
fn noise_contract_an_owned_layer_adds_its_noise_to_every_call_with_a_seed() {
    use normdrop::{Activation, BatchNormDropout, Relu};

    fn check<A: Activation>(activation: A, p: f64, granularity: Granularity, noise: Option<Noise>, alpha: bool) {
        let config = Config { p, granularity, ..Config::DEFAULT };
        let shape = Shape::ncl(4, 3, 5).expect("a small shape");
        #[expect(clippy::cast_possible_truncation, reason = "any numbers will do")]
        let tensor = |seed| {
            let mut random = SplitMix64::new(seed);
            (0..shape.len()).map(|_| random.next_normal() as f32).collect::<Vec<_>>()
        };
        let (x, dy) = (tensor(1), tensor(2));
        // Without dropout of its own, or with it.
        let inner = Config { p: if alpha { 0.0 } else { p }, ..config };
        let new = |config| BatchNormDropout::new(3, activation, config).expect("constants in their ranges");
        let (mut plain, mut owned) = (new(inner), new(config));
        let layer = owned.layer(shape).expect("three channels");
        if let Some(noise) = noise {
            owned = owned.with_noise(noise);
        }
        if alpha {
            owned = owned.with_alpha_dropout();
        }
        let after = |seed, values: &mut [f32]| {
            let mut mask = vec![0; layer.mask_len()];
            layer.fill_mask(seed, &mut mask).expect("the mask has the length");
            if alpha {
                layer.alpha_dropout(&mask, values).expect("the lengths");
            }
            if let Some(noise) = noise {
                layer.apply_noise(noise, seed, values).expect("the lengths");
            }
            mask
        };
        for seed in 0..3 {
            let (mut y, mut expected) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            owned.train(shape, seed, &x, &mut y).expect("the lengths");
            plain.train(shape, seed, &x, &mut expected).expect("the lengths");
            let mask = after(seed, &mut expected);
            assert_eq!(bits(&y), bits(&expected));

            // A Monte-Carlo pass in between has another mask.
            let (mut y, mut expected) = (x.clone(), x.clone());
            owned.monte_carlo_in_place(shape, seed + 9, &mut y).expect("the lengths");
            plain.monte_carlo_in_place(shape, seed + 9, &mut expected).expect("the lengths");
            after(seed + 9, &mut expected);
            assert_eq!(bits(&y), bits(&expected));
            owned.monte_carlo(shape, [seed + 9], &x, &mut y, |_, _| ()).expect("the lengths");
            assert_eq!(bits(&y), bits(&expected));

            let (mut noisy, mut dx, mut expected) = (dy.clone(), x.clone(), x.clone());
            if let Some(noise) = noise {
                layer.apply_noise(noise, seed, &mut noisy).expect("the lengths");
            }
            if alpha {
                layer.alpha_dropout_backward(&mask, &mut noisy).expect("the lengths");
            }
            owned.backward(&dy, &mut dx).expect("after a training call");
            plain.backward(&noisy, &mut expected).expect("after a training call");
            assert_eq!(bits(&dx), bits(&expected));
            assert_eq!(
                (bits(&owned.grad_weight), bits(&owned.grad_bias)),
                (bits(&plain.grad_weight), bits(&plain.grad_bias))
            );
            assert!(owned.backward(&dy[1..], &mut dx).is_err());

            let (mut y, mut expected) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            owned.eval(shape, &x, &mut y).expect("the lengths");
            plain.eval(shape, &x, &mut expected).expect("the lengths");
            assert_eq!(bits(&y), bits(&expected));
        }
    }

    let uniform = Noise::uniform(0.5).ok();
    for granularity in [Granularity::Element, Granularity::Channel] {
        check(Selu, 0.0, granularity, uniform, false);
        check(Selu, 0.3, granularity, uniform, false);
        check(Selu, 0.3, granularity, None, true);
        check(Relu, 0.0, granularity, Noise::gaussian_dropout(0.3).ok(), false);
        check(Relu, 0.3, granularity, uniform, true);
        check(Relu, 0.3, granularity, uniform, false);
        check(Relu, 0.0, granularity, None, true);
    }
}

/// A tensor large enough to be cut, and not at a block of the generators.
#[cfg(feature = "rayon")]
#[test]
fn noise_contract_the_bits_are_the_same_for_every_number_of_tasks() {
    let shape = Shape::ncl(3, 7, 33_333).expect("a small shape");
    for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
        let layer = layer(shape, 0.3, granularity);
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(3, &mut mask).expect("the mask has the length");
        let of = |tasks| {
            let layer = layer.with_tasks(tasks);
            let mut tensors = [(); 4].map(|()| vec![1.25; shape.len()]);
            let [gaussian, uniform, forward, backward] = &mut tensors;
            layer.apply_noise(Noise::gaussian(0.5).expect("a width"), 5, gaussian).expect("the lengths");
            layer.apply_noise(Noise::uniform(0.5).expect("a width"), 5, uniform).expect("the lengths");
            layer.alpha_dropout(&mask, forward).expect("the lengths");
            layer.alpha_dropout_backward(&mask, backward).expect("the lengths");
            tensors.map(|tensor| bits(&tensor))
        };
        let one = of(1);
        for tasks in [2, 3, 7, 64] {
            assert!(of(tasks) == one, "{tasks} tasks");
        }
    }
}

#[derive(Debug, Deserialize)]
struct Record {
    torch: String,
    samples: Vec<Sample>,
}

/// A sample of PyTorch's; `pytorch/alpha_dropout.py` says what each field is.
#[derive(Debug, Deserialize)]
struct Sample {
    name: String,
    feature: bool,
    p: f64,
    training: bool,
    dims: Vec<usize>,
    input_bits: String,
    mask: String,
    output_bits: String,
    grad_bits: String,
    mask_f64: String,
    output_f64: String,
}

fn singles(bits: &str) -> Vec<f32> {
    let value = |word| f32::from_bits(u32::from_str_radix(word, 16).expect("a bit pattern"));
    bits.split_ascii_whitespace().map(value).collect()
}

impl Sample {
    /// The layer of a training call, with a mask bit for each channel of a sample if the op is that of features.
    fn layer(&self) -> Layer<Identity> {
        let shape = match self.dims[..] {
            [] => Shape::nc(1, 1),
            [len] => Shape::nc(len, 1),
            [n, c] => Shape::nc(n, c),
            [n, c, h, w] => Shape::nchw(n, c, h, w),
            [n, c, d, h, w] => Shape::ncdhw(n, c, d, h, w),
            _ => panic!("{:?}", self.dims),
        };
        let granularity = if self.feature { Granularity::Channel } else { Granularity::Element };
        let config = Config { p: self.p, granularity, ..Config::DEFAULT };
        shape.and_then(|shape| Layer::new(shape, Identity, config)).expect("a small shape")
    }

    /// The mask that PyTorch drew, in the layer's granularity.
    fn mask(&self, layer: &Layer<Identity>, kept: &str) -> Vec<u8> {
        let (kept, mut mask) = (kept.as_bytes(), vec![0; layer.mask_len()]);
        let shared = kept.len() / layer.mask_bits();
        for (bit, elements) in kept.chunks(shared).enumerate() {
            assert!(elements.iter().all(|element| element == &elements[0]), "{}", self.name);
            mask[bit / 8] |= u8::from(elements[0] == b'1') << (bit % 8);
        }
        mask
    }
}

#[test]
fn noise_contract_alpha_dropout_is_as_pytorch_has_it_in_its_own_36_samples() {
    let record: Record = serde_json::from_str(include_str!("pytorch/alpha_dropout.json")).expect("the format");
    let mut dropped = 0;
    for sample in &record.samples {
        let input = singles(&sample.input_bits);
        if !sample.training {
            // An evaluation has no call of alpha dropout.
            assert_eq!(sample.output_bits, sample.input_bits, "{}", sample.name);
            continue;
        }
        let layer = sample.layer();
        let (mask, mask_f64) = (sample.mask(&layer, &sample.mask), sample.mask(&layer, &sample.mask_f64));
        let run = |mask: &[u8]| {
            let mut values = input.clone();
            layer.alpha_dropout(mask, &mut values).expect("the lengths");
            values
        };
        let grad_output = (1..=input.len()).map(|number| number as f32 / 4.0);
        let mut gradient: Vec<f32> = grad_output.collect();
        layer.alpha_dropout_backward(&mask, &mut gradient).expect("the lengths");
        let doubles = sample.output_f64.split_ascii_whitespace().map(|word| word.parse().expect("a number"));
        let doubles: Vec<f64> = doubles.collect();
        let (single, double) = (run(&mask), run(&mask_f64));
        let (outputs, gradients) = (singles(&sample.output_bits), singles(&sample.grad_bits));
        for (element, &x) in input.iter().enumerate() {
            let kept = sample.mask.as_bytes()[element] == b'1';
            let (_, scale) = reference::alpha_dropout(f64::from(x), kept, sample.p);
            let off = |ours: f32, theirs: f64, scale: f64| (f64::from(ours) - theirs).abs() / (U * scale).max(1e-300);
            // PyTorch's own results in f32 may be off by as much.
            assert!(off(single[element], f64::from(outputs[element]), scale) <= 6.0, "{}: {element}", sample.name);
            let (theirs, ours) = (f64::from(gradients[element]), gradient[element]);
            assert!(off(ours, theirs, theirs.abs()) <= 4.0, "{}: {element}", sample.name);
            let kept = sample.mask_f64.as_bytes()[element] == b'1';
            let (_, scale) = reference::alpha_dropout(f64::from(x), kept, sample.p);
            assert!(off(double[element], doubles[element], scale) <= 3.0, "{}: {element}", sample.name);
            dropped += usize::from(!kept);
        }
    }
    assert_eq!((record.samples.len(), record.torch.as_str()), (36, "2.15.0"));
    assert!(dropped > 1000, "{dropped}");
}
