//! The normal distribution, in the form that GELU needs.
//!
//! `Φ(-a) = exp(-a²/2)*Q(a)` for `a >= 0`, with a `Q` that falls slowly from 1/2 towards
//! `1/(a*sqrt(2π))`. `(a + 3)*Q(a)` is a polynomial of `a/(a + 3)`, which maps all `a` into [0, 1)
//! (after Shepherd and Laframboise, *Chebyshev Approximation of (1 + 2x)exp(x²)erfc x in
//! 0 <= x < ∞*, 1981, who have another constant). The polynomial is Remez's, within `2^-29.9` of the
//! function for `a <= 14.8`.

use super::exponential::{Reduced, exp_of, negative};
use crate::simd::Simd;

/// For `z` below `LEAST`, `z*Φ(z)` and its derivative round to zero.
const LEAST: f32 = -14.8;
/// The constant 3.
const MIDDLE: f32 = 3.0;
/// The coefficients for `-a/(a + 3)`, the constant one first.
const TAIL: [f64; 11] = [
    1.500_000_001_404_157_2,
    2.090_480_926_836_148,
    1.069_058_410_729_273,
    -0.206_746_334_086_544_66,
    -0.256_541_603_584_653,
    0.138_932_007_899_338_43,
    0.115_886_163_026_867_2,
    0.113_281_434_748_615_42,
    0.262_404_751_284_880_64,
    0.211_698_185_565_822_32,
    0.055_785_253_030_873_935,
];

/// The polynomial without its first three coefficients, divided by `w³`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
fn tail<S: Simd>(s: S, w: S::F32) -> S::F32 {
    let mut sum = s.splat(TAIL[10] as f32);
    sum = sum * w + s.splat(TAIL[9] as f32);
    sum = sum * w + s.splat(TAIL[8] as f32);
    sum = sum * w + s.splat(TAIL[7] as f32);
    sum = sum * w + s.splat(TAIL[6] as f32);
    sum = sum * w + s.splat(TAIL[5] as f32);
    sum = sum * w + s.splat(TAIL[4] as f32);
    sum * w + s.splat(TAIL[3] as f32)
}

/// `-|z|*Φ(-|z|)`.
#[inline(always)]
pub(super) fn below<S: Simd>(s: S, z: S::F32) -> S::F32 {
    let z = s.widen(negative(s, z, LEAST));
    let exp = Reduced::of_f64(s, (z * z) * s.splat_f64(-0.5)).exp_f64(s);
    let w = z / (s.splat_f64(f64::from(MIDDLE)) - z);
    let mut sum = s.widen(tail(s, s.narrow(w)));
    sum = sum * w + s.splat_f64(TAIL[2]);
    sum = sum * w + s.splat_f64(TAIL[1]);
    sum = sum * w + s.splat_f64(TAIL[0]);
    s.narrow((w * sum) * exp)
}

/// The derivative of `z*Φ(z)`, which is `Φ(z) + z*exp(-z²/2)/sqrt(2π)`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest")]
pub(super) fn slope<S: Simd>(s: S, z: S::F32) -> S::F32 {
    // 1/sqrt(2π)
    const DENSITY: f32 = 0.398_942_3;
    let (by, below) = (negative(s, z, LEAST), s.le(z, s.splat(0.0)));
    let exp = exp_of(s, (by * by) * s.splat(-0.5), 1.0);
    let reciprocal = s.splat(1.0) / (s.splat(MIDDLE) - by);
    let w = by * reciprocal;
    let mut sum = tail(s, w);
    sum = sum * w + s.splat(TAIL[2] as f32);
    sum = sum * w + s.splat(TAIL[1] as f32);
    sum = sum * w + s.splat(TAIL[0] as f32);
    let smaller = (sum * reciprocal) * exp;
    let distribution = s.select(below, smaller, s.splat(1.0) - smaller);
    let z = s.select(below, by, s.splat(0.0) - by);
    distribution + z * (exp * s.splat(DENSITY))
}
