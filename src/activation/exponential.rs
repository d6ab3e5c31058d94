//! The exponential function in pieces, and what the sigmoid family makes of it.
//!
//! `exp(v) = (1 + p)*2^n` with `v = n*ln(2) + r`, `|r| <= ln(2)/2` and `p = exp(r) - 1`: reduction by Cody and Waite
//! (*Software Manual for the Elementary Functions*, 1980), a Taylor polynomial of degree 7. What additions round away is
//! kept where the functions built on it need it; the remainders are exact where the first operand is the larger one
//! (Dekker, 1971). There is no table and no branch, and nothing is subnormal before the last multiplication.

use crate::simd::Simd;

/// `1.5*2^23`: added and subtracted again, it rounds an f32 below `2^22` to the nearest integer, which is then in the
/// low bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// The same for f64: `1.5*2^52`.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;
/// ln(2) in two parts; the first has 9 bits, so that its products with every `n` are exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
/// 1/2!, 1/3!, ... 1/7!
const TAYLOR: [f32; 6] = [0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
/// Exponents are held this much too high until the last multiplication, so that only that one can be subnormal.
const LIFT: u32 = 48;
/// `2^-LIFT`.
const DROP: f32 = f32::from_bits((127 - LIFT) << 23);
/// Below this, `v*exp(v)` and everything smaller rounds to zero.
const LEAST: f32 = -110.0;

/// An argument of the exponential function, `n*ln(2) + r`.
#[derive(Clone, Copy)]
pub(super) struct Reduced<S: Simd> {
    r: S::F32,
    /// `n`, where an f32 has its exponent.
    n: S::U32,
}

impl<S: Simd> Reduced<S> {
    /// Of `v` in [-110, 110].
    #[inline(always)]
    pub(super) fn new(s: S, v: S::F32) -> Self {
        let rounded = v * s.splat(core::f32::consts::LOG2_E) + s.splat(ROUND);
        let n = rounded - s.splat(ROUND);
        Self { r: (v - n * s.splat(LN_2[0])) - n * s.splat(LN_2[1]), n: s.shift_left::<23>(s.to_bits(rounded)) }
    }

    /// Of an argument that an f32 does not hold well enough: an error of `v` is a relative error of `exp(v)`.
    #[inline(always)]
    pub(super) fn of_f64(s: S, v: S::F64) -> Self {
        let rounded = v * s.splat_f64(core::f64::consts::LOG2_E) + s.splat_f64(ROUND_F64);
        let n = rounded - s.splat_f64(ROUND_F64);
        let r = s.narrow(v - n * s.splat_f64(core::f64::consts::LN_2));
        Self { r, n: s.shift_left::<23>(s.to_bits(s.narrow(n) + s.splat(ROUND))) }
    }

    /// `p = exp(r) - 1`, and what the last addition rounded away.
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

    /// `2^(n + lift)`.
    #[inline(always)]
    fn power(&self, s: S, lift: u32) -> S::F32 {
        s.with_bits(self.n + s.splat_u32((127 + lift) << 23))
    }
}

/// `-|z|`, and NaN where it is NaN, but not below `least`.
#[inline(always)]
pub(super) fn negative<S: Simd>(s: S, z: S::F32, least: f32) -> S::F32 {
    let (z, least) = (s.with_bits(s.to_bits(z) | s.splat_u32(1 << 31)), s.splat(least));
    s.select(s.le(z, least), least, z)
}

/// `-|z|`, but not below where the sigmoid function is 0 in f32.
#[inline(always)]
pub(super) fn negative_enough<S: Simd>(s: S, z: S::F32) -> S::F32 {
    negative(s, z, LEAST)
}

/// `1/(1 + exp(-v)) = (value + rest)*2^n` of a `v` that is not above 0.
pub(super) struct Logistic<S: Simd> {
    value: S::F32,
    rest: S::F32,
    /// `2^(n + LIFT)`.
    power: S::F32,
}

impl<S: Simd> Logistic<S> {
    #[inline(always)]
    pub(super) fn new(s: S, v: Reduced<S>) -> Self {
        let (one, power) = (s.splat(1.0), v.power(s, LIFT));
        let factor = power * s.splat(DROP);
        let (p, p_rest) = v.exp_m1(s);
        let numerator = one + p;
        let numerator_rest = (p - (numerator - one)) + p_rest;
        let exp = numerator * factor;
        let denominator = one + exp;
        let denominator_rest = (exp - (denominator - one)) + numerator_rest * factor;
        let value = numerator / denominator;
        // The reciprocal of the denominator is 1 minus the result.
        let rest = (numerator_rest - value * denominator_rest) * (one - value * factor);
        Self { value, rest, power }
    }

    /// The value itself.
    #[inline(always)]
    pub(super) fn value(&self, s: S) -> S::F32 {
        ((self.value + self.rest) * self.power) * s.splat(DROP)
    }

    /// `by*value`, with one rounding less than the product of the two: both factors are split into 12 bits and the
    /// rest, so that the largest of their four products is exact.
    #[inline(always)]
    pub(super) fn times(&self, s: S, by: S::F32) -> S::F32 {
        let (value_upper, by_upper) = (upper(s, self.value), upper(s, by));
        let value_lower = (self.value - value_upper) + self.rest;
        let product = by_upper * value_upper + ((by - by_upper) * value_upper + by * value_lower);
        (product * self.power) * s.splat(DROP)
    }
}

/// The upper 12 bits of the significand.
#[inline(always)]
fn upper<S: Simd>(s: S, value: S::F32) -> S::F32 {
    s.with_bits(s.to_bits(value) & s.splat_u32(0xFFFF_F000))
}

/// The sigmoid function and its derivative, with a few roundings: what derivatives are made of.
pub(super) struct Slope<S: Simd> {
    /// `1/(1 + exp(-v))` for the sign that was asked for.
    pub(super) value: S::F32,
    /// Its derivative, `exp(v)/(1 + exp(v))^2`.
    pub(super) derivative: S::F32,
}

impl<S: Simd> Slope<S> {
    /// At `v`, which is not above 0, where `negative` says so, and at `-v` elsewhere.
    #[inline(always)]
    pub(super) fn new(s: S, v: S::F32, negative: S::Mask) -> Self {
        let v = Reduced::new(s, v);
        let (p, _) = v.exp_m1(s);
        let exp = ((s.splat(1.0) + p) * v.power(s, LIFT)) * s.splat(DROP);
        let larger = s.splat(1.0) / (s.splat(1.0) + exp);
        let smaller = exp * larger;
        Self { value: s.select(negative, smaller, larger), derivative: smaller * larger }
    }
}

/// `tanh(z)`, as `t/(t + 2)` with `t = exp(-2*|z|) - 1`.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, z: S::F32) -> S::F32 {
    // From 9.02 on, the nearest f32 is 1.
    let half = negative(s, z, -10.0);
    let v = Reduced::new(s, half + half);
    let (one, two, factor) = (s.splat(1.0), s.splat(2.0), v.power(s, 0));
    let (p, p_rest) = v.exp_m1(s);
    let (large, small) = (factor - one, factor * p);
    let numerator = large + small;
    let numerator_rest = (small - (numerator - large)) + factor * p_rest;
    let denominator = numerator + two;
    let denominator_rest = (numerator - (denominator - two)) + numerator_rest;
    let value = numerator / denominator;
    // The reciprocal of the denominator is half of 1 minus the result.
    let rest = (numerator_rest - value * denominator_rest) * ((one - value) * s.splat(0.5));
    let magnitude = s.to_bits(value + rest) & s.splat_u32(!(1 << 31));
    s.with_bits(magnitude | (s.to_bits(z) & s.splat_u32(1 << 31)))
}
