//! Sixteen logical lanes on every target, and the few operations in which the kernels are written.
//!
//! The register width does not change any result. Portable lanes are `wide::f32x16`, or four NEON
//! registers on AArch64; AVX2 lanes are two registers, AVX-512 lanes are one register. On targets
//! without vector registers lanes are scalars, one at a time. Every operation is exact or correctly
//! rounded on its own (`+ - * /`, conversions, compare, select, bit operations). No operation is fused
//! or an estimate, and none adds one lane to another: `pass/sums.rs` has the only sum across lanes.

mod cast;
#[cfg(test)]
mod conversions;
mod detect;
mod environment;
mod lane;
#[cfg(any(
    all(target_arch = "x86_64", target_feature = "sse2"),
    all(target_arch = "aarch64", target_feature = "neon", target_endian = "little", not(normdrop_backend = "scalar"))
))]
#[macro_use]
mod lanes;
/// The portable lanes of AArch64.
#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    target_endian = "little",
    not(normdrop_backend = "scalar")
))]
mod neon;
/// The portable lanes of targets without vector registers.
#[cfg(not(all(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    not(normdrop_backend = "scalar")
)))]
mod scalar;
mod splitmix;
mod strip;
/// The portable lanes of SSE2, simd128 and big-endian AArch64.
#[cfg(all(
    any(
        target_feature = "sse2",
        target_feature = "simd128",
        all(target_arch = "aarch64", target_feature = "neon", target_endian = "big")
    ),
    not(normdrop_backend = "scalar")
))]
mod wide;
// Without SSE2 there are no vector registers, for example in a kernel or firmware that computes
// floats in software.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod x86;

use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

use crate::element::Half;

#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    target_endian = "little",
    not(normdrop_backend = "scalar")
))]
pub(crate) use self::neon::{Portable, PortableStrip};
#[cfg(not(all(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    not(normdrop_backend = "scalar")
)))]
pub(crate) use self::scalar::{Portable, PortableStrip};
#[cfg(all(
    any(
        target_feature = "sse2",
        target_feature = "simd128",
        all(target_arch = "aarch64", target_feature = "neon", target_endian = "big")
    ),
    not(normdrop_backend = "scalar")
))]
pub(crate) use self::wide::{Portable, PortableStrip};
pub(crate) use cast::{singles, singles_mut};
pub(crate) use detect::dispatch;
pub(crate) use environment::{Caller, in_default, one_at_a_time, rounded};
pub(crate) use lane::Lane;
pub(crate) use splitmix::{GOLDEN_GAMMA, splitmix64};
pub(crate) use strip::{Strip, StripFunctions};

/// The number of logical lanes, on every target.
pub(crate) const LANES: usize = 16;

/// Whether this target processes all sixteen lanes at once. A target that does not has only the
/// portable backend.
pub(crate) const AT_ONCE: bool = <<Portable as Machine>::Simd as Simd>::AT_ONCE;

/// Whether calls process one channel after another, without tables: on targets without vector
/// registers.
pub(crate) const CHANNELWISE: bool = !AT_ONCE;

/// One value per lane, in memory.
pub(crate) type Lanes<T> = [T; LANES];

/// The bits of the first `n` lanes, for `n` up to 16.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
pub(crate) const fn first_lanes(n: usize) -> u16 {
    ((1_u32 << n) - 1) as u16
}

/// A backend, which processes sixteen lanes, all at once or one at a time. It is a token that
/// proves that the CPU has the instructions of its operations.
///
/// Every function generic over a backend is `#[inline(always)]`: a helper that stays a function of
/// its own is compiled without the CPU feature and runs twenty times slower.
pub(crate) trait Machine: Copy {
    /// The lanes that are processed at once: all sixteen, or one.
    type Simd: Simd;
    /// All lanes, if the backend processes them at once.
    fn all(self) -> Option<Self::Simd>;

    /// At least the first `wanted` lanes, all at once or one at a time. Values that live from one
    /// loop over the lanes to the next are kept in memory; if all lanes are processed at once, the
    /// compiler keeps them in registers.
    #[inline(always)]
    fn each(self, _wanted: usize) -> impl Iterator<Item = Self::Simd> {
        self.all().into_iter()
    }

    /// Four words for each lane: the next two outputs of the `SplitMix64` sequence that starts at
    /// `seed`, lower half first.
    #[inline(always)]
    fn states(self, seed: u64, words: &mut [Lanes<u32>; 4]) {
        splitmix::states(seed, words);
    }
}

/// The lanes that are processed at once: all sixteen, or one of them.
#[cfg_attr(not(feature = "half-precision"), expect(dead_code, reason = "only that feature narrows halves"))]
pub(crate) trait Simd: Copy {
    /// Whether these lanes are all sixteen.
    const AT_ONCE: bool = true;
    /// Whether one loop for all cases is best, because each operation on lanes is many instructions.
    const LEAN: bool = false;

    /// An f32 per lane.
    type F32: Copy
        + Add<Output = Self::F32>
        + Sub<Output = Self::F32>
        + Mul<Output = Self::F32>
        + Div<Output = Self::F32>;
    /// An f64 per lane.
    type F64: Copy
        + Add<Output = Self::F64>
        + Sub<Output = Self::F64>
        + Mul<Output = Self::F64>
        + Div<Output = Self::F64>;
    /// A u32 per lane; addition wraps.
    type U32: Copy
        + Add<Output = Self::U32>
        + BitAnd<Output = Self::U32>
        + BitOr<Output = Self::U32>
        + BitXor<Output = Self::U32>;
    /// A truth value per lane.
    type Mask: Copy + BitAnd<Output = Self::Mask>;
    /// Sixteen bits per lane: an [`F16`](crate::F16) or a [`Bf16`](crate::Bf16).
    type Halves: Copy;

    /// The bits of these lanes: bit `i` is lane `i`.
    #[inline(always)]
    fn lanes(self) -> u16 {
        u16::MAX
    }

    /// Runs `work` in a function of its own that has the backend's CPU feature, for code that is
    /// too large to be inlined everywhere. Its vectors go through memory.
    fn apart(self, work: impl Work<Self>);

    /// Puts the strip `values` through a function of each value, of the factor beside it if the
    /// function asks for factors, and of `parameter`.
    fn strip(self, functions: &StripFunctions, parameter: f32, factors: &[f32], values: &mut [f32]);

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// The values of the lanes from memory.
    fn load(self, from: &Lanes<f32>) -> Self::F32;
    /// The values of `from` in the first lanes, and +0.0 in the other lanes.
    fn load_partial(self, from: &[f32]) -> Self::F32;
    /// The values of the lanes to memory.
    fn store(self, value: Self::F32, to: &mut Lanes<f32>);
    /// The first lanes to memory, as many as `to` has values.
    fn store_partial(self, value: Self::F32, to: &mut [f32]);
    /// The values of the lanes to memory, past the caches if the backend can and if `to` begins
    /// with a cache line. Other threads see these stores in order only after [`Self::fence`].
    #[inline(always)]
    fn stream(self, value: Self::F32, to: &mut Lanes<f32>) {
        self.store(value, to);
    }
    /// Ends a sequence of [`Self::stream`].
    #[inline(always)]
    fn fence(self) {}

    /// Asks the first-level cache for the values `ahead` places after `from`. There need not be memory
    /// at that place.
    #[inline(always)]
    fn prefetch_first<T>(self, _from: &Lanes<T>, _ahead: usize) {}
    /// [`Self::prefetch_first`] for the second-level cache, which can wait for more lines of memory
    /// at a time.
    #[inline(always)]
    fn prefetch_second<T>(self, _from: &Lanes<T>, _ahead: usize) {}

    /// The halves of the lanes from memory.
    fn load_halves<H: Half>(self, from: &Lanes<H>) -> Self::Halves;
    /// The halves of the lanes to memory.
    fn store_halves<H: Half>(self, halves: Self::Halves, to: &mut Lanes<H>);
    /// [`Self::store_halves`] of two vectors, past the caches where [`Self::stream`] would.
    #[inline(always)]
    fn stream_halves<H: Half>(self, [first, second]: [Self::Halves; 2], to: &mut [Lanes<H>; 2]) {
        let [to_first, to_second] = to;
        self.store_halves(first, to_first);
        self.store_halves(second, to_second);
    }
    /// Up to sixteen halves from memory, and +0.0 in the other lanes.
    #[inline(always)]
    fn load_partial_halves<H: Half>(self, from: &[H]) -> Self::Halves {
        let mut lanes = [H::of_bits(0); LANES];
        for (lane, &half) in lanes.iter_mut().zip(from) {
            *lane = half;
        }
        self.load_halves(&lanes)
    }
    /// The first halves to memory, as many as `to` has.
    #[inline(always)]
    fn store_partial_halves<H: Half>(self, halves: Self::Halves, to: &mut [H]) {
        let mut lanes = [H::of_bits(0); LANES];
        self.store_halves(halves, &mut lanes);
        for (half, lane) in to.iter_mut().zip(lanes) {
            *half = lane;
        }
    }
    /// From [`F16`](crate::F16), exactly.
    fn widen_f16(self, halves: Self::Halves) -> Self::F32;
    /// To [`F16`](crate::F16), rounded to nearest even, subnormal numbers kept, NaN quiet.
    fn narrow_f16(self, value: Self::F32) -> Self::Halves;
    /// [`Self::narrow_f16`] of two vectors.
    #[inline(always)]
    fn narrow_two_f16(self, [first, second]: [Self::F32; 2]) -> [Self::Halves; 2] {
        [self.narrow_f16(first), self.narrow_f16(second)]
    }
    /// From [`Bf16`](crate::Bf16), exactly.
    fn widen_bf16(self, halves: Self::Halves) -> Self::F32;
    /// To [`Bf16`](crate::Bf16), as [`Self::narrow_f16`]. Not by `vcvtneps2bf16`, which flushes
    /// subnormal numbers to 0.
    fn narrow_bf16(self, value: Self::F32) -> Self::Halves;
    /// [`Self::narrow_bf16`] of two vectors.
    #[inline(always)]
    fn narrow_two_bf16(self, [first, second]: [Self::F32; 2]) -> [Self::Halves; 2] {
        [self.narrow_bf16(first), self.narrow_bf16(second)]
    }

    /// `a <= b`, false where either is NaN.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `mask` without the lanes where `a < b`. Lanes where either is NaN stay.
    fn unless_less(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `value` where the mask is true, +0.0 elsewhere, even if `value` is NaN or infinite.
    fn keep(self, mask: Self::Mask, value: Self::F32) -> Self::F32;
    /// `value` where the mask is false, +0.0 elsewhere, even if `value` is NaN or infinite.
    fn drop(self, mask: Self::Mask, value: Self::F32) -> Self::F32;
    /// `yes` where the mask is true, `no` elsewhere.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// The mask whose lane `i` is bit `i`.
    fn mask(self, bits: u16) -> Self::Mask;
    /// The bits of a mask: bit `i` is lane `i`. The bits of other lanes are 0.
    fn bits(self, mask: Self::Mask) -> u16;

    /// `value` in every lane.
    fn splat_f64(self, value: f64) -> Self::F64;
    /// The values of the lanes from memory.
    fn load_f64(self, from: &Lanes<f64>) -> Self::F64;
    /// The values of the lanes to memory.
    fn store_f64(self, value: Self::F64, to: &mut Lanes<f64>);
    /// To double precision, exactly.
    fn widen(self, value: Self::F32) -> Self::F64;
    /// To single precision, rounded to nearest even.
    fn narrow(self, value: Self::F64) -> Self::F32;

    /// The square root of every lane, correctly rounded.
    fn sqrt(self, value: Self::F64) -> Self::F64;
    /// `a` where `a > b`, else `b`: `b` also where either is NaN.
    fn larger(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// The bits of `a < b`, which is false where either is NaN.
    fn less(self, a: Self::F64, b: Self::F64) -> u16;

    /// Two vectors from sixteen words of 64 bits, in the form of [`Simd::store_pair`].
    fn load_pair(self, from: &Lanes<f64>) -> (Self::F32, Self::F32);
    /// The bits of two vectors in sixteen words of 64 bits, the same on every target. Word `i` has
    /// lane `2*i` (lower half) and lane `2*i + 1` (upper half) of the first vector. Word `8 + i`
    /// has the same lanes of the second vector.
    fn store_pair(self, first: Self::F32, second: Self::F32, to: &mut Lanes<f64>);

    /// `value` in every lane.
    fn splat_u32(self, value: u32) -> Self::U32;
    /// The values of the lanes from memory.
    fn load_u32(self, from: &Lanes<u32>) -> Self::U32;
    /// The values of the lanes to memory.
    fn store_u32(self, value: Self::U32, to: &mut Lanes<u32>);
    /// The bits of every lane of `value` that `of` does not have.
    fn without(self, value: Self::U32, of: Self::U32) -> Self::U32;
    /// Every lane shifted left.
    fn shift_left<const BITS: u32>(self, value: Self::U32) -> Self::U32;
    /// Every lane rotated left.
    fn rotate_left<const BITS: u32>(self, value: Self::U32) -> Self::U32;
    /// The bits of every lane, as they are.
    fn to_bits(self, value: Self::F32) -> Self::U32;
    /// The f32 values with these bits.
    fn with_bits(self, bits: Self::U32) -> Self::F32;
    /// Whether every bit of every lane is zero.
    fn is_zero(self, value: Self::U32) -> bool;

    /// The bits of `above < |value| < below`, for bounds that are not negative; false where the
    /// value is NaN.
    #[inline(always)]
    fn magnitude_between(self, value: Self::F64, above: f64, below: f64) -> u16 {
        let magnitude = self.larger(value, self.splat_f64(0.0) - value);
        self.less(self.splat_f64(above), magnitude) & self.less(magnitude, self.splat_f64(below))
    }

    /// The bits of `above < |value|`, infinities included, for a bound that is not negative; false
    /// where the value is NaN.
    #[inline(always)]
    fn magnitude_above(self, value: Self::F64, above: f64) -> u16 {
        self.less(self.splat_f64(above), self.larger(value, self.splat_f64(0.0) - value))
    }

    /// The vectors `from` from memory. It is a loop, because `map` may stay a function of its own.
    #[inline(always)]
    fn load_each<const N: usize>(self, from: &[Lanes<f64>; N]) -> [Self::F64; N] {
        let mut vectors = [self.splat_f64(0.0); N];
        for (vector, from) in vectors.iter_mut().zip(from) {
            *vector = self.load_f64(from);
        }
        vectors
    }

    /// The values that `make` returns for each of the first `lanes` lanes, and 0 in the other
    /// lanes.
    #[inline(always)]
    fn lane_by_lane<const N: usize>(self, lanes: usize, mut make: impl FnMut(usize) -> [f64; N]) -> [Self::F64; N] {
        let mut made = [[0.0; LANES]; N];
        for lane in 0..lanes.min(LANES) {
            for (values, value) in made.iter_mut().zip(make(lane)) {
                values[lane] = value;
            }
        }
        self.load_each(&made)
    }

    /// Passes the values of the first `lanes` lanes to `take`, one lane at a time.
    #[inline(always)]
    fn each_lane<const N: usize>(self, lanes: usize, values: [Self::F32; N], take: impl FnMut(usize, [f32; N])) {
        let mut stored = [[0.0; LANES]; N];
        for (stored, value) in stored.iter_mut().zip(values) {
            self.store(value, stored);
        }
        take_each(&stored, lanes, take);
    }

    /// [`Simd::each_lane`] of f64 values.
    #[inline(always)]
    fn each_lane_f64(self, lanes: usize, value: Self::F64, mut take: impl FnMut(usize, f64)) {
        let mut stored = [0.0; LANES];
        self.store_f64(value, &mut stored);
        take_each(&[stored], lanes, |lane, [value]| take(lane, value));
    }

    /// The values that `change` returns, one lane at a time, for operations that vectors do not
    /// have.
    #[inline(always)]
    fn change_lanes<const N: usize>(
        self,
        values: [Self::F32; N],
        change: impl FnMut(usize, [f32; N]) -> f32,
    ) -> Self::F32 {
        let mut lanes = [[0.0; LANES]; N];
        for (lanes, value) in lanes.iter_mut().zip(values) {
            self.store(value, lanes);
        }
        let mut results = [0.0; LANES];
        change_each(&lanes, &mut results, change);
        self.load(&results)
    }

    /// [`Simd::change_lanes`] of f64 values. `change` writes the new values over the old ones.
    #[inline(always)]
    fn change_lanes_f64<const N: usize>(
        self,
        values: [Self::F64; N],
        change: impl FnMut(usize, &mut [f64; N]),
    ) -> [Self::F64; N] {
        let mut lanes = [[0.0; LANES]; N];
        for (lanes, value) in lanes.iter_mut().zip(values) {
            self.store_f64(value, lanes);
        }
        change_each_f64(&mut lanes, change);
        self.load_each(&lanes)
    }

    /// Up to sixteen f64 from memory, and +0.0 in the other lanes.
    #[inline(always)]
    fn load_partial_f64(self, from: &[f64]) -> Self::F64 {
        match from.try_into() {
            Ok(lanes) => self.load_f64(lanes),
            Err(_) => {
                let mut lanes = [0.0; LANES];
                for (lane, &value) in lanes.iter_mut().zip(from) {
                    *lane = value;
                }
                self.load_f64(&lanes)
            }
        }
    }

    /// The first lanes to memory, as many as `to` has values.
    #[inline(always)]
    fn store_partial_f64(self, value: Self::F64, to: &mut [f64]) {
        match <&mut Lanes<f64>>::try_from(&mut *to) {
            Ok(lanes) => self.store_f64(value, lanes),
            Err(_) => {
                let mut lanes = [0.0; LANES];
                self.store_f64(value, &mut lanes);
                for (to, lane) in to.iter_mut().zip(lanes) {
                    *to = lane;
                }
            }
        }
    }
}

/// [`Simd::each_lane`] in memory.
#[inline(never)]
fn take_each<T: Copy, const N: usize>(stored: &[Lanes<T>; N], lanes: usize, mut take: impl FnMut(usize, [T; N])) {
    for lane in 0..lanes.min(LANES) {
        take(lane, stored.each_ref().map(|values| values[lane]));
    }
}

/// [`Simd::change_lanes`] in memory.
#[cold]
#[inline(never)]
fn change_each<const N: usize>(
    lanes: &[Lanes<f32>; N],
    results: &mut Lanes<f32>,
    mut change: impl FnMut(usize, [f32; N]) -> f32,
) {
    for (lane, result) in results.iter_mut().enumerate() {
        *result = change(lane, lanes.each_ref().map(|values| values[lane % LANES]));
    }
}

/// [`Simd::change_lanes_f64`] in memory.
#[inline(never)]
fn change_each_f64<const N: usize>(lanes: &mut [Lanes<f64>; N], mut change: impl FnMut(usize, &mut [f64; N])) {
    for lane in 0..LANES {
        let mut values = lanes.each_ref().map(|values| values[lane]);
        change(lane, &mut values);
        for (lanes, value) in lanes.iter_mut().zip(values) {
            lanes[lane] = value;
        }
    }
}

/// Up to sixteen values from memory, and +0.0 in the other lanes.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, from: &[f32]) -> S::F32 {
    match from.try_into() {
        Ok(lanes) => s.load(lanes),
        Err(_) => s.load_partial(from),
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

/// Work that is written once and runs on the lanes of any backend.
///
/// It is a structure with a method. A closure would not do, because it cannot be forced inline into
/// a function that has the backend's CPU feature.
pub(crate) trait Kernel {
    /// Runs the work on the backend `m`. Implementations are `#[inline(always)]`.
    fn run<M: Machine>(self, m: M);
}

/// Work on given lanes; a structure, as [`Kernel`].
pub(crate) trait Work<S: Simd> {
    /// Runs the work on the lanes `s`. Implementations are `#[inline(always)]`.
    fn run(self, s: S);
}
