//! The portable lanes of SSE2, simd128 and big-endian AArch64, on the crate `wide`.
//!
//! The code uses only methods of `wide` whose result does not depend on the target. Clippy refuses
//! all other methods (`disallowed-methods`).

use core::ops::{Add, BitAnd, Div, Mul, Sub};

use wide::{f32x16, u32x16};

use super::strip::{SingleFunction, Strip, StripFunction, StripFunctions, single, strip};
use super::{LANES, Lanes, Machine, Simd, Work, halves, whole};
use crate::element::Half;

/// The backend that every target has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// A [`Strip`] on portable lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableStrip {
    pub(super) single: SingleFunction,
    strip: StripFunction<Portable>,
}

impl PortableStrip {
    pub(super) const fn of<F: Strip>() -> Self {
        Self { single: single::<F>, strip: strip::<Portable, F> }
    }
}

/// Sixteen truth values: all bits of a lane are set or clear.
#[derive(Clone, Copy)]
pub(crate) struct Mask(u32x16);

impl BitAnd for Mask {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Sixteen f64 in a plain array, which the compiler is left to vectorise: for SSE2, for simd128, or for
/// NEON on big-endian AArch64. `wide` has no conversion between f32 and f64 lanes that is vectorised on
/// every target.
#[derive(Clone, Copy)]
pub(crate) struct F64(Lanes<f64>);

macro_rules! elementwise {
    ($trait:ident, $method:ident, $assign:tt) => {
        impl $trait for F64 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let mut result = self.0;
                for (value, other) in result.iter_mut().zip(other.0) {
                    *value $assign other;
                }
                Self(result)
            }
        }
    };
}
elementwise!(Add, add, +=);
elementwise!(Sub, sub, -=);
elementwise!(Mul, mul, *=);
elementwise!(Div, div, /=);

/// Bit `i` in lane `i`.
const BIT_OF_LANE: u32x16 = {
    let mut lanes = [0; LANES];
    let mut i = 0;
    while i < LANES {
        lanes[i] = 1 << i;
        i += 1;
    }
    u32x16::new(lanes)
};

impl Machine for Portable {
    type Simd = Self;

    #[inline(always)]
    fn all(self) -> Option<Self> {
        Some(self)
    }
}

impl Simd for Portable {
    const LEAN: bool = true;

    type F32 = f32x16;
    type F64 = F64;
    type U32 = u32x16;
    type Mask = Mask;
    type Halves = u32x16;

    #[inline(never)]
    fn apart(self, work: impl Work<Self>) {
        work.run(self);
    }

    #[inline(always)]
    fn strip(self, functions: &StripFunctions, parameter: f32, factors: &[f32], values: &mut [f32]) {
        (functions.portable.strip)(self, parameter, factors, values);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> f32x16 {
        f32x16::splat(value)
    }

    #[inline(always)]
    fn load(self, from: &Lanes<f32>) -> f32x16 {
        f32x16::new(*from)
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> f32x16 {
        let mut lanes = [0.0; LANES];
        for (lane, &value) in lanes.iter_mut().zip(from) {
            *lane = value;
        }
        f32x16::new(lanes)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn prefetch_first<T>(self, from: &Lanes<T>, ahead: usize) {
        super::x86::prefetch_first(from, ahead);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn prefetch_second<T>(self, from: &Lanes<T>, ahead: usize) {
        super::x86::prefetch_second(from, ahead);
    }

    #[inline(always)]
    fn store(self, value: f32x16, to: &mut Lanes<f32>) {
        *to = value.to_array();
    }

    #[inline(always)]
    fn store_partial(self, value: f32x16, to: &mut [f32]) {
        for (to, lane) in to.iter_mut().zip(value.to_array()) {
            *to = lane;
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn stream(self, value: f32x16, to: &mut Lanes<f32>) {
        super::x86::stream(value.to_array(), to);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn fence(self) {
        super::x86::fence();
    }

    #[inline(always)]
    fn load_halves<H: Half>(self, from: &Lanes<H>) -> u32x16 {
        let mut words = [0; LANES];
        for (word, half) in words.iter_mut().zip(from) {
            *word = u32::from(half.bits());
        }
        u32x16::new(words)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the upper halves are 0")]
    fn store_halves<H: Half>(self, halves: u32x16, to: &mut Lanes<H>) {
        for (half, word) in to.iter_mut().zip(halves.to_array()) {
            *half = H::of_bits(word as u16);
        }
    }

    /// The bits at their new place are the number times 2^-112. Its product with 2^112 is exact, for a
    /// subnormal number too.
    #[inline(always)]
    fn widen_f16(self, halves: u32x16) -> f32x16 {
        const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);

        let magnitude = f32x16::from_bits((halves & u32x16::splat(0x7fff)) << 13) * f32x16::splat(TWO_TO_112);
        let limit = f32x16::splat(65536.0);
        // A number with the largest exponent is infinite or NaN.
        let infinite = limit.simd_le(magnitude).to_bits() & u32x16::splat(0x7f80_0000);
        let nan = limit.simd_lt(magnitude).to_bits() & u32x16::splat(0x7fc0_0000);
        f32x16::from_bits(magnitude.to_bits() | infinite | nan | ((halves & u32x16::splat(0x8000)) << 16))
    }

    /// The rounding of [`F16::from_f32`](crate::F16::from_f32), except that a number below 2^-14 is
    /// rounded by its sum with 0.5, whose last place is 2^-24.
    #[inline(always)]
    fn narrow_f16(self, value: f32x16) -> u32x16 {
        let bits = value.to_bits();
        let magnitude_bits = bits & u32x16::splat(0x7fff_ffff);
        let magnitude = f32x16::from_bits(magnitude_bits);
        let even = (magnitude_bits >> 13) & u32x16::splat(1);
        let normal = (magnitude_bits + u32x16::splat(0x0fff_u32.wrapping_sub(112 << 23)) + even) >> 13;
        let small = (magnitude + f32x16::splat(0.5)).to_bits() - u32x16::splat(0x3f00_0000);
        let is_small = magnitude.simd_lt(f32x16::splat(1.0 / 16384.0)).to_bits();
        let is_large = !magnitude.simd_lt(f32x16::splat(65536.0)).to_bits();
        let nan = u32x16::splat(0x0200) | ((magnitude_bits >> 13) & u32x16::splat(0x03ff));
        let large = u32x16::splat(0x7c00) | (nan & !magnitude.simd_le(magnitude).to_bits());
        let finite = (small & is_small) | (normal & !is_small);
        (large & is_large) | (finite & !is_large) | ((bits >> 16) & u32x16::splat(0x8000))
    }

    #[inline(always)]
    fn widen_bf16(self, halves: u32x16) -> f32x16 {
        f32x16::from_bits(halves << 16)
    }

    #[inline(always)]
    fn narrow_bf16(self, value: f32x16) -> u32x16 {
        let bits = value.to_bits();
        let upper = bits >> 16;
        let rounded = (bits + u32x16::splat(0x7fff) + (upper & u32x16::splat(1))) >> 16;
        let is_nan = !value.simd_le(value).to_bits();
        ((upper | u32x16::splat(0x0040)) & is_nan) | (rounded & !is_nan)
    }

    #[inline(always)]
    fn le(self, a: f32x16, b: f32x16) -> Mask {
        Mask(a.simd_le(b).to_bits())
    }

    #[inline(always)]
    fn unless_less(self, mask: Mask, a: f32x16, b: f32x16) -> Mask {
        Mask(mask.0 & !a.simd_lt(b).to_bits())
    }

    #[inline(always)]
    fn keep(self, mask: Mask, value: f32x16) -> f32x16 {
        value & f32x16::from_bits(mask.0)
    }

    #[inline(always)]
    fn drop(self, mask: Mask, value: f32x16) -> f32x16 {
        value & f32x16::from_bits(!mask.0)
    }

    #[inline(always)]
    fn select(self, mask: Mask, yes: f32x16, no: f32x16) -> f32x16 {
        (yes & f32x16::from_bits(mask.0)) | (no & f32x16::from_bits(!mask.0))
    }

    #[inline(always)]
    fn mask(self, bits: u16) -> Mask {
        Mask((u32x16::splat(u32::from(bits)) & BIT_OF_LANE).simd_eq(BIT_OF_LANE))
    }

    #[inline(always)]
    fn bits(self, mask: Mask) -> u16 {
        let mut bits = 0;
        for (lane, value) in mask.0.to_array().into_iter().enumerate() {
            bits |= u16::from(value != 0) << lane;
        }
        bits
    }

    #[inline(always)]
    fn splat_f64(self, value: f64) -> F64 {
        F64([value; LANES])
    }

    #[inline(always)]
    fn load_f64(self, from: &Lanes<f64>) -> F64 {
        F64(*from)
    }

    #[inline(always)]
    fn store_f64(self, value: F64, to: &mut Lanes<f64>) {
        *to = value.0;
    }

    #[inline(always)]
    fn widen(self, value: f32x16) -> F64 {
        F64(value.to_array().map(f64::from))
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
    fn narrow(self, value: F64) -> f32x16 {
        f32x16::new(value.0.map(|lane| lane as f32))
    }

    #[inline(always)]
    fn sqrt(self, value: F64) -> F64 {
        F64(value.0.map(libm::sqrt))
    }

    #[inline(always)]
    fn larger(self, a: F64, b: F64) -> F64 {
        let mut result = b.0;
        for (b, a) in result.iter_mut().zip(a.0) {
            *b = if a > *b { a } else { *b };
        }
        F64(result)
    }

    #[inline(always)]
    fn less(self, a: F64, b: F64) -> u16 {
        a.0.iter().zip(&b.0).enumerate().fold(0, |bits, (lane, (a, b))| bits | u16::from(a < b) << lane)
    }

    #[inline(always)]
    fn load_pair(self, from: &Lanes<f64>) -> (f32x16, f32x16) {
        let mut lanes = [[0.0; 2]; LANES];
        for (pair, word) in lanes.iter_mut().zip(from) {
            *pair = halves(*word);
        }
        let (first, second) = lanes.as_flattened().split_at(LANES);
        (self.load_partial(first), self.load_partial(second))
    }

    #[inline(always)]
    fn store_pair(self, first: f32x16, second: f32x16, to: &mut Lanes<f64>) {
        let lanes = [first.to_array(), second.to_array()];
        for (word, pair) in to.iter_mut().zip(lanes.as_flattened().as_chunks().0) {
            *word = whole(*pair);
        }
    }

    #[inline(always)]
    fn splat_u32(self, value: u32) -> u32x16 {
        u32x16::splat(value)
    }

    #[inline(always)]
    fn load_u32(self, from: &Lanes<u32>) -> u32x16 {
        u32x16::new(*from)
    }

    #[inline(always)]
    fn store_u32(self, value: u32x16, to: &mut Lanes<u32>) {
        *to = value.to_array();
    }

    #[inline(always)]
    fn without(self, value: u32x16, of: u32x16) -> u32x16 {
        value & !of
    }

    #[inline(always)]
    fn shift_left<const BITS: u32>(self, value: u32x16) -> u32x16 {
        value << BITS
    }

    #[inline(always)]
    fn rotate_left<const BITS: u32>(self, value: u32x16) -> u32x16 {
        (value << BITS) | (value >> (32 - BITS))
    }

    #[inline(always)]
    fn to_bits(self, value: f32x16) -> u32x16 {
        value.to_bits()
    }

    #[inline(always)]
    fn with_bits(self, bits: u32x16) -> f32x16 {
        f32x16::from_bits(bits)
    }

    #[inline(always)]
    fn is_zero(self, value: u32x16) -> bool {
        value.to_array().into_iter().fold(0, |bits, lane| bits | lane) == 0
    }
}
