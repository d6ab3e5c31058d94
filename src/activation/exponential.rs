//! The exponential function in pieces, and the functions that are made from it.
//!
//! `exp(v) = (1 + p)*2^n` with `v = n*ln(2) + r`, `|r| <= ln(2)/2` and `p = exp(r) - 1`. The
//! reduction is by Cody and Waite (*Software Manual for the Elementary Functions*, 1980), the
//! polynomial is Taylor's of degree 7. The rounding error of an addition is kept where a function
//! needs it. The computed error is exact if the first operand is the larger one (Dekker, 1971). There is no table
//! and no branch except for results that are subnormal, and no other number is subnormal.

use crate::simd::Simd;

/// `1.5*2^23`. Adding it to an f32 below `2^22` and subtracting it again rounds the f32 to the
/// nearest integer. The low bits of the sum are that integer.
const ROUND: f32 = 12_582_912.0;
/// `1.5*2^52`, which rounds an f64 in the same way.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;
/// ln(2) in two parts. The first part has 9 bits, so that its product with every `n` is exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
/// 1/2!, 1/3!, ... 1/7!
const TAYLOR: [f32; 6] = [0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
/// `(atanh(t)/t - 1)/t²` as a polynomial of `t²` in [0, 1/9], within `2^-26` of it: Remez's, close to
/// 1/3, 1/5, ... 1/11.
const ATANH: [f32; 5] = [0.333_333_34, 0.199_998_5, 0.142_963_08, 0.108_512_82, 0.116_218_42];
/// Exponents are too high by `LIFT` until the end, where [`lowered`] rounds results that are subnormal.
const LIFT: u32 = 48;
/// `2^-LIFT`.
const DROP: f32 = f32::from_bits((127 - LIFT) << 23);
/// The bits that are added to the bits of a float for `2^-LIFT` times the float.
const DROP_EXPONENT: u32 = (LIFT << 23).wrapping_neg();
/// The least normal f32, times `2^LIFT`.
const LEAST_NORMAL: f32 = f32::from_bits((1 + LIFT) << 23);
/// The largest f32 below [`LEAST_NORMAL`].
const MOST_SUBNORMAL: f32 = f32::from_bits(LEAST_NORMAL.to_bits() - 1);
/// `2^(LIFT - 40)`: the square of a power below `2^-40` counts as little beside 1.
const LEAST_ROOT: f32 = f32::from_bits((127 + LIFT - 40) << 23);
/// `2^(LIFT - 60)`: a power below `2^-60` counts as little beside 1.
const LEAST_POWER: f32 = f32::from_bits((127 + LIFT - 60) << 23);
/// For `v` below `LEAST`, `v*exp(v)` and `exp(v)` round to zero.
pub(super) const LEAST: f32 = -110.0;
/// Derivatives take `exp(v)` for 0 below `LEAST_SLOPE`. There it is below `2^-100`, and CPUs take long for products with a gradient
/// that are subnormal.
pub(super) const LEAST_SLOPE: f32 = -70.0;

/// An argument of the exponential function, `n*ln(2) + r`.
#[derive(Clone, Copy)]
pub(super) struct Reduced<S: Simd> {
    r: S::F32,
    /// `n`, in the bits where an f32 has its exponent.
    n: S::U32,
}

impl<S: Simd> Reduced<S> {
    /// Reduces `v` in [-110, 110].
    #[inline(always)]
    pub(super) fn new(s: S, v: S::F32) -> Self {
        let rounded = v * s.splat(core::f32::consts::LOG2_E) + s.splat(ROUND);
        let n = rounded - s.splat(ROUND);
        Self { r: (v - n * s.splat(LN_2[0])) - n * s.splat(LN_2[1]), n: s.shift_left::<23>(s.to_bits(rounded)) }
    }

    /// Reduces an f64, for an argument that needs more than the precision of an f32: an absolute
    /// error of `v` is a relative error of `exp(v)`.
    #[inline(always)]
    pub(super) fn of_f64(s: S, v: S::F64) -> Self {
        let rounded = v * s.splat_f64(core::f64::consts::LOG2_E) + s.splat_f64(ROUND_F64);
        let n = rounded - s.splat_f64(ROUND_F64);
        let r = s.narrow(v - n * s.splat_f64(core::f64::consts::LN_2));
        Self { r, n: s.shift_left::<23>(s.to_bits(s.narrow(n) + s.splat(ROUND))) }
    }

    /// `p = exp(r) - 1`, and the rounding error of the last addition.
    #[inline(always)]
    fn exp_m1(&self, s: S) -> (S::F32, S::F32) {
        let r = self.r;
        let mut sum = s.splat(TAYLOR[5]);
        sum = sum * r + s.splat(TAYLOR[4]);
        sum = sum * r + s.splat(TAYLOR[3]);
        sum = sum * r + s.splat(TAYLOR[2]);
        sum = sum * r + s.splat(TAYLOR[1]);
        sum = sum * r + s.splat(TAYLOR[0]);
        let rest = (r * r) * sum;
        let p = r + rest;
        (p, rest - (p - r))
    }

    /// `exp(v)*by*2^LIFT`, with a few roundings, none of them of a number that is subnormal because
    /// of `exp(v)`.
    #[inline(always)]
    fn exp_times(&self, s: S, by: f32) -> S::F32 {
        ((s.splat(1.0) + self.exp_m1(s).0) * self.power(s, LIFT)) * s.splat(by)
    }

    /// `exp(v)` in double precision, as far as the polynomial and its argument are accurate: within
    /// 1 u.
    #[inline(always)]
    pub(super) fn exp_f64(&self, s: S) -> S::F64 {
        let significand = s.splat_f64(1.0) + s.widen(self.exp_m1(s).0);
        significand * (s.widen(self.power(s, LIFT)) * s.splat_f64(f64::from_bits((1023 - LIFT as u64) << 52)))
    }

    /// `2^(n + lift)`.
    #[inline(always)]
    fn power(&self, s: S, lift: u32) -> S::F32 {
        s.with_bits(self.n + s.splat_u32((127 + lift) << 23))
    }

    /// `2^n`, but not below `least/2^LIFT`. The exponent is lowered as an integer, because the compiler would multiply by [`DROP`]
    /// before it selects.
    #[inline(always)]
    fn bounded_power(&self, s: S, least: f32) -> S::F32 {
        let (power, least) = (self.power(s, LIFT), s.splat(least));
        lowered_exponent(s, s.select(s.le(power, least), least, power))
    }
}

/// `lifted/2^LIFT` where both are normal.
#[inline(always)]
fn lowered_exponent<S: Simd>(s: S, lifted: S::F32) -> S::F32 {
    s.with_bits(s.to_bits(lifted) + s.splat_u32(DROP_EXPONENT))
}

/// `lifted/2^LIFT` of a finite number or NaN, rounded once. CPUs take up to a hundred times as long for a product that is
/// subnormal, so that an addition rounds where a result is: the last bit of `magnitude + LEAST_NORMAL` is the last bit of a
/// subnormal number. There is no multiplication beside it, because the compiler would multiply the subnormal numbers, too.
#[inline(always)]
fn lowered<S: Simd>(s: S, lifted: S::F32) -> S::F32 {
    let sign = s.to_bits(lifted) & s.splat_u32(1 << 31);
    let magnitude = s.with_bits(s.to_bits(lifted) ^ sign);
    let subnormal = s.le(magnitude, s.splat(MOST_SUBNORMAL));
    // CPUs without vector registers multiply subnormal numbers as fast as others.
    if !S::AT_ONCE || s.bits(subnormal) == 0 {
        return lifted * s.splat(DROP);
    }
    let rounded = s.to_bits(magnitude + s.splat(LEAST_NORMAL)) + s.splat_u32(LEAST_NORMAL.to_bits().wrapping_neg());
    let normal = s.select(s.le(lifted, lifted), lowered_exponent(s, lifted), lifted);
    s.select(subnormal, s.with_bits(rounded | sign), normal)
}

/// `exp(v)*by` with `v = -|z|`, with a few roundings; NaN where `z` is NaN. It is 0 for `v` below -70, or -110 if `by` is large.
#[inline(always)]
pub(super) fn exp_of<S: Simd>(s: S, z: S::F32, by: f32) -> S::F32 {
    let least = if by.abs() * DROP <= 1.0 { LEAST_SLOPE } else { LEAST };
    exp_above(s, negative(s, z, least), least, by)
}

/// `exp(v)*by` for `v` in [`least`, 110], with a few roundings; 0 where `v` is `least`.
#[inline(always)]
pub(super) fn exp_above<S: Simd>(s: S, v: S::F32, least: f32, by: f32) -> S::F32 {
    s.drop(s.le(v, s.splat(least)), Reduced::new(s, v).exp_times(s, by * DROP))
}

/// `-|z|`, but not below `least`; NaN where `z` is NaN.
#[inline(always)]
pub(super) fn negative<S: Simd>(s: S, z: S::F32, least: f32) -> S::F32 {
    let (z, least) = (s.with_bits(s.to_bits(z) | s.splat_u32(1 << 31)), s.splat(least));
    s.select(s.le(z, least), least, z)
}

/// `-|z|`, but not below [`LEAST`], where the sigmoid function is 0 in f32.
#[inline(always)]
pub(super) fn negative_enough<S: Simd>(s: S, z: S::F32) -> S::F32 {
    negative(s, z, LEAST)
}

/// `exp(v)/(base + exp(v)) = (value + rest)*2^n` for a `v` that is not above 0. With the base 1, it
/// is `1/(1 + exp(-v))`.
pub(super) struct Logistic<S: Simd> {
    value: S::F32,
    rest: S::F32,
    /// `2^(n + LIFT)`.
    power: S::F32,
}

impl<S: Simd> Logistic<S> {
    #[inline(always)]
    pub(super) fn new(s: S, v: Reduced<S>) -> Self {
        Self::of_base(s, v, 1.0)
    }

    #[inline(always)]
    fn of_base(s: S, v: Reduced<S>, base: f32) -> Self {
        let (one, power, factor) = (s.splat(1.0), v.power(s, LIFT), v.bounded_power(s, LEAST_POWER));
        let (p, p_rest) = v.exp_m1(s);
        let numerator = one + p;
        let numerator_rest = (p - (numerator - one)) + p_rest;
        let exp = numerator * factor;
        let denominator = s.splat(base) + exp;
        let denominator_rest = (exp - (denominator - s.splat(base))) + numerator_rest * factor;
        let value = numerator / denominator;
        // The reciprocal of the denominator is 1 minus the result, divided by the base.
        let reciprocal = (one - value * factor) * s.splat(1.0 / base);
        let rest = (numerator_rest - value * denominator_rest) * reciprocal;
        Self { value, rest, power }
    }

    /// The value of the function, rounded to f32.
    #[inline(always)]
    pub(super) fn value(&self, s: S) -> S::F32 {
        lowered(s, (self.value + self.rest) * self.power)
    }

    /// The value of the function times `by`, with one rounding less than `by*value(s)` has.
    #[inline(always)]
    pub(super) fn times(&self, s: S, by: S::F32) -> S::F32 {
        lowered(s, product(s, self.value, self.rest, by) * self.power)
    }
}

/// `(value + rest)*by` with one rounding. Both factors are split into 12 bits and the rest, so that
/// the largest of the four products is exact.
#[inline(always)]
pub(super) fn product<S: Simd>(s: S, value: S::F32, rest: S::F32, by: S::F32) -> S::F32 {
    let (value_upper, by_upper) = (upper(s, value), upper(s, by));
    let value_lower = (value - value_upper) + rest;
    by_upper * value_upper + ((by - by_upper) * value_upper + by * value_lower)
}

/// `value` with only the upper 12 bits of its significand.
#[inline(always)]
fn upper<S: Simd>(s: S, value: S::F32) -> S::F32 {
    s.with_bits(s.to_bits(value) & s.splat_u32(0xFFFF_F000))
}

/// The sigmoid function and its derivative, with a few roundings. The derivatives of the
/// activations are made from them.
pub(super) struct Slope<S: Simd> {
    /// `1/(1 + exp(-v))`, or `1/(1 + exp(v))` in the lanes that are not negative.
    pub(super) value: S::F32,
    /// Its derivative, `exp(v)/(1 + exp(v))^2`.
    pub(super) derivative: S::F32,
}

impl<S: Simd> Slope<S> {
    /// The functions at `-|z|` in the lanes of `negative`, and at `|z|` in the other lanes.
    #[inline(always)]
    pub(super) fn new(s: S, z: S::F32, negative: S::Mask) -> Self {
        let exp = exp_of(s, z, 1.0);
        let larger = s.splat(1.0) / (s.splat(1.0) + exp);
        let smaller = exp * larger;
        Self { value: s.select(negative, smaller, larger), derivative: smaller * larger }
    }
}

/// `exp(v) - 1` for `v` in [-30, 0], and its rounding error.
#[inline(always)]
pub(super) fn exp_m1<S: Simd>(s: S, v: S::F32) -> (S::F32, S::F32) {
    let v = Reduced::new(s, v);
    let factor = v.power(s, 0);
    let (p, p_rest) = v.exp_m1(s);
    let (large, small) = (factor - s.splat(1.0), factor * p);
    let value = large + small;
    (value, (small - (value - large)) + factor * p_rest)
}

/// `ln(1 + exp(v))` for a `v` that is not above 0, as `2*atanh(t)` with `t = exp(v)/(2 + exp(v))`.
#[inline(always)]
pub(super) fn ln_1p_exp<S: Simd>(s: S, v: Reduced<S>) -> S::F32 {
    let Logistic { value, rest, power } = Logistic::of_base(s, v, 2.0);
    let t = value * v.bounded_power(s, LEAST_ROOT);
    let square = t * t;
    let mut sum = s.splat(ATANH[4]);
    sum = sum * square + s.splat(ATANH[3]);
    sum = sum * square + s.splat(ATANH[2]);
    sum = sum * square + s.splat(ATANH[1]);
    sum = sum * square + s.splat(ATANH[0]);
    let half = value + (rest + value * (square * sum));
    lowered(s, (half + half) * power)
}

/// `tanh(z)`, as `t/(t + 2)` with `t = exp(-2*|z|) - 1`.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, z: S::F32) -> S::F32 {
    // From 9.02 on, the f32 nearest to tanh(z) is 1.
    let half = negative(s, z, -10.0);
    let (one, two) = (s.splat(1.0), s.splat(2.0));
    let (numerator, numerator_rest) = exp_m1(s, half + half);
    let denominator = numerator + two;
    let denominator_rest = (numerator - (denominator - two)) + numerator_rest;
    let value = numerator / denominator;
    // The reciprocal of the denominator is half of 1 minus the result.
    let rest = (numerator_rest - value * denominator_rest) * ((one - value) * s.splat(0.5));
    let magnitude = s.to_bits(value + rest) & s.splat_u32(!(1 << 31));
    s.with_bits(magnitude | (s.to_bits(z) & s.splat_u32(1 << 31)))
}
