//! Tests of the conversions of lanes: every backend has the bits of the scalar conversions, which
//! are right by the definition of rounding.

extern crate std;

use std::vec::Vec;

use super::{Kernel, LANES, Lane, Lanes, Machine, Simd, dispatch};
use crate::backend::Backend;
use crate::element::{Bf16, F16};

/// The conversions of one type, in lanes or of a single value.
trait Format {
    const NAME: &str;
    /// The bits of the infinity, above which there is NaN.
    const INFINITY: u16;

    fn widen<S: Simd>(s: S, halves: S::Halves) -> S::F32;
    fn narrow<S: Simd>(s: S, value: S::F32) -> S::Halves;
    fn narrow_two<S: Simd>(s: S, values: [S::F32; 2]) -> [S::Halves; 2];
}

impl Format for F16 {
    const NAME: &str = "f16";
    const INFINITY: u16 = 0x7c00;

    #[inline(always)]
    fn widen<S: Simd>(s: S, halves: S::Halves) -> S::F32 {
        s.widen_f16(halves)
    }

    #[inline(always)]
    fn narrow<S: Simd>(s: S, value: S::F32) -> S::Halves {
        s.narrow_f16(value)
    }

    #[inline(always)]
    fn narrow_two<S: Simd>(s: S, values: [S::F32; 2]) -> [S::Halves; 2] {
        s.narrow_two_f16(values)
    }
}

impl Format for Bf16 {
    const NAME: &str = "bf16";
    const INFINITY: u16 = 0x7f80;

    #[inline(always)]
    fn widen<S: Simd>(s: S, halves: S::Halves) -> S::F32 {
        s.widen_bf16(halves)
    }

    #[inline(always)]
    fn narrow<S: Simd>(s: S, value: S::F32) -> S::Halves {
        s.narrow_bf16(value)
    }

    #[inline(always)]
    fn narrow_two<S: Simd>(s: S, values: [S::F32; 2]) -> [S::Halves; 2] {
        s.narrow_two_bf16(values)
    }
}

/// Sixteen conversions to f32 and sixteen from it.
struct Convert<'a, F> {
    format: core::marker::PhantomData<F>,
    halves: &'a [Lanes<F16>],
    widened: &'a mut [Lanes<f32>],
    singles: &'a [Lanes<f32>],
    narrowed: &'a mut [Lanes<F16>],
}

impl<F: Format> Kernel for Convert<'_, F> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        for s in m.each(LANES) {
            for (from, to) in self.halves.iter().zip(&mut *self.widened) {
                s.store(F::widen(s, s.load_halves(from)), to);
            }
            let mut before = s.splat(-1.0);
            for (from, to) in self.singles.iter().zip(&mut *self.narrowed) {
                let value = s.load(from);
                s.store_halves(F::narrow(s, value), to);
                for (pair, place) in [([value, before], 0), ([before, value], 1)] {
                    let mut two = [*to; 2];
                    let [first, second] = F::narrow_two(s, pair);
                    s.store_halves(first, &mut two[0]);
                    s.store_halves(second, &mut two[1]);
                    assert_eq!(two[place].map(F16::to_bits), to.map(F16::to_bits), "{}: {from:?}", F::NAME);
                }
                before = value;
            }
        }
    }
}

/// The single conversions, which the lanes are compared with.
fn widened<F: Format>(bits: u16) -> f32 {
    F::widen(Lane::FIRST, bits)
}

fn narrowed<F: Format>(value: f32) -> u16 {
    F::narrow(Lane::FIRST, value)
}

/// Whether `bits` is the half nearest to `value`, of two the even one.
fn is_nearest<F: Format>(value: f32, bits: u16) -> bool {
    let magnitude = bits & 0x7fff;
    if value.is_nan() {
        return magnitude > F::INFINITY && widened::<F>(bits).to_bits() & 0x0040_0000 != 0;
    }
    if value.is_sign_negative() != (bits & 0x8000 != 0) || magnitude > F::INFINITY {
        return false;
    }
    // Past the largest number there is one more step, which is infinity.
    let of = |magnitude: u16| {
        let below = f64::from(widened::<F>(magnitude.min(F::INFINITY - 1)));
        let step = below - f64::from(widened::<F>(F::INFINITY - 2));
        if magnitude == F::INFINITY { below + step } else { below }
    };
    let (value, this) = (f64::from(value.abs()), of(magnitude));
    if value.is_infinite() {
        return magnitude == F::INFINITY;
    }
    let even = magnitude.is_multiple_of(2);
    let holds = |other: f64| {
        let (mine, others) = ((value - this).abs(), (value - other).abs());
        mine < others || mine == others && even
    };
    (magnitude == 0 || holds(of(magnitude - 1))) && (magnitude == F::INFINITY || holds(of(magnitude + 1)))
}

/// Checks sixteen times as many values as there are vectors, on every backend.
fn check<F: Format>(singles: &[Lanes<f32>]) {
    for value in singles.as_flattened() {
        let bits = narrowed::<F>(*value);
        assert!(is_nearest::<F>(*value, bits), "{}: {value:e} ({:#x}) to {bits:#x}", F::NAME, value.to_bits());
    }
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        let mut narrow = std::vec![[F16::ZERO; LANES]; singles.len()];
        dispatch(
            Some(backend),
            Convert::<F> {
                format: core::marker::PhantomData,
                halves: &[],
                widened: &mut [],
                singles,
                narrowed: &mut narrow,
            },
        );
        for (value, bits) in singles.as_flattened().iter().zip(narrow.as_flattened()) {
            let (bits, expected) = (bits.to_bits(), narrowed::<F>(*value));
            assert_eq!(bits, expected, "{} of {value:e} ({:#x}) on {backend:?}", F::NAME, value.to_bits());
        }
    }
}

/// Values whose bits go from `first` to `last` in steps of `step`.
fn in_steps(first: u64, step: usize, last: u64) -> Vec<Lanes<f32>> {
    let lanes = |start: u64| {
        core::array::from_fn(|lane| {
            #[expect(clippy::cast_possible_truncation, reason = "bits of 32 bits")]
            let bits = (start + (lane * step) as u64).min(u64::from(u32::MAX)) as u32;
            f32::from_bits(bits)
        })
    };
    (first..last).step_by(step * LANES).map(lanes).collect()
}

fn widening<F: Format>() {
    let halves: Vec<Lanes<F16>> = (0..=u16::MAX)
        .step_by(LANES)
        .map(|first| core::array::from_fn(|lane| F16::from_bits(first + u16::try_from(lane).unwrap_or_default())))
        .collect();
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        let mut wide = std::vec![[0.0; LANES]; halves.len()];
        dispatch(
            Some(backend),
            Convert::<F> {
                format: core::marker::PhantomData,
                halves: &halves,
                widened: &mut wide,
                singles: &[],
                narrowed: &mut [],
            },
        );
        for (half, wide) in halves.as_flattened().iter().zip(wide.as_flattened()) {
            let half = half.to_bits();
            assert_eq!(wide.to_bits(), widened::<F>(half).to_bits(), "{} {half:#x} on {backend:?}", F::NAME);
            if !wide.is_nan() {
                assert_eq!(narrowed::<F>(*wide), half, "{} there and back", F::NAME);
            }
        }
    }
}

/// By the formula of IEEE 754, in f64.
#[test]
fn bits_contract_every_f16_is_widened_to_its_value() {
    for bits in 0..=u16::MAX {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
        let value = F16::from_bits(bits).to_f32();
        match exponent {
            31 if fraction != 0.0 => assert!(value.is_nan(), "{bits:#x}"),
            31 => assert_eq!(f64::from(value), sign * f64::INFINITY),
            0 => assert_eq!(f64::from(value), sign * fraction * 2f64.powi(-24)),
            _ => assert_eq!(f64::from(value), sign * (1024.0 + fraction) * 2f64.powi(exponent - 25)),
        }
        assert_eq!(value.is_sign_negative(), bits >> 15 == 1);
    }
}

#[test]
fn bits_contract_every_half_is_widened_to_the_same_bits_on_every_backend() {
    widening::<F16>();
    widening::<Bf16>();
}

/// A sample of all f32, and the f32 around every half and around every number midway between two halves.
#[test]
fn bits_contract_halves_are_rounded_once_to_nearest_even_on_every_backend() {
    let sample = in_steps(0, 65_521, 1 << 32);
    check::<F16>(&sample);
    check::<Bf16>(&sample);
    for half in (0..=u16::MAX).step_by(if cfg!(miri) { 2999 } else { 1 }) {
        for (widened, step) in [(widened::<F16>(half), 0x1000), (widened::<Bf16>(half), 0x8000)] {
            let around = |offset: u32| {
                let bits = widened.to_bits();
                [offset, offset.wrapping_sub(1), offset + 1, 0].map(|offset| f32::from_bits(bits.wrapping_add(offset)))
            };
            let mut lanes = [0.0; LANES];
            for (four, offset) in lanes.as_chunks_mut::<4>().0.iter_mut().zip([0, step / 2, step, 3 * step]) {
                *four = around(offset);
            }
            check::<F16>(&[lanes]);
            check::<Bf16>(&[lanes]);
        }
    }
}

#[test]
#[ignore = "all f32: some minutes"]
fn bits_contract_every_f32_is_rounded_once_to_nearest_even_on_every_backend() {
    for first in (0..1_u64 << 32).step_by(1 << 20) {
        let values = in_steps(first, 1, first + (1 << 20));
        check::<F16>(&values);
        check::<Bf16>(&values);
    }
}
