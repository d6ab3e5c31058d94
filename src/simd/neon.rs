//! The portable lanes of AArch64: four NEON registers of f32, eight of f64.
//!
//! Every CPU of the target has NEON. With the lanes of `wide` the calls take up to a third more
//! instructions (`benches/instructions`).
#![expect(unsafe_code, reason = "loads and stores take addresses")]

use core::arch::aarch64::*;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

use super::strip::{SingleFunction, Strip, StripFunction, StripFunctions, single, strip};
use super::{LANES, Lanes, Machine, Simd, Work};
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

lanes!(
    /// Sixteen f32 in four registers.
    F32([float32x4_t; 4])
    Add add vaddq_f32,
    Sub sub vsubq_f32,
    Mul mul vmulq_f32,
    Div div vdivq_f32,
);
lanes!(
    /// Sixteen f64 in eight registers.
    F64([float64x2_t; 8])
    Add add vaddq_f64,
    Sub sub vsubq_f64,
    Mul mul vmulq_f64,
    Div div vdivq_f64,
);
lanes!(
    /// Sixteen u32 in four registers.
    U32([uint32x4_t; 4])
    Add add vaddq_u32,
    BitAnd bitand vandq_u32,
    BitOr bitor vorrq_u32,
    BitXor bitxor veorq_u32,
);
lanes!(
    /// Sixteen truth values: all bits of a lane are set or clear.
    Mask([uint32x4_t; 4])
    BitAnd bitand vandq_u32,
);

/// Bit `i` in lane `i`.
#[inline(always)]
fn bit_of_lane() -> [uint32x4_t; 4] {
    const BITS: Lanes<u32> = {
        let mut lanes = [0; LANES];
        let mut i = 0;
        while i < LANES {
            lanes[i] = 1 << i;
            i += 1;
        }
        lanes
    };
    Portable.load_u32(&BITS).0
}

/// The bits of the four f32 that have the values of four f16.
#[inline(always)]
fn widened(half: uint32x4_t) -> float32x4_t {
    // SAFETY: the target has NEON.
    unsafe {
        // The bits at their new place are the number times 2^-112. Its product with 2^112 is exact, for
        // a subnormal number too.
        const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);

        let place = vshlq_n_u32::<13>(vandq_u32(half, vdupq_n_u32(0x7fff)));
        let magnitude = vmulq_f32(vreinterpretq_f32_u32(place), vdupq_n_f32(TWO_TO_112));
        let limit = vdupq_n_f32(65536.0);
        // A number with the largest exponent is infinite or NaN.
        let infinite = vandq_u32(vcleq_f32(limit, magnitude), vdupq_n_u32(0x7f80_0000));
        let nan = vandq_u32(vcltq_f32(limit, magnitude), vdupq_n_u32(0x7fc0_0000));
        let sign = vshlq_n_u32::<16>(vandq_u32(half, vdupq_n_u32(0x8000)));
        let special = vorrq_u32(infinite, nan);
        vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(vreinterpretq_u32_f32(magnitude), special), sign))
    }
}

/// Four f16 in the lower halves of four words. The rounding is that of
/// [`F16::from_f32`](crate::F16::from_f32), except that a number below 2^-14 is rounded by its sum
/// with 0.5, whose last place is 2^-24.
#[inline(always)]
fn narrowed(value: float32x4_t) -> uint32x4_t {
    // SAFETY: the target has NEON.
    unsafe {
        let bits = vreinterpretq_u32_f32(value);
        let magnitude_bits = vandq_u32(bits, vdupq_n_u32(0x7fff_ffff));
        let magnitude = vreinterpretq_f32_u32(magnitude_bits);
        let shifted = vshrq_n_u32::<13>(magnitude_bits);
        let rounding = vaddq_u32(vdupq_n_u32(0x0fff_u32.wrapping_sub(112 << 23)), vandq_u32(shifted, vdupq_n_u32(1)));
        let normal = vshrq_n_u32::<13>(vaddq_u32(magnitude_bits, rounding));
        let sum = vreinterpretq_u32_f32(vaddq_f32(magnitude, vdupq_n_f32(0.5)));
        let small = vsubq_u32(sum, vdupq_n_u32(0x3f00_0000));
        let is_small = vcltq_f32(magnitude, vdupq_n_f32(1.0 / 16384.0));
        let is_finite = vcltq_f32(magnitude, vdupq_n_f32(65536.0));
        let payload = vorrq_u32(vdupq_n_u32(0x0200), vandq_u32(shifted, vdupq_n_u32(0x03ff)));
        // The payload only where the value is NaN.
        let nan = vbicq_u32(payload, vceqq_f32(value, value));
        let large = vorrq_u32(vdupq_n_u32(0x7c00), nan);
        let result = vbslq_u32(is_finite, vbslq_u32(is_small, small, normal), large);
        vorrq_u32(result, vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(0x8000)))
    }
}

/// The upper halves of four f32, rounded to nearest even. The half of a NaN is a quiet NaN.
#[inline(always)]
fn upper_halves(value: float32x4_t) -> uint32x4_t {
    // SAFETY: the target has NEON.
    unsafe {
        let bits = vreinterpretq_u32_f32(value);
        let upper = vshrq_n_u32::<16>(bits);
        let even = vandq_u32(upper, vdupq_n_u32(1));
        let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, vaddq_u32(even, vdupq_n_u32(0x7fff))));
        let quiet = vorrq_u32(upper, vdupq_n_u32(0x0040));
        vbslq_u32(vceqq_f32(value, value), rounded, quiet)
    }
}

/// The words of two vectors of halves.
#[inline(always)]
fn words([low, high]: [uint16x8_t; 2]) -> [uint32x4_t; 4] {
    // SAFETY: the target has NEON.
    unsafe { [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)] }
}

/// The lower halves of sixteen words.
#[inline(always)]
fn lower_halves(words: [uint32x4_t; 4]) -> [uint16x8_t; 2] {
    // SAFETY: the target has NEON.
    unsafe {
        let [a, b, c, d] = words;
        [vmovn_high_u32(vmovn_u32(a), b), vmovn_high_u32(vmovn_u32(c), d)]
    }
}

impl Machine for Portable {
    type Simd = Self;

    #[inline(always)]
    fn all(self) -> Option<Self> {
        Some(self)
    }
}

impl Simd for Portable {
    type F32 = F32;
    type F64 = F64;
    type U32 = U32;
    type Mask = Mask;
    type Halves = [uint16x8_t; 2];

    #[inline(never)]
    fn apart(self, work: impl Work<Self>) {
        work.run(self);
    }

    #[inline(always)]
    fn strip(self, functions: &StripFunctions, parameter: f32, factors: &[f32], values: &mut [f32]) {
        (functions.portable.strip)(self, parameter, factors, values);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F32 {
        // SAFETY: the target has NEON.
        unsafe { F32([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes<f32>) -> F32 {
        let from = from.as_ptr();
        // SAFETY: the target has NEON; `from` is sixteen values.
        unsafe { F32([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> F32 {
        let mut lanes = [0.0; LANES];
        for (lane, &value) in lanes.iter_mut().zip(from) {
            *lane = value;
        }
        self.load(&lanes)
    }

    #[inline(always)]
    fn store(self, value: F32, to: &mut Lanes<f32>) {
        let to = to.as_mut_ptr();
        let [a, b, c, d] = value.0;
        // SAFETY: the target has NEON; `to` is sixteen values.
        unsafe {
            vst1q_f32(to, a);
            vst1q_f32(to.add(4), b);
            vst1q_f32(to.add(8), c);
            vst1q_f32(to.add(12), d);
        }
    }

    #[inline(always)]
    fn store_partial(self, value: F32, to: &mut [f32]) {
        if let Some(to) = to.first_chunk_mut() {
            return self.store(value, to);
        }
        let ([mut four, mut next, c, d], n) = (value.0, to.len());
        let mut to = to.as_mut_ptr();
        // SAFETY: the target has NEON; `to` has room for `n` values, and `n` is the sum of the powers of
        // two that are stored behind each other.
        unsafe {
            if n & 8 != 0 {
                vst1q_f32(to, four);
                vst1q_f32(to.add(4), next);
                (to, four, next) = (to.add(8), c, d);
            }
            if n & 4 != 0 {
                vst1q_f32(to, four);
                (to, four) = (to.add(4), next);
            }
            let mut two = vget_low_f32(four);
            if n & 2 != 0 {
                vst1_f32(to, two);
                (to, two) = (to.add(2), vget_high_f32(four));
            }
            if n & 1 != 0 {
                vst1_lane_f32::<0>(to, two);
            }
        }
    }

    #[inline(always)]
    fn load_halves<H: Half>(self, from: &Lanes<H>) -> [uint16x8_t; 2] {
        let from = from.as_ptr().cast();
        // SAFETY: the target has NEON; `from` is sixteen values of sixteen bits.
        unsafe { [vld1q_u16(from), vld1q_u16(from.add(8))] }
    }

    #[inline(always)]
    fn store_halves<H: Half>(self, [low, high]: [uint16x8_t; 2], to: &mut Lanes<H>) {
        let to = to.as_mut_ptr().cast();
        // SAFETY: the target has NEON; `to` is sixteen values of sixteen bits, and any bits are a value.
        unsafe {
            vst1q_u16(to, low);
            vst1q_u16(to.add(8), high);
        }
    }

    #[inline(always)]
    fn widen_f16(self, halves: [uint16x8_t; 2]) -> F32 {
        let [a, b, c, d] = words(halves);
        F32([widened(a), widened(b), widened(c), widened(d)])
    }

    #[inline(always)]
    fn narrow_f16(self, value: F32) -> [uint16x8_t; 2] {
        let [a, b, c, d] = value.0;
        lower_halves([narrowed(a), narrowed(b), narrowed(c), narrowed(d)])
    }

    #[inline(always)]
    fn widen_bf16(self, halves: [uint16x8_t; 2]) -> F32 {
        self.with_bits(self.shift_left::<16>(U32(words(halves))))
    }

    #[inline(always)]
    fn narrow_bf16(self, value: F32) -> [uint16x8_t; 2] {
        let [a, b, c, d] = value.0;
        lower_halves([upper_halves(a), upper_halves(b), upper_halves(c), upper_halves(d)])
    }

    #[inline(always)]
    fn le(self, a: F32, b: F32) -> Mask {
        // SAFETY: the target has NEON.
        unsafe {
            Mask([
                vcleq_f32(a.0[0], b.0[0]),
                vcleq_f32(a.0[1], b.0[1]),
                vcleq_f32(a.0[2], b.0[2]),
                vcleq_f32(a.0[3], b.0[3]),
            ])
        }
    }

    #[inline(always)]
    fn unless_less(self, mask: Mask, a: F32, b: F32) -> Mask {
        // SAFETY: the target has NEON.
        unsafe {
            Mask([
                vbicq_u32(mask.0[0], vcltq_f32(a.0[0], b.0[0])),
                vbicq_u32(mask.0[1], vcltq_f32(a.0[1], b.0[1])),
                vbicq_u32(mask.0[2], vcltq_f32(a.0[2], b.0[2])),
                vbicq_u32(mask.0[3], vcltq_f32(a.0[3], b.0[3])),
            ])
        }
    }

    #[inline(always)]
    fn keep(self, mask: Mask, value: F32) -> F32 {
        self.with_bits(self.to_bits(value) & U32(mask.0))
    }

    #[inline(always)]
    fn drop(self, mask: Mask, value: F32) -> F32 {
        self.with_bits(self.without(self.to_bits(value), U32(mask.0)))
    }

    #[inline(always)]
    fn select(self, mask: Mask, yes: F32, no: F32) -> F32 {
        // SAFETY: the target has NEON.
        unsafe {
            F32([
                vbslq_f32(mask.0[0], yes.0[0], no.0[0]),
                vbslq_f32(mask.0[1], yes.0[1], no.0[1]),
                vbslq_f32(mask.0[2], yes.0[2], no.0[2]),
                vbslq_f32(mask.0[3], yes.0[3], no.0[3]),
            ])
        }
    }

    #[inline(always)]
    fn mask(self, bits: u16) -> Mask {
        // SAFETY: the target has NEON.
        unsafe {
            let (bits, [a, b, c, d]) = (vdupq_n_u32(u32::from(bits)), bit_of_lane());
            Mask([vtstq_u32(bits, a), vtstq_u32(bits, b), vtstq_u32(bits, c), vtstq_u32(bits, d)])
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
    fn bits(self, mask: Mask) -> u16 {
        // SAFETY: the target has NEON.
        unsafe {
            let [a, b, c, d] = (U32(mask.0) & U32(bit_of_lane())).0;
            // Every lane has another bit, so that the sum is all bits together.
            vaddvq_u32(vorrq_u32(vorrq_u32(a, b), vorrq_u32(c, d))) as u16
        }
    }

    #[inline(always)]
    fn splat_f64(self, value: f64) -> F64 {
        // SAFETY: the target has NEON.
        unsafe { F64([vdupq_n_f64(value); 8]) }
    }

    #[inline(always)]
    fn load_f64(self, from: &Lanes<f64>) -> F64 {
        let mut result = self.splat_f64(0.0);
        for (register, two) in result.0.iter_mut().zip(from.as_chunks::<2>().0) {
            // SAFETY: the target has NEON; two values.
            *register = unsafe { vld1q_f64(two.as_ptr()) };
        }
        result
    }

    #[inline(always)]
    fn store_f64(self, value: F64, to: &mut Lanes<f64>) {
        for (register, two) in value.0.into_iter().zip(to.as_chunks_mut::<2>().0) {
            // SAFETY: the target has NEON; two values.
            unsafe { vst1q_f64(two.as_mut_ptr(), register) };
        }
    }

    #[inline(always)]
    fn widen(self, value: F32) -> F64 {
        // SAFETY: the target has NEON.
        unsafe {
            let [a, b, c, d] = value.0;
            F64([
                vcvt_f64_f32(vget_low_f32(a)),
                vcvt_high_f64_f32(a),
                vcvt_f64_f32(vget_low_f32(b)),
                vcvt_high_f64_f32(b),
                vcvt_f64_f32(vget_low_f32(c)),
                vcvt_high_f64_f32(c),
                vcvt_f64_f32(vget_low_f32(d)),
                vcvt_high_f64_f32(d),
            ])
        }
    }

    #[inline(always)]
    fn narrow(self, value: F64) -> F32 {
        // SAFETY: the target has NEON.
        unsafe {
            let [a, b, c, d, e, f, g, h] = value.0;
            F32([
                vcvt_high_f32_f64(vcvt_f32_f64(a), b),
                vcvt_high_f32_f64(vcvt_f32_f64(c), d),
                vcvt_high_f32_f64(vcvt_f32_f64(e), f),
                vcvt_high_f32_f64(vcvt_f32_f64(g), h),
            ])
        }
    }

    #[inline(always)]
    fn sqrt(self, value: F64) -> F64 {
        // SAFETY: the target has NEON.
        unsafe {
            let mut result = value.0;
            for value in &mut result {
                *value = vsqrtq_f64(*value);
            }
            F64(result)
        }
    }

    #[inline(always)]
    fn larger(self, a: F64, b: F64) -> F64 {
        // SAFETY: the target has NEON.
        unsafe {
            let mut result = b.0;
            for (b, a) in result.iter_mut().zip(a.0) {
                *b = vbslq_f64(vcgtq_f64(a, *b), a, *b);
            }
            F64(result)
        }
    }

    #[inline(always)]
    fn less(self, a: F64, b: F64) -> u16 {
        // SAFETY: the target has NEON.
        unsafe {
            let mut less = [vdupq_n_u64(0); 8];
            for ((less, a), b) in less.iter_mut().zip(a.0).zip(b.0) {
                *less = vcltq_f64(a, b);
            }
            let [a, b, c, d, e, f, g, h] = less;
            self.bits(Mask([
                vmovn_high_u64(vmovn_u64(a), b),
                vmovn_high_u64(vmovn_u64(c), d),
                vmovn_high_u64(vmovn_u64(e), f),
                vmovn_high_u64(vmovn_u64(g), h),
            ]))
        }
    }

    #[inline(always)]
    fn load_pair(self, from: &Lanes<f64>) -> (F32, F32) {
        let from = from.as_ptr().cast::<Lanes<f32>>();
        // SAFETY: sixteen words have room for 32 values, and any bits are a value.
        unsafe { (self.load(&*from), self.load(&*from.add(1))) }
    }

    #[inline(always)]
    fn store_pair(self, first: F32, second: F32, to: &mut Lanes<f64>) {
        let to = to.as_mut_ptr().cast::<Lanes<f32>>();
        // SAFETY: sixteen words have room for 32 values, and any bits are a value.
        unsafe {
            self.store(first, &mut *to);
            self.store(second, &mut *to.add(1));
        }
    }

    #[inline(always)]
    fn splat_u32(self, value: u32) -> U32 {
        // SAFETY: the target has NEON.
        unsafe { U32([vdupq_n_u32(value); 4]) }
    }

    #[inline(always)]
    fn load_u32(self, from: &Lanes<u32>) -> U32 {
        let from = from.as_ptr();
        // SAFETY: the target has NEON; `from` is sixteen values.
        unsafe { U32([vld1q_u32(from), vld1q_u32(from.add(4)), vld1q_u32(from.add(8)), vld1q_u32(from.add(12))]) }
    }

    #[inline(always)]
    fn store_u32(self, value: U32, to: &mut Lanes<u32>) {
        let to = to.as_mut_ptr();
        let [a, b, c, d] = value.0;
        // SAFETY: the target has NEON; `to` is sixteen values.
        unsafe {
            vst1q_u32(to, a);
            vst1q_u32(to.add(4), b);
            vst1q_u32(to.add(8), c);
            vst1q_u32(to.add(12), d);
        }
    }

    #[inline(always)]
    fn without(self, value: U32, of: U32) -> U32 {
        // SAFETY: the target has NEON.
        unsafe {
            let mut result = value.0;
            for (value, of) in result.iter_mut().zip(of.0) {
                *value = vbicq_u32(*value, of);
            }
            U32(result)
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "a count of at most 31")]
    fn shift_left<const BITS: u32>(self, value: U32) -> U32 {
        // SAFETY: the target has NEON.
        unsafe {
            let mut result = value.0;
            for value in &mut result {
                *value = vshlq_u32(*value, vdupq_n_s32(BITS as i32));
            }
            U32(result)
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_wrap, reason = "counts of at most 31")]
    fn rotate_left<const BITS: u32>(self, value: U32) -> U32 {
        // SAFETY: the target has NEON.
        unsafe {
            let mut right = value.0;
            for value in &mut right {
                // A negative count shifts right.
                *value = vshlq_u32(*value, vdupq_n_s32(BITS as i32 - 32));
            }
            self.shift_left::<BITS>(value) | U32(right)
        }
    }

    #[inline(always)]
    fn to_bits(self, value: F32) -> U32 {
        // SAFETY: the target has NEON.
        unsafe {
            let [a, b, c, d] = value.0;
            U32([
                vreinterpretq_u32_f32(a),
                vreinterpretq_u32_f32(b),
                vreinterpretq_u32_f32(c),
                vreinterpretq_u32_f32(d),
            ])
        }
    }

    #[inline(always)]
    fn with_bits(self, bits: U32) -> F32 {
        // SAFETY: the target has NEON.
        unsafe {
            let [a, b, c, d] = bits.0;
            F32([
                vreinterpretq_f32_u32(a),
                vreinterpretq_f32_u32(b),
                vreinterpretq_f32_u32(c),
                vreinterpretq_f32_u32(d),
            ])
        }
    }

    #[inline(always)]
    fn is_zero(self, value: U32) -> bool {
        // SAFETY: the target has NEON.
        unsafe {
            let [a, b, c, d] = value.0;
            vmaxvq_u32(vorrq_u32(vorrq_u32(a, b), vorrq_u32(c, d))) == 0
        }
    }
}
