//! Sixteen logical lanes on every target, and the few operations that the kernels are written in.
//!
//! The register width is not part of any result: portable lanes are `wide::f32x16`, AVX2 lanes are two
//! registers, AVX-512 lanes are one. Every operation is exact or correctly rounded on its own (`+ - * /`,
//! conversions, compare, select, bit operations); none is fused, none is an estimate, and the only sums across
//! lanes are [`Simd::fold`] and [`Simd::fold_f64`], whose tree is the same everywhere.

mod detect;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

pub use detect::Backend;
pub(crate) use detect::dispatch;
pub(crate) use portable::Portable;

/// The number of logical lanes, on every target.
pub(crate) const LANES: usize = 16;

/// One value per lane, in memory.
pub(crate) type Lanes<T> = [T; LANES];

/// A backend: a zero-sized token that proves that the CPU has what its operations need.
///
/// Everything generic over it is `#[inline(always)]`: a helper that stays a function of its own is compiled
/// without the CPU feature and runs twenty times slower.
pub(crate) trait Simd: Copy {
    /// Sixteen f32.
    type F32: Copy
        + Add<Output = Self::F32>
        + Sub<Output = Self::F32>
        + Mul<Output = Self::F32>
        + Div<Output = Self::F32>;
    /// Sixteen f64.
    type F64: Copy
        + Add<Output = Self::F64>
        + Sub<Output = Self::F64>
        + Mul<Output = Self::F64>
        + Div<Output = Self::F64>;
    /// Sixteen u32; addition wraps.
    type U32: Copy
        + Add<Output = Self::U32>
        + BitAnd<Output = Self::U32>
        + BitOr<Output = Self::U32>
        + BitXor<Output = Self::U32>;
    /// Sixteen truth values.
    type Mask: Copy + BitAnd<Output = Self::Mask>;

    /// Runs a kernel in a function of its own that has the backend's CPU feature: for what is too large to be repeated
    /// wherever it is used. Its vectors go through memory.
    fn apart(self, kernel: impl Kernel);

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// Sixteen values from memory.
    fn load(self, from: &Lanes<f32>) -> Self::F32;
    /// The first lanes from memory, as many as `from` has, and +0.0 in the others.
    fn load_partial(self, from: &[f32]) -> Self::F32;
    /// Sixteen values to memory.
    fn store(self, value: Self::F32, to: &mut Lanes<f32>);
    /// The first lanes to memory, as many as `to` has room for.
    fn store_partial(self, value: Self::F32, to: &mut [f32]);
    /// The sum over the lanes: the upper half is added to the lower, 16 to 8, 4, 2, 1.
    fn fold(self, value: Self::F32) -> f32;

    /// `a <= b`, false where either is NaN.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `value` where the mask is true, +0.0 elsewhere, whatever `value` is there.
    fn keep(self, mask: Self::Mask, value: Self::F32) -> Self::F32;
    /// `value` where the mask is false, +0.0 elsewhere, whatever `value` is there.
    fn drop(self, mask: Self::Mask, value: Self::F32) -> Self::F32;
    /// `yes` where the mask is true, `no` elsewhere.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// The mask whose lane `i` is bit `i`.
    fn mask(self, bits: u16) -> Self::Mask;
    /// The bits of a mask: bit `i` is lane `i`.
    fn bits(self, mask: Self::Mask) -> u16;

    /// `value` in every lane.
    fn splat_f64(self, value: f64) -> Self::F64;
    /// Sixteen values from memory.
    fn load_f64(self, from: &Lanes<f64>) -> Self::F64;
    /// Sixteen values to memory.
    fn store_f64(self, value: Self::F64, to: &mut Lanes<f64>);
    /// The sum over the lanes, by the same tree as [`Simd::fold`].
    fn fold_f64(self, value: Self::F64) -> f64;
    /// To double precision, exactly.
    fn widen(self, value: Self::F32) -> Self::F64;
    /// To single precision, rounded to nearest even.
    fn narrow(self, value: Self::F64) -> Self::F32;

    /// The square root of every lane, correctly rounded.
    fn sqrt(self, value: Self::F64) -> Self::F64;
    /// `a` where `a > b`, else `b`: `b` also where either is NaN.
    fn larger(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// Bit `i` is whether lane `i` has `a < b`, which is false where either is NaN.
    fn less(self, a: Self::F64, b: Self::F64) -> u16;

    /// Two vectors from sixteen words of 64 bits, as [`Simd::store_pair`] has put them there.
    fn load_pair(self, from: &Lanes<f64>) -> (Self::F32, Self::F32);
    /// The bits of two vectors in sixteen words of 64 bits, on every target alike: word `i` has the lanes `2*i` (the
    /// lower half) and `2*i + 1` of the first vector, word `8 + i` those of the second.
    fn store_pair(self, first: Self::F32, second: Self::F32, to: &mut Lanes<f64>);

    /// `value` in every lane.
    fn splat_u32(self, value: u32) -> Self::U32;
    /// Sixteen values from memory.
    fn load_u32(self, from: &Lanes<u32>) -> Self::U32;
    /// Sixteen values to memory.
    fn store_u32(self, value: Self::U32, to: &mut Lanes<u32>);
    /// The bits of every lane that `of` does not have.
    fn without(self, value: Self::U32, of: Self::U32) -> Self::U32;
    /// Every lane shifted left.
    fn shift_left<const BITS: u32>(self, value: Self::U32) -> Self::U32;
    /// Every lane rotated left.
    fn rotate_left<const BITS: u32>(self, value: Self::U32) -> Self::U32;
    /// The bits of every lane, as they are.
    fn to_bits(self, value: Self::F32) -> Self::U32;
    /// The values that have these bits.
    fn with_bits(self, bits: Self::U32) -> Self::F32;
    /// Whether every bit of every lane is zero.
    fn is_zero(self, value: Self::U32) -> bool;
}

/// Up to sixteen values from memory, and +0.0 in the lanes beyond.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, from: &[f32]) -> S::F32 {
    match from.try_into() {
        Ok(lanes) => s.load(lanes),
        Err(_) => s.load_partial(from),
    }
}

/// Overwrites up to sixteen values in memory.
#[inline(always)]
pub(crate) fn store<S: Simd>(s: S, value: S::F32, to: &mut [f32]) {
    match <&mut Lanes<f32>>::try_from(&mut *to) {
        Ok(lanes) => s.store(value, lanes),
        Err(_) => s.store_partial(value, to),
    }
}

/// Up to sixteen f64 from memory, and +0.0 in the lanes beyond.
#[inline(always)]
pub(crate) fn load_f64<S: Simd>(s: S, from: &[f64]) -> S::F64 {
    match from.try_into() {
        Ok(lanes) => s.load_f64(lanes),
        Err(_) => {
            let mut lanes = [0.0; LANES];
            for (lane, &value) in lanes.iter_mut().zip(from) {
                *lane = value;
            }
            s.load_f64(&lanes)
        }
    }
}

/// Overwrites up to sixteen f64 in memory.
#[inline(always)]
pub(crate) fn store_f64<S: Simd>(s: S, value: S::F64, to: &mut [f64]) {
    match <&mut Lanes<f64>>::try_from(&mut *to) {
        Ok(lanes) => s.store_f64(value, lanes),
        Err(_) => {
            let mut lanes = [0.0; LANES];
            s.store_f64(value, &mut lanes);
            for (to, lane) in to.iter_mut().zip(lanes) {
                *to = lane;
            }
        }
    }
}

/// The lower and the upper half of a word, each the bits of an f32.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
pub(crate) const fn halves(word: f64) -> [f32; 2] {
    let bits = word.to_bits();
    [f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]
}

/// The word that has these [`halves`].
#[inline(always)]
pub(crate) const fn whole([lower, upper]: [f32; 2]) -> f64 {
    f64::from_bits(lower.to_bits() as u64 | (upper.to_bits() as u64) << 32)
}

/// Work that is written once and run on the lanes of whichever backend was chosen.
///
/// A structure with a method and not a closure, because closures cannot be forced inline into a function that
/// has the backend's CPU feature.
pub(crate) trait Kernel {
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S);
}
