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

    /// The square root of one number, correctly rounded.
    ///
    /// A backend's own, because an instruction in the legacy SSE encoding between AVX ones costs some CPUs hundreds of
    /// cycles, and that is what `libm` has.
    fn sqrt(self, value: f64) -> f64;

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

/// Work that is written once and run on the lanes of whichever backend was chosen.
///
/// A structure with a method and not a closure, because closures cannot be forced inline into a function that
/// has the backend's CPU feature.
pub(crate) trait Kernel {
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S);
}
