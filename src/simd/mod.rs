//! Sixteen logical lanes on every target, and the few operations that the kernels are written in.
//!
//! The register width is not part of any result: portable lanes are `wide::f32x16`, AVX2 lanes are two
//! registers, AVX-512 lanes are one, and where there are no vector registers one lane is worked after the other. Every
//! operation is exact or correctly rounded on its own (`+ - * /`, conversions, compare, select, bit operations);
//! none is fused, none is an estimate, and the only sums across lanes are [`Machine::fold`] and
//! [`Machine::fold_f64`], whose tree is the same everywhere.

mod detect;
mod lane;
/// The portable lanes where there are no vector registers.
#[cfg(not(all(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    not(normdrop_backend = "scalar")
)))]
mod scalar;
mod splitmix;
/// The portable lanes where there are vector registers.
#[cfg(all(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    not(normdrop_backend = "scalar")
))]
mod wide;
// Without SSE2, as where a kernel or firmware has its floats computed in software, there are no vector registers at all.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod x86;

use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

#[cfg(not(all(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    not(normdrop_backend = "scalar")
)))]
pub(crate) use self::scalar::Portable;
#[cfg(all(
    any(target_feature = "sse2", target_feature = "simd128", all(target_arch = "aarch64", target_feature = "neon")),
    not(normdrop_backend = "scalar")
))]
pub(crate) use self::wide::Portable;
pub(crate) use detect::dispatch;
pub(crate) use lane::Lane;
pub(crate) use splitmix::{GOLDEN_GAMMA, splitmix64};

/// The number of logical lanes, on every target.
pub(crate) const LANES: usize = 16;

/// Whether this target works sixteen lanes at once. Where it does not, there is no other backend.
pub(crate) const AT_ONCE: bool = <<Portable as Machine>::Simd as Simd>::AT_ONCE;

/// Whether calls work channel by channel, without tables: on targets without vector registers, unless there are threads.
pub(crate) const CHANNELWISE: bool = !AT_ONCE && !cfg!(feature = "rayon");

/// One value per lane, in memory.
pub(crate) type Lanes<T> = [T; LANES];

/// The bits of the first `n` lanes, for `n` up to 16.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
pub(crate) const fn first_lanes(n: usize) -> u16 {
    ((1_u32 << n) - 1) as u16
}

/// A backend: it works sixteen lanes, all at once or one after the other. A token that proves that the CPU has what its
/// operations need.
///
/// Everything generic over it is `#[inline(always)]`: a helper that stays a function of its own is compiled
/// without the CPU feature and runs twenty times slower.
pub(crate) trait Machine: Copy {
    /// The lanes that are worked at once.
    type Simd: Simd;
    /// All lanes, if they are worked at once.
    fn all(self) -> Option<Self::Simd>;

    /// The first lanes, at least as many as are wanted. What is known of lanes between two walks over them is in memory;
    /// the compiler keeps it in registers where all lanes are worked at once.
    #[inline(always)]
    fn each(self, _wanted: usize) -> impl Iterator<Item = Self::Simd> {
        self.all().into_iter()
    }

    /// Four words for each lane: the next two outputs of the `SplitMix64` sequence that starts at `seed`, lower half first.
    #[inline(always)]
    fn states(self, seed: u64, words: &mut [Lanes<u32>; 4]) {
        splitmix::states(seed, words);
    }

    /// The sum over the lanes: the upper half is added to the lower, 16 to 8, 4, 2, 1.
    #[inline(always)]
    fn fold(self, values: &Lanes<f32>) -> f32 {
        fold(*values)
    }

    /// The sum over the lanes in double precision, by the same tree.
    #[inline(always)]
    fn fold_f64(self, values: &Lanes<f32>) -> f64 {
        fold(values.map(f64::from))
    }

    /// [`Self::fold`] of sixteen vectors, which share the work: one sum a lane.
    #[inline(always)]
    fn fold_each(self, vectors: &Lanes<Lanes<f32>>) -> Lanes<f32> {
        let mut sums = [0.0; LANES];
        for (sum, values) in sums.iter_mut().zip(vectors) {
            *sum = self.fold(values);
        }
        sums
    }

    /// [`Self::fold_f64`] of sixteen vectors, which share the work: one sum a lane.
    #[inline(always)]
    fn fold_each_f64(self, vectors: &Lanes<Lanes<f32>>) -> Lanes<f64> {
        let mut sums = [0.0; LANES];
        for (sum, values) in sums.iter_mut().zip(vectors) {
            *sum = self.fold_f64(values);
        }
        sums
    }
}

/// The sum over the lanes: the compiler makes vectors of it.
#[inline(always)]
fn fold<T: Copy + Add<Output = T>>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: Lanes<T>) -> T {
    let (a, b, c, d, e, f, g, h) = (a + i, b + j, c + k, d + l, e + m, f + n, g + o, h + p);
    let (a, b, c, d) = (a + e, b + f, c + g, d + h);
    (a + c) + (b + d)
}

/// All lanes, or one of them.
pub(crate) trait Simd: Copy {
    /// Whether these are all lanes.
    const AT_ONCE: bool = true;

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

    /// The bits of these lanes: bit `i` is lane `i`.
    #[inline(always)]
    fn lanes(self) -> u16 {
        u16::MAX
    }

    /// Runs some work in a function of its own that has the backend's CPU feature: for what is too large to be repeated
    /// wherever it is used. Its vectors go through memory.
    fn apart(self, work: impl Work);

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// The values of the lanes from memory.
    fn load(self, from: &Lanes<f32>) -> Self::F32;
    /// The first lanes from memory, as many as `from` has, and +0.0 in the others.
    fn load_partial(self, from: &[f32]) -> Self::F32;
    /// The values of the lanes to memory.
    fn store(self, value: Self::F32, to: &mut Lanes<f32>);
    /// The first lanes to memory, as many as `to` has room for.
    fn store_partial(self, value: Self::F32, to: &mut [f32]);
    /// The values of the lanes to memory, past the caches where the backend can and `to` begins with a cache line. What
    /// other threads see of it is in order only after [`Self::fence`].
    #[inline(always)]
    fn stream(self, value: Self::F32, to: &mut Lanes<f32>) {
        self.store(value, to);
    }
    /// Ends a sequence of [`Self::stream`].
    #[inline(always)]
    fn fence(self) {}

    /// Asks the first cache for values that are so many further on than these; there may be nothing.
    #[inline(always)]
    fn prefetch_first(self, _from: &Lanes<f32>, _ahead: usize) {}
    /// The same for the second cache, which waits for more lines of memory at a time than the first one does.
    #[inline(always)]
    fn prefetch_second(self, _from: &Lanes<f32>, _ahead: usize) {}

    /// `a <= b`, false where either is NaN.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// The mask without the lanes where `a <= b`; those where either is NaN stay.
    fn unless_le(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `value` where the mask is true, +0.0 elsewhere, whatever `value` is there.
    fn keep(self, mask: Self::Mask, value: Self::F32) -> Self::F32;
    /// `value` where the mask is false, +0.0 elsewhere, whatever `value` is there.
    fn drop(self, mask: Self::Mask, value: Self::F32) -> Self::F32;
    /// `yes` where the mask is true, `no` elsewhere.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// The mask whose lane `i` is bit `i`.
    fn mask(self, bits: u16) -> Self::Mask;
    /// The bits of a mask: bit `i` is lane `i`; 0 for lanes that are not these.
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

    /// Two vectors from sixteen words of 64 bits, as [`Simd::store_pair`] has put them there.
    fn load_pair(self, from: &Lanes<f64>) -> (Self::F32, Self::F32);
    /// The bits of two vectors in sixteen words of 64 bits, on every target alike: word `i` has the lanes `2*i` (the
    /// lower half) and `2*i + 1` of the first vector, word `8 + i` those of the second.
    fn store_pair(self, first: Self::F32, second: Self::F32, to: &mut Lanes<f64>);

    /// `value` in every lane.
    fn splat_u32(self, value: u32) -> Self::U32;
    /// The values of the lanes from memory.
    fn load_u32(self, from: &Lanes<u32>) -> Self::U32;
    /// The values of the lanes to memory.
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

    /// The bits of `above < |value| < below`, for bounds that are not negative; false where the value is NaN.
    #[inline(always)]
    fn magnitude_between(self, value: Self::F64, above: f64, below: f64) -> u16 {
        let magnitude = self.larger(value, self.splat_f64(0.0) - value);
        self.less(self.splat_f64(above), magnitude) & self.less(magnitude, self.splat_f64(below))
    }

    /// The bits of `above < |value|`, infinities included, for a bound that is not negative; false where the value is NaN.
    #[inline(always)]
    fn magnitude_above(self, value: Self::F64, above: f64) -> u16 {
        self.less(self.splat_f64(above), self.larger(value, self.splat_f64(0.0) - value))
    }

    /// Values that are made one lane after the other, of the first `lanes` lanes, and 0 in the others.
    #[inline(always)]
    fn lane_by_lane<const N: usize>(self, lanes: usize, mut make: impl FnMut(usize) -> [f64; N]) -> [Self::F64; N] {
        let mut made = [[0.0; LANES]; N];
        for lane in 0..lanes.min(LANES) {
            for (values, value) in made.iter_mut().zip(make(lane)) {
                values[lane] = value;
            }
        }
        made.map(|values| self.load_f64(&values))
    }

    /// Gives away the values of the first lanes, one lane after the other.
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

    /// What becomes of values one lane after the other, for what a vector cannot do.
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

    /// [`Simd::change_lanes`] of f64 values, each of which may be replaced.
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
        lanes.map(|values| self.load_f64(&values))
    }

    /// Up to sixteen f64 from memory, and +0.0 in the lanes beyond.
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

    /// The first lanes to memory, as many as `to` has room for.
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

/// Up to sixteen values from memory, and +0.0 in the lanes beyond.
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

/// Work that is written once and run on the lanes of whichever backend was chosen.
///
/// A structure with a method and not a closure, because closures cannot be forced inline into a function that
/// has the backend's CPU feature.
pub(crate) trait Kernel {
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<M: Machine>(self, m: M);
}

/// Work on lanes that are given, like [`Kernel`] a structure.
pub(crate) trait Work {
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S);
}
